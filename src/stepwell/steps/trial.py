"""A specialist on trial, as long as it serves: audits of what it says, and what follows from them.

The promise lets a gated specialist answer, and has the large model answer as well now and then: then its answer goes to
the caller, and both are compared afterwards. In the shadow the student answers beside, when the large model has
answered, and nobody waits for it. Every comparison goes into the promotion's test, which rolls back by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from random import Random

from msgspec import Struct

from stepwell.engines.texts import answered_text
from stepwell.errors import StepwellError
from stepwell.quality.judge import Judge
from stepwell.quality.verify import Verify
from stepwell.steps.specialist import Asked, Specialist, Text, question
from stepwell.steps.stand import LOOK_S
from stepwell.types import Proposal, Request, Ruling, Settled

log = logging.getLogger(__name__)

OK = 200
LARGE = "large"
CANARY_AUDIT = 0.25
"""Share of a canary's answers that are audited, at least: it is there to be looked at."""

Compare = Callable[[str, str, str], Awaitable["tuple[bool, bool] | None"]]
"""Prompt, student's and large model's answer: whether each is right; None where nobody can say."""


class Waiting(Struct, frozen=True, gc=False):
    """What is to be compared; without the student's answer it is yet to be made."""

    request: Request
    asked: Asked
    student: str | None
    large: str
    about: str
    """What stood there when it was asked: see `Standing.about`."""


class Trial:
    """The trial of one specialist, in one process."""

    def __init__(
        self,
        specialist: Specialist,
        compare: Compare,
        *,
        audit: float,
        max_waiting: int,
        chance: Random,
        forget: Callable[[], Awaitable[None]],
    ) -> None:
        """`audit`: share of its answers that are audited; `forget`: lets go of its answers that were kept."""
        self.specialist, self.compare, self.audit, self.chance, self.forget = specialist, compare, audit, chance, forget
        self.stand = specialist.stand
        self.line: asyncio.Queue[Waiting] = asyncio.Queue(max_waiting)
        self.num_dropped = self.num_unclear = self.num_deferred = 0
        self.usd = 0.0
        """What answers in the shadow cost."""
        self.forgotten = ""
        """The verdict whose answers were let go."""

    # --- on the path of requests

    def rule(self, proposal: Proposal) -> Ruling:
        """Serve, or have the large model answer as well."""
        stage, why = self.stand.stage()
        if stage not in {"canary", "live"}:
            return Ruling("refuse", f"{proposal.evidence.detail}: {why}", 0.0)
        share = max(self.audit, CANARY_AUDIT) if stage == "canary" else self.audit
        if self.chance.random() < share:
            return Ruling("audit", f"{proposal.evidence.detail}, {stage}: audited", share=share)
        return Ruling("serve", stage, share=share)

    def reserved(self) -> float:
        """Share of all requests that it may answer wrongly in its stage: taken from what others may."""
        stage, _ = self.stand.stage()
        return self.stand.now.margin * {"canary": self.specialist.section.canary, "live": 1.0}.get(stage, 0.0)

    def settle(self, settled: Settled) -> None:
        """What was audited, and some of what a shadow may try, waits to be compared."""
        last = settled.outcome.visits[-1] if settled.outcome.visits else None
        if last is None or last.step != LARGE or not settled.complete or settled.status != OK:
            return
        audited = [each.proposal for each in settled.outcome.withheld if self.is_mine(each.proposal)]
        if not audited and not self.shadows(settled.request):
            return
        asked = question(settled.request, self.specialist.section.max_tokens)
        large = answered_text(settled.body, settled.form, settled.request.kind)
        if isinstance(asked, str) or large is None or self.stand.outside(asked.prompt):
            return
        answer = audited[0].answer if audited else None
        student = None if answer is None else answered_text(answer.body, answer.form, settled.request.kind)
        self.wait(Waiting(settled.request, asked, student, large, self.stand.now.about))

    def is_mine(self, proposal: Proposal) -> bool:
        """Whether this specialist proposed it."""
        case = proposal.evidence.case
        mine = self.specialist.title.encode()
        return proposal.evidence.kind == "specialist" and case is not None and case.partition == mine

    def shadows(self, request: Request) -> bool:
        """Whether the student answers a request beside."""
        section = self.specialist.section
        if request.model not in section.routes or self.stand.stage()[0] != "shadow":
            return False
        return self.chance.random() < section.shadow

    def wait(self, waiting: Waiting) -> None:
        """Take a place in line, if there is one."""
        try:
            self.line.put_nowait(waiting)
        except asyncio.QueueFull:
            self.num_dropped += 1

    # --- beside it

    async def run(self) -> None:
        """Compare what is in line, until cancelled."""
        while True:
            waiting = await self.line.get()
            try:
                await self.compared(waiting)
            except StepwellError as error:
                log.warning("an audit of the specialist %s failed: %s", self.specialist.title, error)
            except Exception:
                log.exception("an audit of the specialist %s broke", self.specialist.title)
            self.line.task_done()

    async def compared(self, waiting: Waiting) -> None:
        """Compare two answers and write down who was right. Raises StoreError."""
        student = waiting.student if waiting.student is not None else await self.beside(waiting)
        told = None if student is None else await self.compare(waiting.asked.prompt, student, waiting.large)
        if told is None:
            self.num_unclear += student is not None
            return
        right, large_right = told
        record = self.stand.promotion.record
        await asyncio.to_thread(record, waiting.about, student=right, teacher=large_right)

    async def beside(self, waiting: Waiting) -> str | None:
        """What the student says in the shadow; None where nothing of it passes."""
        said = await self.specialist.answered(waiting.asked, waiting.request)
        self.usd += said.usd
        if isinstance(said, Text):
            return said.text
        self.num_deferred += 1
        return None

    async def watch(self) -> None:
        """Let go of kept answers once their specialist is rolled back, until cancelled."""
        while True:
            try:
                await self.look()
            except StepwellError as error:
                log.warning("answers of the specialist %s are not yet let go: %s", self.specialist.title, error)
            except Exception:
                log.exception("answers of the specialist %s cannot be let go", self.specialist.title)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Let go of kept answers, once a roll-back. Raises StoreError."""
        stage, _ = self.stand.stage()
        if stage == "rolled back" and self.forgotten != self.stand.now.verdict:
            await self.forget()
            self.forgotten = self.stand.now.verdict


def by_verifier(verify: Verify) -> Compare:
    """Each answer by itself."""

    async def compare(prompt: str, student: str, large: str) -> tuple[bool, bool]:
        complaints = [await asyncio.to_thread(verify, prompt, text) for text in (student, large)]
        return not complaints[0], not complaints[1]

    return compare


def by_judge(judge: Judge) -> Compare:
    """The student's answer against the large model's, which is taken to be right."""

    async def compare(prompt: str, student: str, large: str) -> tuple[bool, bool] | None:
        right = (await judge(prompt, student, large)).right
        return None if right is None else (right, True)

    return compare


def reserved(trials: Iterable[Trial]) -> float:
    """Share of all requests that they may answer wrongly together: each request is answered by one of them."""
    parts = [(trial.reserved(), trial.stand.now.margin) for trial in trials]
    return min(sum(share for share, _ in parts), max((margin for share, margin in parts if share), default=0.0))


def ruled(trials: Mapping[str, Trial], base: Callable[[str, Proposal], Ruling]) -> Callable[[str, Proposal], Ruling]:
    """The promise with the trials in it, by title: each rules on its own specialist's proposals."""

    def rule(step: str, proposal: Proposal) -> Ruling:
        evidence = proposal.evidence
        if evidence.kind != Specialist.name or evidence.case is None:
            return base(step, proposal)
        return trials[evidence.case.partition.decode()].rule(proposal)

    return rule
