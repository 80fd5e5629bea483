"""After the reply: was what the promise withheld right? A judge compares, and a label is written for every process.

A settler at the end of every request; judging, learning and fitting wait in line beside the path of requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from random import Random
from time import time
from typing import Protocol

import msgspec
from msgspec import Struct

from stepwell.cache.rows import LABELS, encode
from stepwell.engines.texts import answered_text
from stepwell.errors import StepwellError, StoreError
from stepwell.protocols import Store
from stepwell.quality.cut import fit
from stepwell.quality.judge import Judge
from stepwell.quality.promise import Promise
from stepwell.steps.pace import Pace
from stepwell.types import Answer, Case, Label, Proposal, Ruling, Settled, Withheld

log = logging.getLogger(__name__)

OK = 200
LARGE = "large"
"""Only its answer says what is right."""
KEEP_S = 3 * 86_400.0
"""Labels older than this are no news of today's traffic."""
MOST_CHARS = 60_000
"""Of a text that waits for the judge."""
FOLLOWED = "hit: semantic, collapsed"
"""How the cache names an uncertain answer that was weighed for another request; p stands behind one of its own."""
FOLLOW_S = 0.5
ROWS_A_TURN = 1000

decode = msgspec.msgpack.Decoder(Label).decode


class Teller(Protocol):
    """A step that wants to know what became of its proposals."""

    def told(self, case: Case, *, right: bool | None) -> None:
        """What the judge said; None where it could not say."""
        ...


class Waiting(Struct, frozen=True, gc=False):
    """What the judge needs of one withheld proposal: two texts instead of the answers they stood in."""

    withheld: Withheld
    """Without its answer."""
    case: Case
    proposed: str
    fresh: str
    share: float
    """The probability with which its truth becomes known."""


class Audits:
    """The promise's other half. Every process writes labels into one log, and learns from all of them."""

    def __init__(
        self,
        promise: Promise,
        judge: Judge,
        store: Store,
        tellers: Mapping[str, Teller],
        *,
        pace: Pace,
        max_waiting: int,
        chance: Random,
    ) -> None:
        """`tellers`: by step; `pace`: how many of the refused proposals are judged, too. Audits always are."""
        self.promise, self.judge, self.store, self.tellers = promise, judge, store, tellers
        self.pace, self.chance = pace, chance
        self.line: asyncio.Queue[Waiting] = asyncio.Queue(max_waiting)
        self.most_each = max(1, max_waiting // 4)
        """Places in the line that one principal may take."""
        self.waiting: Counter[bytes] = Counter()
        """Places taken, by principal."""
        self.position = 0
        self.tried = False
        """Whether labels were once read and learned from; where the store is gone, nobody waits for them."""
        self.usd, self.num_dropped, self.num_unclear = 0.0, 0, 0

    # --- on the path of requests

    def rule(self, step: str, proposal: Proposal) -> Ruling:
        """What the promise says; each kind of uncertain evidence is weighed by its own experience.

        What comes without features is not meant to be served: only the judge shall see it.
        """
        evidence = proposal.evidence
        if evidence.case is not None and not evidence.features:
            return Ruling("refuse", evidence.detail, 0.0)
        return self.promise.rule(family(step, proposal), proposal)

    def count(self, settled: Settled) -> None:
        """Count a request of a caller, and an uncertain answer that it shared with another one."""
        self.promise.request()
        visits = settled.outcome.visits
        self.promise.num_served += bool(visits) and visits[-1].reason == FOLLOWED

    def settle(self, settled: Settled) -> None:
        """What was withheld from a request waits for the judge; specialists have a trial of their own."""
        for withheld in settled.outcome.withheld:
            if withheld.step in self.tellers and not self.judged(withheld, settled):
                self.tell(withheld, right=None)

    def judged(self, withheld: Withheld, settled: Settled) -> bool:
        """Put a withheld proposal in line, if its truth can be known and is wanted."""
        answered = settled.complete and settled.status == OK and settled.outcome.visits[-1].step == LARGE
        share = self.share(withheld) if answered else 0.0
        if not share:
            return False
        waiting = comparable(withheld, settled, share)
        if waiting is None:
            self.num_unclear += 1
            return False
        return self.lined_up(waiting)

    def share(self, withheld: Withheld) -> float:
        """The probability with which this proposal's truth is sought; 0 where chance or the pace says no."""
        if withheld.ruling.verdict == "audit":
            return withheld.ruling.share
        share = self.pace.share(self.promise.num_labels)
        return share if self.chance.random() < share else 0.0

    def lined_up(self, waiting: Waiting) -> bool:
        """Give a proposal its place in line; none where the line is full, of all or of one principal."""
        who = waiting.case.principal
        if self.line.full() or self.waiting[who] >= self.most_each:
            self.num_dropped += 1
            return False
        self.waiting[who] += 1
        self.line.put_nowait(waiting)
        return True

    # --- beside it

    async def run(self) -> None:
        """Judge what is in line, until cancelled."""
        while True:
            waiting = await self.line.get()
            self.waiting -= Counter((waiting.case.principal,))
            try:
                await self.compare(waiting)
            except Exception:
                log.exception("an audit broke")
            self.line.task_done()

    async def compare(self, waiting: Waiting) -> None:
        """Ask the judge, tell the step, and write the label down."""
        if waiting.withheld.ruling.verdict != "audit" and self.pace.spent():
            self.num_dropped += 1
            self.tell(waiting.withheld, right=None)
            return
        right = await self.verdict(waiting)
        self.tell(waiting.withheld, right=right)
        if right is None:
            self.num_unclear += 1
        else:
            await self.write(labelled(waiting, right=right))

    async def verdict(self, waiting: Waiting) -> bool | None:
        """What the judge says, and what that costs; None where it cannot say."""
        try:
            verdict = await self.judge(waiting.case.question, waiting.proposed, waiting.fresh)
        except StepwellError as error:
            log.warning("the judge failed: %s", error)
            return None
        self.usd += verdict.usd
        self.pace.pay(verdict.usd)
        return verdict.right

    async def write(self, label: Label) -> None:
        """Write a label down for all processes; where the store is gone, at least this one learns."""
        try:
            await self.store.append(LABELS, encode(label), label.at_s + KEEP_S)
        except StoreError:
            self.promise.learn(label)

    def tell(self, withheld: Withheld, *, right: bool | None) -> None:
        """Tell the step whose proposal it was."""
        teller, case = self.tellers.get(withheld.step), withheld.proposal.evidence.case
        if teller is not None and case is not None:
            teller.told(case, right=right)

    async def follow(self) -> None:
        """Learn, until cancelled."""
        while True:
            try:
                await self.learn()
            except Exception:
                log.exception("nothing can be learned from labels")
            self.tried = True
            await asyncio.sleep(FOLLOW_S)

    async def learn(self) -> None:
        """Take in every process's labels, and fit anew where enough has come."""
        try:
            await self.read()
        except StoreError as error:
            log.debug("labels cannot be read: %s", error)
        if self.promise.due():
            self.promise.adopt(await asyncio.to_thread(fit, self.promise.past()))

    async def read(self) -> None:
        """Take in every label behind the last one. Raises StoreError."""
        while rows := await self.store.since(LABELS, self.position, ROWS_A_TURN):
            for position, row in rows:
                self.position = position
                try:
                    self.promise.learn(decode(row))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    log.warning("a label cannot be read (%s): left out", error)


def family(step: str, proposal: Proposal) -> str:
    """Under which name the promise learns of such proposals."""
    evidence = proposal.evidence
    name = step if evidence.kind == "semantic" else f"{step}:{evidence.kind}"
    return name if evidence.case is None or evidence.case.learned else f"{name}:unlearned"


def comparable(withheld: Withheld, settled: Settled, share: float) -> Waiting | None:
    """What waits for the judge; None where one of the answers is not one text."""
    proposal, kind = withheld.proposal, settled.request.kind
    answer, case = proposal.answer, proposal.evidence.case
    proposed = answered_text(answer.body, answer.form, kind)
    fresh = answered_text(settled.body, settled.form, kind)
    if proposed is None or fresh is None or case is None:
        return None
    bare = Withheld(withheld.step, Proposal(Answer(form=answer.form), proposal.evidence), withheld.ruling)
    return Waiting(bare, case, proposed[:MOST_CHARS], fresh[:MOST_CHARS], share)


def labelled(waiting: Waiting, *, right: bool) -> Label:
    """The truth about one proposal."""
    withheld, case = waiting.withheld, waiting.case
    return Label(
        step=family(withheld.step, withheld.proposal),
        partition=case.partition,
        features=withheld.proposal.evidence.features,
        right=right,
        predicted=withheld.ruling.right,
        share=waiting.share,
        would_serve=withheld.ruling.verdict == "audit",
        at_s=time(),
        version=case.version,
        key=case.principal,
        cluster=case.answer,
    )
