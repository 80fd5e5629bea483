"""The whole idea: ask each step, cheapest first; the first proposal that the promise allows is the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter

from stepwell.errors import StepwellError
from stepwell.protocols import Step
from stepwell.types import Answer, Defer, Evidence, Outcome, Proposal, Request, Verdict, Visit

log = logging.getLogger(__name__)

Allows = Callable[[Evidence], bool]


async def descend(request: Request, steps: Sequence[Step], allows: Allows) -> Outcome:
    """Go down the steps until one answers. The last one needs no leave, and its error is the caller's."""
    visits: list[Visit] = []
    last = steps[-1]
    for step in steps:
        began_s = perf_counter()
        tried = await propose(step, request)
        verdict, reason = judged(tried, step is last, allows)
        cost_usd = tried.usd if isinstance(tried, Defer) else 0.0
        visits.append(Visit(step.name, verdict, reason, perf_counter() - began_s, cost_usd))
        if verdict == "answered":
            return Outcome(answer_of(tried), tuple(visits))
        if isinstance(tried, Defer) and (step is last or tried.final):
            return Outcome(None, tuple(visits), tried.error or StepwellError(tried.reason))
    return Outcome(None, tuple(visits), StepwellError("no step could answer"))


async def propose(step: Step, request: Request) -> Proposal | Defer:
    """Ask one step. A step that breaks must not take the request with it: it becomes a Defer with its error."""
    try:
        return await step.propose(request)
    except StepwellError as error:
        return Defer(str(error), error=error)
    except Exception as error:  # a defect in a shallow step: say so loudly, and let the next one answer
        log.exception("step %s broke on request %s", step.name, request.id)
        return Defer(f"{type(error).__name__}: {error}", error=StepwellError("an internal error; the log has it"))


def judged(tried: Proposal | Defer, last: bool, allows: Allows) -> tuple[Verdict, str]:  # noqa: FBT001 - its place
    """Put one try into the words of a Visit: its verdict and the reason."""
    if isinstance(tried, Defer):
        return ("failed" if tried.error else "deferred"), tried.reason
    if last or allows(tried.evidence):
        return "answered", tried.evidence.detail
    return "refused", f"the promise does not allow {tried.evidence.kind} evidence"


def answer_of(tried: Proposal | Defer) -> Answer | None:
    """Take the answer out of a Proposal."""
    return tried.answer if isinstance(tried, Proposal) else None
