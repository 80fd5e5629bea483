"""Answers to the same question in other words: embed it, look for its neighbours, propose what they speak for.

Nothing in here decides whether the proposal is good enough: see `quality/promise.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, Literal

import msgspec

from stepwell.cache import beside
from stepwell.cache.asking import Asking
from stepwell.cache.beside import About
from stepwell.cache.candidate import Chosen, choose
from stepwell.cache.exact import Exact, answer_of
from stepwell.cache.features import NUM_NEIGHBOURS, VERSION, Near, Vector
from stepwell.cache.key import Identity
from stepwell.cache.rows import AnswerRow, encode
from stepwell.cache.slots import blank, refill
from stepwell.cache.spaces import Spaces
from stepwell.cache.wordings import Wordings
from stepwell.engines.replay import in_form
from stepwell.engines.texts import answered_text, with_text
from stepwell.errors import EngineError, StoreError
from stepwell.facts.facts import Facts, facts
from stepwell.index.feed import Feed
from stepwell.index.flat import Numbers
from stepwell.index.keys import Key
from stepwell.index.rows import KEYS, KeyAdded, tag_of
from stepwell.protocols import Embedder
from stepwell.types import Answer, Case, Defer, Evidence, Form, Proposal, Request, Settled

log = logging.getLogger(__name__)


MOST_FACTS = 2_000
"""Kept wordings whose facts stay at hand."""
LEAST_COSINE = 0.3
"""Below this nothing is near, whatever is believed: right neighbours lie above it in 99 of 100 cases and more."""
MOST_RENEWED = 1000
"""Wordings of one answer that are taken along when it is made anew."""
FLIGHT_COSINE = 0.8
"""Below this a question in flight is not looked at."""
FOLLOW_S = 0.25
"""How often the log of keys is read."""
SWEEP_EVERY = 240
"""Turns of that between two searches for what has expired."""


class Semantic:
    """One process's view of all wordings; `steps/cache.py` asks it after an exact miss."""

    def __init__(
        self,
        embedder: Embedder,
        exact: Exact,
        feed: Feed,
        *,
        deadline_s: float,
        patience_s: float = 0.0,
        likely: Callable[[tuple[float, ...]], bool] = bool,
    ) -> None:
        """`patience_s`: how long nearly the same question in flight is waited for, where `likely` it would do."""
        self.embedder, self.exact, self.feed = embedder, exact, feed
        self.deadline_s, self.patience_s, self.likely = deadline_s, patience_s, likely
        self.spaces = Spaces()
        self.wordings = Wordings(tag_of(embedder.name))
        self.facts_of = lru_cache(MOST_FACTS)(facts)
        self.offered: dict[str, bytes] = {}
        """Exact digest by id of each request that was offered an answer and is not over."""
        self.caught_up = False
        """Whether the log of keys was once read to its end."""
        self.tried = False
        """Whether that was tried: where the store is gone, what needs none is served all the same."""
        self.num_late = 0
        """Questions that were not embedded in time."""

    async def propose(self, asking: Asking) -> Proposal | Defer:
        """What the nearest wordings' answers speak for; a question that is not embedded in time is a miss."""
        identity = asking.identity
        if not self.embedder.reads(identity.text):
            return Defer("meaning: the question is longer than the embedder reads")
        vector = await self.vector(identity.text)
        if vector is None:
            return Defer("meaning: the embedder did not answer in time")
        near, numbers = self.near(vector, identity)
        along = await self.along(asking, vector, near)
        if along is not None:
            return along
        found = None if near is None else self.among(near, numbers, vector, identity)
        told = await self.proposal(asking, *found) if found else "meaning: nothing near is known"
        if isinstance(told, str):
            self.wordings.asked(identity, vector, b"")
            return Defer(told)
        same = found is not None and told.evidence.kind == "semantic"  # with other values put in, it is another answer
        self.wordings.asked(identity, vector, found[1].answer if found and same else b"")
        self.offered[asking.request.id] = identity.exact
        return told

    async def along(self, asking: Asking, vector: Vector, near: Near | None) -> Proposal | None:
        """The answer to nearly the same question that is being asked right now, if it comes in time."""
        identity, flights = asking.identity, asking.flights
        mine = flights.flying.get(identity.exact)
        if mine is not None:
            mine.about = About(vector, identity.text)
        nearest = FLIGHT_COSINE if near is None else max(FLIGHT_COSINE, float(near.cosines[0]))
        flight = beside.nearest(flights, identity, vector, nearest) if self.patience_s else None
        if flight is None or not asking.joins(flight):
            return None
        metric, num_keys = self.spaces.get(identity.partition), self.feed.index.num_keys(identity.partition)
        features = beside.features(flight, vector, self.facts_of(identity.text), near, metric, num_keys=num_keys)
        answer = await flight.within(self.patience_s) if features and self.likely(features) else None
        if answer is None or not asking.joins(flight):
            return None
        self.wordings.asked(identity, vector, b"")
        self.offered[asking.request.id] = identity.exact
        return self.offer(asking, answer, Evidence("semantic", "hit: semantic, collapsed", features))

    async def vector(self, text: str) -> Vector | None:
        """The question's vector: made once a request, in a task of its own, for requests run outside of any."""
        try:
            vectors: Vector = await self.task(asyncio.wait_for(self.embedder.embed([text]), self.deadline_s))
        except TimeoutError:
            self.num_late += 1
        except EngineError as error:
            self.num_late += 1
            log.warning("a question could not be embedded: %s", error)
        else:
            return vectors[0]  # type: ignore[no-any-return]
        return None

    def near(self, vector: Vector, identity: Identity) -> tuple[Near | None, Numbers]:
        """The neighbours, and the numbers of their keys."""
        index, partition = self.feed.index, identity.partition
        numbers, cosines, vectors = index.near(partition, vector, NUM_NEIGHBOURS)
        if not len(numbers):
            return None, numbers
        answers = index.answers_of(numbers)
        return Near(cosines=cosines, vectors=vectors, answers=answers, allowed=[True] * len(numbers)), numbers

    def chosen(self, vector: Vector, identity: Identity) -> tuple[Chosen, Key] | None:
        """The candidate for a question, and its key."""
        near, numbers = self.near(vector, identity)
        return None if near is None else self.among(near, numbers, vector, identity)

    def among(self, near: Near, numbers: Numbers, vector: Vector, identity: Identity) -> tuple[Chosen, Key] | None:
        """The candidate among the neighbours, and its key."""
        index, partition = self.feed.index, identity.partition
        asked, metric, num_keys = self.facts_of(identity.text), self.spaces.get(partition), index.num_keys(partition)
        chosen = choose(vector, asked, near, lambda row: self.kept_facts(numbers[row]), metric, num_keys=num_keys)
        if chosen is None or near.cosines[chosen.row] < LEAST_COSINE:
            return None
        key = index.get(int(numbers[chosen.row]))
        return None if key is None else (chosen, key)

    def kept_facts(self, number: int) -> Facts:
        """What a kept wording says."""
        return self.facts_of(self.feed.index.text_of(int(number)))

    async def proposal(self, asking: Asking, chosen: Chosen, key: Key) -> Proposal | str:
        """The candidate's answer with its evidence; or why it is none."""
        request, identity = asking.request, asking.identity
        try:
            row, _ = await self.exact.named(key.answer, identity.partition)
        except StoreError:
            return "meaning: store-unavailable"
        if row is None:
            self.feed.index.forget(key.answer)
            return "meaning: what is near has no answer any more"
        if not asking.takes(row):
            return "meaning: what is near is not what the caller takes"
        refilled = filled(row, key.text, identity.text, request) if chosen.slots else None
        body, form = (row.body, row.form) if refilled is None else (refilled, "json")
        answer = msgspec.structs.replace(answer_of(row), form=form, body=body)
        if chosen.vetoes and refilled is None:  # only for the judge: the wording may still be one more of this answer
            return self.offer(asking, answer, Evidence("semantic", objection(chosen)), key.answer)
        kind: Literal["semantic", "slot_fill"] = "semantic" if refilled is None else "slot_fill"
        return self.offer(asking, answer, Evidence(kind, f"hit: {kind}", chosen.features), key.answer)

    def offer(self, asking: Asking, answer: Answer, evidence: Evidence, name: bytes = b"") -> Proposal:
        """An answer in the form that is asked for, with what an audit needs to know."""
        request, identity = asking.request, asking.identity
        wants: Form = "events" if request.stream else "json"
        body = in_form(answer.body, answer.form, wants, request.kind, include_usage=request.include_usage)
        case = Case(
            question=identity.text,
            partition=identity.partition,
            version=VERSION,
            exact=identity.exact,
            answer=name,
            principal=identity.principal,
            learned=self.spaces.get(identity.partition) is not None,
        )
        given = msgspec.structs.replace(answer, form=wants, body=body, chunks=None)
        return Proposal(given, msgspec.structs.replace(evidence, case=case))

    # --- afterwards

    def kept(self, identity: Identity, answer: bytes, expires_s: float, replaces: bytes) -> None:
        """A question was answered from below, and its answer kept; wordings of the older one lead to it from now on."""
        self.wordings.renamed(identity.exact, replaces, answer)
        self.add(self.wordings.answered(identity.exact, answer, expires_s))
        if not replaces or replaces == answer:
            return
        changed = {"answer": answer, "expires_s": expires_s, "embedder": self.wordings.embedder}
        for row in self.feed.index.rows_of(identity.partition, replaces)[:MOST_RENEWED]:
            self.add(msgspec.structs.replace(row, **changed))
        self.feed.index.forget(replaces)

    def told(self, case: Case, *, right: bool | None) -> None:
        """What the judge said of a proposal that was withheld; None where it could not say."""
        self.add(self.wordings.judged(case.exact, right=bool(right)))

    def settle(self, settled: Settled) -> None:
        """A proposal that was served, or a question that failed, adds no wording."""
        exact = self.offered.pop(settled.request.id, None)
        if exact is not None and not settled.outcome.withheld:
            self.wordings.forget(exact)

    def add(self, row: KeyAdded | None) -> None:
        """Write a wording into the log, from which every process reads it."""
        if row is not None:
            self.exact.soon(self.feed.store.append(KEYS, encode(row), row.expires_s))

    async def run(self) -> None:
        """Follow the log, until cancelled: first all of it, then what comes."""
        turn = 0
        while True:
            try:
                await self.catch_up()
                if turn % SWEEP_EVERY == SWEEP_EVERY - 1:
                    self.feed.sweep()
                    await self.feed.save()
            except StoreError as error:
                log.debug("the log of keys cannot be read: %s", error)
            except Exception:
                log.exception("the log of keys cannot be followed")
            self.tried = True
            turn += 1
            await asyncio.sleep(FOLLOW_S)

    async def catch_up(self) -> None:
        """Read the log to its end, and learn from it. Raises StoreError."""
        await self.feed.follow()
        await self.spaces.refresh(self.feed.index)
        self.caught_up = True

    async def close(self) -> None:
        """Keep the index for the next start."""
        if self.caught_up:
            await self.feed.save()

    async def task(self, work: Coroutine[Any, Any, Vector]) -> Vector:
        """Do something in a task of its own."""
        return await asyncio.get_running_loop().create_task(work)


def filled(row: AnswerRow, kept: str, asked: str, request: Request) -> bytes | None:
    """The kept answer, in JSON, with the values of the question that is asked; None where they cannot be put in."""
    text = answered_text(row.body, row.form, request.kind)
    slotted = None if text is None else blank(kept, text)
    refilled = None if slotted is None else refill(slotted, asked)
    return None if refilled is None else with_text(row.body, row.form, request.kind, refilled)


def objection(chosen: Chosen) -> str:
    """Why the guard holds a candidate back; `stepwell templates coverage` counts what lacks only blanks."""
    if chosen.slots:
        return f"meaning: no blanks for {'+'.join(sorted(set(chosen.slots)))}"
    return f"meaning: differs in {' '.join(chosen.vetoes)}"
