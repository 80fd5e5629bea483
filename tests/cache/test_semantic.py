"""From a question to a proposal by meaning, on a real store and index; only the vectors are made by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from time import time

import numpy as np
import pytest
from numpy.typing import NDArray

from steps.asked import asked, chat
from stepwell.cache import semantic as room
from stepwell.cache.asking import Asking
from stepwell.cache.coalesce import Flights
from stepwell.cache.exact import Exact, name_of
from stepwell.cache.key import Identity
from stepwell.cache.rows import AnswerRow, encode
from stepwell.cache.semantic import Semantic
from stepwell.cache.tags import Tags
from stepwell.errors import StoreError
from stepwell.index.feed import Feed
from stepwell.index.rows import KEYS, KeyAdded
from stepwell.index.vectors import packed
from stepwell.store.memory import Memory
from stepwell.store.memory_store import MemoryStore
from stepwell.types import Defer, Proposal

PARTITION = b"p" * 32


class Letters:
    """Counts letters: texts that share most of them are near."""

    name = "letters"
    num_dimensions = 64

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            for one in text.lower():
                found[row, ord(one) % 64] += 1
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def reads(self, text: str) -> bool:
        return len(text) < 200

    async def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture
async def semantic() -> AsyncIterator[Semantic]:
    store = MemoryStore(1 << 20)
    exact = Exact(Memory(1 << 20), store, Tags(store, keep_s=60, shared=False))
    yield Semantic(Letters(), exact, Feed(store), deadline_s=5)
    await exact.close()


async def know(semantic: Semantic, question: str, answer: str) -> bytes:
    """Keep an answer and one wording of its question."""
    row = AnswerRow(PARTITION, "json", chat(answer), None, "e", 0.0, time(), time() + 60)
    await semantic.exact.store.put(b"a" + name_of(row), encode(row), time() + 60)  # type: ignore[union-attr]
    (vector,) = await semantic.embedder.embed([question])
    key = KeyAdded(
        question.encode(),
        PARTITION,
        name_of(row),
        question,
        packed(vector).tobytes(),
        semantic.wordings.embedder,
        b"w",
        time() + 60,
    )
    await semantic.exact.store.append(KEYS, encode(key), time() + 60)  # type: ignore[union-attr]
    await semantic.feed.follow()
    return name_of(row)


async def ask(semantic: Semantic, question: str, *, takes: bool = True) -> Proposal | Defer:
    who = Identity(question.encode(), PARTITION, question, b"w")
    return await semantic.propose(Asking(asked(id=question), who, Flights(1 << 20), lambda _: takes, lambda _: True))


def text(proposal: Proposal) -> str:
    return str(json.loads(proposal.answer.body)["choices"][0]["message"]["content"])


async def test_other_words_are_proposed_with_features(semantic: Semantic) -> None:
    await know(semantic, "How do I activate my card?", "Tap on it.")
    found = await ask(semantic, "How can I activate my cards?")
    assert isinstance(found, Proposal)
    assert found.evidence.kind == "semantic"
    assert found.evidence.features
    assert text(found) == "Tap on it."


async def test_what_the_guard_objects_to_is_proposed_to_the_judge_alone(semantic: Semantic) -> None:
    answer = await know(semantic, "How do I activate my card?", "Tap on it.")
    found = await ask(semantic, "How do I deactivate my card?")
    assert isinstance(found, Proposal)
    assert found.evidence.features == ()
    assert found.evidence.detail == "meaning: differs in direction swap"
    assert found.evidence.case is not None
    assert found.evidence.case.answer == answer


async def test_other_values_are_put_in(semantic: Semantic) -> None:
    await know(semantic, "Send 20 euros to Anna on Monday?", "Choose Anna, type 20 euros and pick Monday.")
    found = await ask(semantic, "Send 35 euros to Bob on Friday?")
    assert isinstance(found, Proposal)
    assert found.evidence.kind == "slot_fill"
    assert found.evidence.features
    assert text(found) == "Choose Bob, type 35 euros and pick Friday."


async def test_a_wording_with_other_values_never_becomes_a_key_of_the_answer_without_them(semantic: Semantic) -> None:
    answer = await know(semantic, "Send 20 euros to Anna on Monday?", "Choose Anna, type 20 euros and pick Monday.")
    question = "Send 35 euros to Bob on Friday?"
    found = await ask(semantic, question)
    assert isinstance(found, Proposal)
    assert found.evidence.case is not None
    added = [
        semantic.wordings.judged(question.encode(), right=True),
        semantic.wordings.answered(question.encode(), b"f" * 32, 5.0),
    ]
    assert [row.answer for row in added if row is not None] == [b"f" * 32]
    assert answer != b"f" * 32


async def test_values_that_cannot_be_put_in_are_told_for_coverage(semantic: Semantic) -> None:
    await know(semantic, "What is 5 plus 7?", "5 plus 7 is 12.")
    found = await ask(semantic, "What is 6 plus 7?")
    assert isinstance(found, Proposal)
    assert found.evidence.features == ()
    assert found.evidence.detail == "meaning: no blanks for number"


async def test_an_embedder_that_hangs_is_a_miss(semantic: Semantic, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_texts: Sequence[str]) -> NDArray[np.float32]:
        await asyncio.sleep(3600)
        raise AssertionError

    await know(semantic, "How do I activate my card?", "Tap on it.")
    monkeypatch.setattr(semantic.embedder, "embed", hang)
    semantic.deadline_s = 0.01
    assert isinstance(await ask(semantic, "How can I activate my card?"), Defer)
    assert semantic.num_late == 1


async def test_a_question_that_is_not_read_to_its_end_is_new(semantic: Semantic) -> None:
    await know(semantic, "How do I activate my card?", "Tap on it.")
    found = await ask(semantic, "How do I activate my card? " * 20)
    assert isinstance(found, Defer)
    assert "longer than the embedder reads" in found.reason


async def test_what_the_caller_does_not_take_is_not_proposed(semantic: Semantic) -> None:
    await know(semantic, "How do I activate my card?", "Tap on it.")
    found = await ask(semantic, "How can I activate my cards?", takes=False)
    assert isinstance(found, Defer)
    assert "not what the caller takes" in found.reason


async def test_what_is_far_is_never_near_enough(semantic: Semantic) -> None:
    await know(semantic, "zzzz zzzz", "Sleep.")
    found = await ask(semantic, "What about the book?")
    assert isinstance(found, Defer)
    assert "nothing near" in found.reason


async def test_an_answer_that_is_made_anew_takes_its_wordings_along(semantic: Semantic) -> None:
    old = await know(semantic, "How do I activate my card?", "Tap on it.")
    who = Identity(b"x" * 32, PARTITION, "How do I activate my card?", b"w")
    row = AnswerRow(PARTITION, "json", chat("Tap twice."), None, "e", 0.0, time(), time() + 60)
    await semantic.exact.store.put(b"a" + name_of(row), encode(row), time() + 60)  # type: ignore[union-attr]
    semantic.kept(who, name_of(row), time() + 60, old)
    await asyncio.sleep(0.01)
    await semantic.feed.follow()
    found = await ask(semantic, "How can I activate my cards?")
    assert isinstance(found, Proposal)
    assert text(found) == "Tap twice."
    assert semantic.feed.index.num_keys(PARTITION) == 1


async def test_who_follows_the_log_is_ready_without_it_and_goes_on_whatever_breaks(
    semantic: Semantic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(room, "FOLLOW_S", 0.01)
    errors: list[Exception] = [ValueError("a defect"), StoreError("gone")]
    follow = semantic.feed.follow

    async def broken() -> int:
        if errors:
            raise errors[-1]
        return await follow()

    monkeypatch.setattr(semantic.feed, "follow", broken)
    running = asyncio.get_running_loop().create_task(semantic.run())
    await asyncio.sleep(0.05)
    assert (semantic.tried, semantic.caught_up) == (True, False)
    errors.pop()
    await asyncio.sleep(0.05)
    assert 0 < caplog.text.count("cannot be followed") < 10, "with its pause"
    errors.pop()
    await asyncio.sleep(0.05)
    assert semantic.caught_up
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
