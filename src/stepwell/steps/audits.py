"""After the reply: was what the promise withheld right? A judge compares, and a label is written for every process.

A settler at the end of every request; judging, learning and fitting wait in line beside the path of requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from random import Random
from time import time
from typing import Protocol

import msgspec

from stepwell.cache.rows import LABELS, encode
from stepwell.engines.texts import answered_text
from stepwell.errors import StepwellError, StoreError
from stepwell.protocols import Store
from stepwell.quality.cut import fit
from stepwell.quality.judge import Judge
from stepwell.quality.promise import Promise
from stepwell.types import Case, Label, Proposal, Ruling, Settled, Withheld

log = logging.getLogger(__name__)

OK = 200
KEEP_S = 30 * 86_400.0
"""Labels older than this are no news of today's traffic."""
FOLLOW_S = 0.5
ROWS_A_TURN = 1000

decode = msgspec.msgpack.Decoder(Label).decode


class Teller(Protocol):
    """A step that wants to know what became of its proposals."""

    def told(self, case: Case, *, right: bool | None) -> None:
        """What the judge said; None where it could not say."""
        ...


class Audits:
    """The promise's other half. Every process writes labels into one log, and learns from all of them."""

    def __init__(
        self,
        promise: Promise,
        judge: Judge,
        store: Store,
        tellers: Mapping[str, Teller],
        *,
        label: float,
        max_waiting: int,
        chance: Random,
    ) -> None:
        """`tellers`: by step; `label`: share of the refused proposals that are judged, too. Audits always are."""
        self.promise, self.judge, self.store, self.tellers = promise, judge, store, tellers
        self.label, self.chance = label, chance
        self.line: asyncio.Queue[tuple[Withheld, Settled]] = asyncio.Queue(max_waiting)
        self.position = 0
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

    def settle(self, settled: Settled) -> None:
        """Count the request; what was withheld from it waits for the judge."""
        self.promise.request()
        for withheld in settled.outcome.withheld:
            if not self.judged(withheld, settled):
                self.tell(withheld, right=None)

    def judged(self, withheld: Withheld, settled: Settled) -> bool:
        """Put a withheld proposal in line, if its truth can be known and is wanted."""
        answered = settled.complete and settled.status == OK and settled.outcome.visits[-1].step != withheld.step
        wanted = withheld.ruling.verdict == "audit" or self.chance.random() < self.label
        if not (answered and wanted):
            return False
        try:
            self.line.put_nowait((withheld, settled))
        except asyncio.QueueFull:
            self.num_dropped += 1
            return False
        return True

    # --- beside it

    async def run(self) -> None:
        """Judge what is in line, until cancelled."""
        while True:
            withheld, settled = await self.line.get()
            try:
                await self.compare(withheld, settled)
            except Exception:
                log.exception("an audit broke")
            self.line.task_done()

    async def compare(self, withheld: Withheld, settled: Settled) -> None:
        """Ask the judge, tell the step, and write the label down."""
        evidence, kind = withheld.proposal.evidence, settled.request.kind
        answer = withheld.proposal.answer
        proposed = answered_text(answer.body, answer.form, kind)
        fresh = answered_text(settled.body, settled.form, kind)
        right = None
        if proposed is not None and fresh is not None and evidence.case is not None:
            try:
                verdict = await self.judge(evidence.case.question, proposed, fresh)
            except StepwellError as error:
                log.warning("the judge failed: %s", error)
            else:
                right = verdict.right
                self.usd += verdict.usd
        self.tell(withheld, right=right)
        if right is None or evidence.case is None:
            self.num_unclear += 1
            return
        await self.write(self.labelled(withheld, evidence.case, right=right))

    def labelled(self, withheld: Withheld, case: Case, *, right: bool) -> Label:
        """The truth about one proposal."""
        ruling = withheld.ruling
        audited = ruling.verdict == "audit"
        return Label(
            step=family(withheld.step, withheld.proposal),
            partition=case.partition,
            features=withheld.proposal.evidence.features,
            right=right,
            predicted=ruling.right,
            share=ruling.share if audited else self.label,
            would_serve=audited,
            at_s=time(),
            version=case.version,
            key=case.principal,
            cluster=case.answer,
        )

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
        """Learn from every process's labels, and fit anew where enough has come, until cancelled."""
        while True:
            try:
                await self.read()
            except StoreError as error:
                log.debug("labels cannot be read: %s", error)
            if self.promise.due():
                self.promise.adopt(await asyncio.to_thread(fit, self.promise.past()))
            await asyncio.sleep(FOLLOW_S)

    async def read(self) -> None:
        """Take in every label behind the last one. Raises StoreError."""
        while rows := await self.store.since(LABELS, self.position, ROWS_A_TURN):
            for position, row in rows:
                self.position = position
                try:
                    self.promise.learn(decode(row))
                except msgspec.DecodeError as error:
                    log.warning("a label cannot be read (%s): left out", error)


def family(step: str, proposal: Proposal) -> str:
    """Under which name the promise learns of such proposals."""
    kind = proposal.evidence.kind
    return step if kind == "semantic" else f"{step}:{kind}"
