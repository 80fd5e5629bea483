"""The whole idea: ask each step, cheapest first; the first proposal that the promise allows is the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter

from stepwell.errors import StepwellError
from stepwell.protocols import Step
from stepwell.types import Defer, Outcome, Proposal, Request, Ruling, Verdict, Visit, Withheld

log = logging.getLogger(__name__)

LAST = Ruling("serve")
Rule = Callable[[str, Proposal], Ruling]
"""The promise: what it says of a step's proposal. The name of the step, then the proposal."""


async def descend(request: Request, steps: Sequence[Step], rule: Rule) -> Outcome:
    """Go down the steps until one answers. The last one needs no leave, and its error is the caller's."""
    visits: list[Visit] = []
    withheld: tuple[Withheld, ...] = ()
    last, place = steps[-1], 0
    while place < len(steps):
        step = steps[place]
        place += 1
        began_s = perf_counter()
        try:
            tried = await step.propose(request)
        except Exception as error:  # noqa: BLE001 - a step that breaks must not take the request with it
            tried = broken(step, request, error)
        seconds = perf_counter() - began_s
        if isinstance(tried, Proposal):
            ruling = rule(step.name, tried) if step is not last else LAST
            if ruling.verdict == "serve":
                why = f"{tried.evidence.detail}, {ruling.reason}" if ruling.reason else tried.evidence.detail
                visits.append(Visit(step.name, "answered", why, seconds, tried.usd))
                return Outcome(tried.answer, tuple(visits), withheld=withheld)
            verdict: Verdict = "audited" if ruling.verdict == "audit" else "refused"
            visits.append(Visit(step.name, verdict, ruling.reason, seconds, tried.usd))
            withheld = (*withheld, Withheld(step.name, tried, ruling))
            if verdict == "audited":
                place = len(steps) - 1  # the large model shall answer, and nobody in between
        else:
            visits.append(Visit(step.name, "failed" if tried.error else "deferred", tried.reason, seconds, tried.usd))
            if step is last or tried.final:
                return Outcome(None, tuple(visits), tried.error or StepwellError(tried.reason), withheld)
        if tried.onward is not None:
            below = await tried.onward(partial(descend, request, steps[place:], rule))
            return Outcome(below.answer, (*visits, *below.visits), below.error, (*withheld, *below.withheld))
    return Outcome(None, tuple(visits), StepwellError("no step could answer"), withheld)


def broken(step: Step, request: Request, error: Exception) -> Defer:
    """What a step failed with; a defect of ours is logged, and the next step may still answer."""
    if isinstance(error, StepwellError):
        return Defer(str(error), error=error)
    log.error("step %s broke on request %s", step.name, request.id, exc_info=error)
    return Defer(f"{type(error).__name__}: {error}", error=StepwellError("an internal error; the log has it"))
