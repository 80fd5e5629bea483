"""When an answer becomes everybody's, what never does, and where it is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from time import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from stepwell.cache.exact import Exact, Held
from stepwell.cache.fresh import Terms
from stepwell.cache.key import key, scope
from stepwell.cache.public import Asked, by_hash, by_question, offer, unfit, voted, voter
from stepwell.cache.rows import AnswerRow
from stepwell.cache.tags import Tags
from stepwell.client import digest
from stepwell.errors import BadRequest
from stepwell.facts.personal import is_card, personal
from stepwell.gateway import openai
from stepwell.store.memory import Memory
from stepwell.store.memory_store import MemoryStore
from stepwell.types import Caller, Request, Usage

TERMS = Terms(ttl_s=60.0)
PARTITION = scope(b"r", Caller("", ""), "public")
ALL = {PARTITION: TERMS}
WHO = [voter(b"secret", Caller("acme", name)) for name in ("anna", "ben", "cleo", "dora")]


def request(content: str = "How deep is the well?", **fields: Any) -> Request:
    asked = {"model": "well", "messages": [{"role": "user", "content": content}], "temperature": 0, **fields}
    return openai.parse("chat", json.dumps(asked).encode(), id="1", caller=Caller("acme", "anna"), started_s=0.0)


def question(content: str = "How deep is the well?") -> Asked:
    asked = request(content)
    return Asked("chat", asked.canonical, PARTITION, key(PARTITION, asked))


def row(said: str = "Twelve metres.", **fields: Any) -> AnswerRow:
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    body = json.dumps({"id": "chatcmpl-1234567890", "created": 1_700_000_000, "choices": [choice]}).encode()
    kept = AnswerRow(b"private", "json", body, Usage(5, 3), "up", 0.01, time(), time() + 60, ("model:well",))
    return msgspec.structs.replace(kept, **fields)


@pytest.fixture
async def exact() -> AsyncIterator[Exact]:
    store = MemoryStore(1_000_000)
    kept = Exact(Memory[Held](1_000_000), store, Tags(store, keep_s=60.0, shared=False))
    yield kept
    await kept.close()


async def offered(exact: Exact, who: bytes, asked: Asked | None = None, answer: AnswerRow | None = None) -> str:
    return await offer(exact, asked or question(), who, answer or row(), terms=TERMS, quorum=3)


async def written(exact: Exact) -> None:
    while exact.num_writing:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_three_distinct_principals_make_an_answer_public(exact: Exact) -> None:
    asked = question()
    for who in (WHO[0], WHO[0], WHO[0], WHO[1], WHO[1], WHO[0]):
        assert await offered(exact, who) == "fewer than 3 principals asked"
    assert await by_question(exact, PARTITION, asked.exact, ALL) is None
    assert await offered(exact, WHO[2]) == ""
    found = await by_question(exact, PARTITION, asked.exact, ALL)
    assert found is not None
    assert json.loads(found.body)["choices"][0]["message"]["content"] == "Twelve metres."
    await written(exact)
    exact.memory.drop(asked.exact)
    assert await by_question(exact, PARTITION, asked.exact, ALL) == found, "the store has it, too"
    assert await by_hash(exact, frozenset({PARTITION}), sha256(found.body).digest()) == found


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(2, 4))
def test_only_distinct_voters_count(asking: list[int], quorum: int) -> None:
    async def told() -> list[bool]:
        store = MemoryStore(1_000_000)
        return [await voted(store, b"q" * 32, b"%d" % who, quorum, time() + 60) for who in asking]

    wanted = [len(set(asking[: number + 1])) >= quorum for number in range(len(asking))]
    assert asyncio.run(told()) == wanted


@pytest.mark.asyncio
async def test_other_questions_and_other_partitions_have_nothing(exact: Exact) -> None:
    asked = question()
    for who in WHO:
        await offered(exact, who)
    await written(exact)
    found = await by_question(exact, PARTITION, asked.exact, ALL)
    assert found is not None
    assert await by_question(exact, PARTITION, question("How old?").exact, ALL) is None
    assert await by_question(exact, sha256(b"other").digest(), asked.exact, ALL) is None
    assert await by_hash(exact, frozenset(), sha256(found.body).digest()) == "missing"
    private = exact.keep(b"\1" * 32, b"private", row(), TERMS, 0)
    await written(exact)
    assert await by_hash(exact, frozenset({PARTITION}), private.name) == "missing"
    for partition in (PARTITION, b"private"):
        assert await by_question(exact, partition, b"\1" * 32, ALL) is None


@pytest.mark.asyncio
async def test_votes_at_the_same_time_all_count(exact: Exact) -> None:
    told = await asyncio.gather(*(offered(exact, who) for who in WHO))
    assert "" in told
    assert exact.store is not None
    many = [voter(b"secret", Caller("acme", str(number))) for number in range(40)]
    assert not any(await asyncio.gather(*(voted(exact.store, b"x" * 32, who, 50, time() + 9) for who in many[:5])))


@pytest.mark.asyncio
async def test_a_stream_becomes_json_and_what_was_invalidated_is_gone(exact: Exact) -> None:
    events = (
        b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"Deep"},"finish_reason":null}]}\n\ndata: [DONE]\n\n'
    )
    for who in WHO:
        await offered(exact, who, answer=row(form="events", body=events))
    await written(exact)
    found = await by_question(exact, PARTITION, question().exact, ALL)
    assert found is not None
    assert json.loads(found.body)["choices"][0]["message"]["content"] == "Deep"
    await exact.tags.bump("model:well")
    assert await by_question(exact, PARTITION, question().exact, ALL) is None
    assert await by_hash(exact, frozenset({PARTITION}), sha256(found.body).digest()) == "gone"


@pytest.mark.asyncio
async def test_what_is_stale_is_not_given(exact: Exact) -> None:
    for who in WHO:
        await offered(exact, who, answer=row(stale_s=time() - 1))
    assert await by_question(exact, PARTITION, question().exact, ALL) is None


@pytest.mark.asyncio
async def test_what_is_personal_stays_private_however_many_ask(exact: Exact) -> None:
    for who in WHO[:2]:
        await offered(exact, who, question("Who is anna.berg@example.com?"))
    assert "e-mail address in the question" in await offered(exact, WHO[2], question("Who is anna.berg@example.com?"))
    for who in WHO[:2]:
        await offered(exact, who)
    assert "telephone or account number in the answer" in await offered(
        exact, WHO[2], answer=row("Call +1 202 555 0100")
    )


@pytest.mark.asyncio
async def test_without_a_store_nothing_becomes_public() -> None:
    exact = Exact(Memory[Held](1_000_000), None, Tags(None, keep_s=60.0, shared=False))
    assert await offered(exact, WHO[0]) == "nothing lasts without a store"
    assert await by_hash(exact, frozenset({PARTITION}), b"\0" * 32) == "missing"


def test_what_is_more_than_one_text_stays_private() -> None:
    assert unfit(question(), row()) == ""
    assert unfit(question(), row(body=b'{"choices":[]}')) == "it is more than one text"
    assert unfit(question("x" * 300_000), row()) == "too long to look through"
    elsewhere = msgspec.structs.replace(question(), canonical=request(seed="a@b.example").canonical)
    assert "e-mail" in unfit(elsewhere, row())


PERSONAL = {
    "an e-mail address": ["anna.berg@example.co.uk", "Write to anna (at) example"],
    "a telephone or account number": [
        "+49 (170) 123-4567",
        "555-0123",
        "call 0170.1234567",
        "no. 12345678",
        "١٢٣٤٥٦٧٨",
    ],
    "a payment card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005"],
    "a bank account": ["DE89 3704 0044 0532 0130 00 is mine", "GB82WEST12345698765432", "gb82 west 1234 5698 7654 32"],
    "a key": [
        "sk-abcdefghijklmnop123",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0",
        "my password is hunter22",
        "-----BEGIN RSA PRIVATE KEY-----",
        "5d41402abc4b2a76b9719d911017c592",
    ],
    "a network address": ["it is 192.168.1.17"],
}
PLAIN = [
    "The well is 12 m deep, built 1890-1912.",
    "1,234,567.89 USD on 2026-11-25",
    "Rindfleischetikettierungsueberwachungsaufgabenuebertragungsgesetz",
    "version 1.2.3, at 12:30, 100 %, 3 x 4",
    "https://example.com/a/b-c",
    "the token is gone; keep the secret",
    "Zoë — 深い 😀",
    "",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in PERSONAL.items() for text in texts])
def test_personal_data_is_found_by_its_form(kind: str, text: str) -> None:
    assert personal(text) == kind
    assert personal(f"Well, {text}, you know?") == kind


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_is_not_suspected(text: str) -> None:
    assert personal(text) == ""


@given(st.integers(0, 10**15 - 1))
def test_luhn_finds_every_single_wrong_digit(number: int) -> None:
    front = f"{number:015d}"
    last = next(digit for digit in "0123456789" if is_card(front + digit))
    right = front + last
    for place, digit in enumerate(right):
        assert not is_card(right[:place] + str((int(digit) + 1) % 10) + right[place + 1 :])


@given(st.text())
def test_looking_through_any_text_ends(text: str) -> None:
    personal(text)


def test_long_hostile_texts_are_looked_through_in_no_time() -> None:
    for text in ("1 ", "a@", "A1", "-", "DE89 ", "1.", "eyJ-", "a-", "sk-a", "token "):
        personal(text * (32_768 // len(text)))


VECTORS = json.loads((ROOT / "docs" / "digest.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_the_gateway_and_the_client_pass_the_vectors(vector: dict[str, Any]) -> None:
    body, partition = vector["body"].encode(), bytes.fromhex(VECTORS["partition"])
    asked = openai.parse(vector["kind"], body, id="1", caller=Caller("a", "b"), started_s=0.0)
    assert asked.canonical.decode() == vector["canonical"]
    assert key(partition, asked).hex() == vector["digest"] == digest(partition, vector["kind"], body)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(NUMBERS | st.integers())
def test_a_canonical_number_reads_back_as_itself_and_is_its_own_canonical_form(number: float) -> None:
    once = openai.canonical(openai.decoded(b'{"x":%b}' % json.dumps(number).encode()))
    assert type(number)(json.loads(once)["x"]) == number
    assert openai.canonical(openai.decoded(once)) == once


def test_a_number_that_no_double_holds_is_refused() -> None:
    with pytest.raises(BadRequest, match="out of range"):
        openai.decoded(b'{"x":1e400}')
