"""Audits: what is judged, what is learned, and what is said to whom."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

import pytest

from stepwell.cache.rows import LABELS
from stepwell.errors import EngineUnavailable, StoreError
from stepwell.quality.judge import Verdict, exact
from stepwell.quality.promise import Promise, Terms
from stepwell.steps.audits import Audits, family
from stepwell.store.memory_store import MemoryStore
from stepwell.types import (
    Answer,
    Caller,
    Case,
    Evidence,
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


def proposal(text: str = "yes", kind: Any = "semantic") -> Proposal:
    case = Case(question="?", partition=b"p", version=1, exact=b"x", answer=b"a", principal=b"who")
    return Proposal(Answer(form="json", body=body(text)), Evidence(kind, "", (1.0, 0.5), case))


def settled(text: str, *withheld: Withheld, complete: bool = True, step: str = "large") -> Settled:
    visits = (Visit("cache", "refused", "", 0.0), Visit(step, "answered", "", 0.0))
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


def audits(told: Told, *, judge: Any = exact, store: Any = None, label: float = 1.0, waiting: int = 9) -> Audits:
    promise = Promise(Terms(0.1), Random(1))
    return Audits(
        promise,
        judge,
        store or MemoryStore(1 << 20),
        {"cache": told},
        label=label,
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
    ],
    ids=["cut off", "answered by the same step"],
)
async def test_where_nothing_can_be_compared_the_step_is_told_so(request_: Settled) -> None:
    told = Told()
    made = audits(told)
    await judged(made, request_)
    assert told.verdicts == [None]
    assert not made.promise.labels


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


def test_each_kind_of_evidence_has_its_own_experience() -> None:
    assert family("cache", proposal()) == "cache"
    assert family("cache", proposal(kind="slot_fill")) == "cache:slot_fill"


def test_every_request_counts() -> None:
    made = audits(Told())
    for _ in range(3):
        made.settle(settled("yes"))
    assert made.promise.num_requests == 3
