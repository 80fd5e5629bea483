"""Audits: what is judged, what is learned, and what is said to whom."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

import msgspec
import pytest

from stepwell.cache.rows import LABELS, encode
from stepwell.errors import EngineUnavailable, StoreError
from stepwell.quality.cut import fit
from stepwell.quality.judge import Verdict, exact
from stepwell.quality.promise import LEAST_LABELS, NUM_LABELS, SHUT, Fit, Past, Promise, Terms
from stepwell.steps import audits as room
from stepwell.steps import pace
from stepwell.steps.audits import FOLLOWED, MOST_CHARS, Audits, family
from stepwell.steps.pace import Pace
from stepwell.store.memory_store import MemoryStore
from stepwell.types import (
    Answer,
    Caller,
    Case,
    Evidence,
    Label,
    Outcome,
    Proposal,
    Request,
    Ruling,
    Settled,
    Visit,
    Withheld,
)

REQUEST = Request(id="1", kind="chat", caller=Caller("t", "p"), model="m", body=b"{}", canonical=b"{}")
AUDIT, REFUSE = Ruling("audit", "", 0.9, 0.25), Ruling("refuse", "", 0.4)


def body(text: str) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}).encode()


def proposal(text: str = "yes", kind: Any = "semantic", principal: bytes = b"who") -> Proposal:
    case = Case(question="?", partition=b"p", version=1, exact=b"x", answer=b"a", principal=principal)
    return Proposal(Answer(form="json", body=body(text)), Evidence(kind, "", (1.0, 0.5), case))


def settled(text: str, *withheld: Withheld, complete: bool = True, step: str = "large", reason: str = "") -> Settled:
    visits = (Visit("cache", "refused", "", 0.0), Visit(step, "answered", reason, 0.0))
    outcome = Outcome(Answer(form="json", body=body(text)), visits, withheld=withheld)
    return Settled(
        request=REQUEST, outcome=outcome, form="json", body=body(text), usage=None, complete=complete,
        status=200, seconds=0.1,
    )  # fmt: skip


class Told:
    def __init__(self) -> None:
        self.verdicts: list[bool | None] = []

    def told(self, _case: Case, *, right: bool | None) -> None:
        self.verdicts.append(right)


def audits(
    told: Told, *, judge: Any = exact, store: Any = None, label: float = 1.0, waiting: int = 9, usd_hour: float = 1.0
) -> Audits:
    promise = Promise(Terms(0.1), Random(1))
    return Audits(
        promise,
        judge,
        store or MemoryStore(1 << 20),
        {"cache": told},
        pace=Pace(label, usd_hour),
        max_waiting=waiting,
        chance=Random(1),
    )


async def judged(made: Audits, *requests: Settled) -> None:
    running = asyncio.get_running_loop().create_task(made.run())
    for each in requests:
        made.settle(each)
    await made.line.join()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_withheld_proposals_become_labels_for_every_process() -> None:
    told, store = Told(), MemoryStore(1 << 20)
    made = audits(told, store=store)
    await judged(
        made,
        settled("Yes.", Withheld("cache", proposal("yes"), AUDIT)),
        settled("no", Withheld("cache", proposal("yes"), REFUSE)),
    )
    assert told.verdicts == [True, False]
    assert len(await store.since(LABELS, 0, 10)) == 2
    other = audits(Told(), store=store)
    await other.read()
    (first, second) = other.promise.labels
    assert (first.right, first.share, first.would_serve, first.predicted) == (True, 0.25, True, 0.9)
    assert (second.right, second.share, second.would_serve) == (False, 1.0, False)
    assert (first.step, first.partition, first.key, first.cluster) == ("cache", b"p", b"who", b"a")


@pytest.mark.parametrize(
    "request_",
    [
        settled("yes", Withheld("cache", proposal(), AUDIT), complete=False),
        settled("yes", Withheld("cache", proposal(), AUDIT), step="cache"),
        settled("yes", Withheld("cache", proposal(), REFUSE), step="specialist"),
    ],
    ids=["cut off", "answered by the same step", "answered by a specialist"],
)
async def test_where_nothing_can_be_compared_the_step_is_told_so(request_: Settled) -> None:
    told = Told()
    made = audits(told)
    await judged(made, request_)
    assert told.verdicts == [None]
    assert not made.promise.labels


async def test_specialists_have_a_trial_of_their_own() -> None:
    told = Told()
    made = audits(told)
    await judged(made, settled("yes", Withheld("specialist", proposal(kind="specialist"), AUDIT)))
    assert told.verdicts == []
    assert (made.num_unclear, len(made.promise.labels)) == (0, 0)


async def test_no_verdict_is_no_label() -> None:
    async def unsure(*_: str) -> Verdict:
        return Verdict(None, "?", 0.5)

    async def broken(*_: str) -> Verdict:
        raise EngineUnavailable("gone")

    for judge, usd in ((unsure, 0.5), (broken, 0.0)):
        told, store = Told(), MemoryStore(1 << 20)
        made = audits(told, judge=judge, store=store)
        await judged(made, settled("yes", Withheld("cache", proposal(), AUDIT)))
        assert told.verdicts == [None]
        assert (made.num_unclear, made.usd) == (1, usd)
        assert await store.since(LABELS, 0, 10) == []


async def test_a_full_line_and_an_unwanted_label_are_told_too() -> None:
    told = Told()
    made = audits(told, waiting=1)
    made.settle(settled("yes", Withheld("cache", proposal(), AUDIT), Withheld("cache", proposal(), AUDIT)))
    assert (told.verdicts, made.num_dropped) == ([None], 1)
    told = Told()
    rare = audits(told, label=0.0)
    rare.settle(settled("yes", Withheld("cache", proposal(), REFUSE), Withheld("cache", proposal(), AUDIT)))
    assert (told.verdicts, rare.line.qsize()) == ([None], 1)


async def test_without_the_store_this_process_learns_alone() -> None:
    class Gone(MemoryStore):
        async def append(self, log: bytes, row: bytes, expires_s: float) -> None:  # noqa: ARG002
            raise StoreError("gone")

    made = audits(Told(), store=Gone(1 << 20))
    await judged(made, settled("yes", Withheld("cache", proposal(), AUDIT)))
    assert len(made.promise.labels) == 1


async def test_a_label_that_cannot_be_read_is_left_out() -> None:
    store = MemoryStore(1 << 20)
    await store.append(LABELS, b"\xff\x00junk", 1e12)
    made = audits(Told(), store=store)
    await made.read()
    assert not made.promise.labels


LABEL = Label("cache", b"p", (1.0,), right=True, predicted=0.9, share=1.0, would_serve=False, at_s=0.0, version=1)


async def read_once(made: Audits) -> None:
    """Follow the labels until it says that they were read."""
    task = asyncio.get_running_loop().create_task(made.follow())
    async with asyncio.timeout(20):
        while not made.tried:  # noqa: ASYNC110 - a flag, as /readyz reads it
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_who_has_read_the_labels_rules_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    store, tried = MemoryStore(1 << 20), []

    def slow(past: Past) -> Fit:
        tried.append(made.tried)
        return fit(past)

    monkeypatch.setattr(room, "fit", slow)
    for _ in range(LEAST_LABELS):
        await store.append(LABELS, encode(LABEL), 1e12)
    made = audits(Told(), store=store)
    await read_once(made)
    assert tried == [False], "it says so when the first fit is made, not before"
    assert made.promise.fit.num_labels == LEAST_LABELS
    assert made.promise.fit.cut < SHUT


async def test_where_labels_cannot_be_read_nobody_waits_for_them() -> None:
    class Gone(MemoryStore):
        async def since(self, log: bytes, position: int, most: int) -> list[tuple[int, bytes]]:  # noqa: ARG002
            raise StoreError("gone")

    made = audits(Told(), store=Gone(1 << 20))
    await read_once(made)
    assert made.tried


async def test_what_breaks_ends_no_loop(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(room, "FOLLOW_S", 0.01)
    store = MemoryStore(1 << 20)
    made = audits(Told(), store=store)
    monkeypatch.setattr(made.promise, "due", lambda: 1 // len(made.promise.labels) > 1)  # breaks while there are none
    await store.append(LABELS, encode(LABEL).replace(b"cache", b"c\xff\xfehe"), 1e12)
    following = asyncio.get_running_loop().create_task(made.follow())
    await asyncio.sleep(0.1)
    await store.append(LABELS, encode(LABEL), 1e12)
    await asyncio.sleep(0.1)
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert list(made.promise.labels) == [LABEL]
    assert "a label cannot be read" in caplog.text
    assert 0 < caplog.text.count("nothing can be learned") < 20, "with its pause"


async def test_a_judge_that_breaks_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_question: str, proposed: str, fresh: str) -> Verdict:
        raise ValueError(proposed + fresh)

    made = audits(Told(), judge=broken)
    await judged(made, *[settled("yes", Withheld("cache", proposal(), AUDIT))] * 2)
    assert caplog.text.count("an audit broke") == 2


# --- what waits, and how much


async def test_what_waits_are_two_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_CHARS", 3)
    made = audits(Told())
    given = settled("yes, of course", Withheld("cache", proposal("no, never"), AUDIT))
    made.settle(given)
    waiting = made.line.get_nowait()
    assert (waiting.case.question, waiting.proposed, waiting.fresh) == ("?", "no,", "yes")
    assert waiting.withheld.proposal.answer.body == b""
    assert MOST_CHARS == 60_000


async def test_an_answer_that_is_no_text_does_not_wait() -> None:
    told = Told()
    made = audits(told)
    odd = msgspec.structs.replace(settled("yes", Withheld("cache", proposal(), AUDIT)), body=b"{}")
    made.settle(odd)
    assert (told.verdicts, made.num_unclear, made.line.qsize()) == ([None], 1, 0)


async def test_one_principal_takes_a_quarter_of_the_line() -> None:
    told = Told()
    made = audits(told, waiting=8)
    for who in (b"one", b"one", b"one", b"other"):
        made.settle(settled("yes", Withheld("cache", proposal(principal=who), AUDIT)))
    assert (told.verdicts, made.num_dropped, made.line.qsize()) == ([None], 1, 3)
    await judged(made, settled("yes", Withheld("cache", proposal(principal=b"two"), AUDIT)))
    assert not made.waiting
    made.settle(settled("yes", Withheld("cache", proposal(principal=b"one"), AUDIT)))
    assert made.line.qsize() == 1


async def test_an_hour_in_which_judging_cost_enough_has_audits_alone() -> None:
    async def dear(*_: str) -> Verdict:
        return Verdict(right=True, why="", usd=0.6)

    told, store = Told(), MemoryStore(1 << 20)
    made = audits(told, judge=dear, store=store, waiting=40)
    refused = settled("yes", Withheld("cache", proposal(), REFUSE))
    await judged(made, *[refused] * 4, settled("yes", Withheld("cache", proposal(), AUDIT)))
    assert (made.num_dropped, made.usd) == (2, pytest.approx(1.8))
    made.settle(refused)
    assert made.line.qsize() == 0
    assert told.verdicts == [True, True, None, None, True, None]
    assert len(await store.since(LABELS, 0, 10)) == 3


async def test_the_share_that_chance_was_asked_for_stands_in_the_label() -> None:
    store = MemoryStore(1 << 20)
    made = audits(Told(), store=store)
    made.promise.num_labels = NUM_LABELS + 1
    made.pace.recent = 10 * pace.MEMORY_S  # ten a second: one in twenty is judged
    made.chance = Random(3)
    refused = settled("yes", Withheld("cache", proposal(), REFUSE))
    await judged(made, *[refused] * 60)
    shares = [msgspec.msgpack.decode(row, type=Label).share for _, row in await store.since(LABELS, 0, 99)]
    assert 0 < len(shares) < 15
    assert all(0.04 < share <= 0.05 for share in shares)


def test_each_kind_of_evidence_has_its_own_experience() -> None:
    assert family("cache", proposal()) == "cache"
    assert family("cache", proposal(kind="slot_fill")) == "cache:slot_fill"


def test_requests_count_and_refreshes_do_not() -> None:
    made = audits(Told())
    for _ in range(3):
        made.count(settled("yes"))
    made.settle(settled("yes"))
    assert made.promise.num_requests == 3


def test_who_shares_an_uncertain_answer_was_served_one() -> None:
    made = audits(Told())
    for reason in (FOLLOWED, "collapsed", f"{FOLLOWED}, p = 0.950"):  # that one was counted when it was weighed
        made.count(settled("yes", reason=reason))
    assert (made.promise.num_requests, made.promise.num_served) == (3, 1)
