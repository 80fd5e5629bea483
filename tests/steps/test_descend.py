"""The descent: who answers, who is passed, and what the visits say."""

from __future__ import annotations

from stepwell.errors import EngineUnavailable, StepwellError
from stepwell.protocols import Step
from stepwell.quality.promise import rule
from stepwell.steps.descend import descend
from stepwell.types import Answer, Caller, Defer, Evidence, Outcome, Proposal, Request

REQUEST = Request(id="1", kind="chat", caller=Caller("t", "p"), model="m", body=b"{}", canonical=b"{}")
EXACT = Proposal(Answer(form="json", body=b"exact"), Evidence("exact", "hit"))
GUESS = Proposal(Answer(form="json", body=b"guess"), Evidence("large", "up"))


class Says:
    """A step that says what it was made to say."""

    def __init__(self, name: str, says: Proposal | Defer | Exception) -> None:
        self.name, self.says, self.asked = name, says, 0

    async def propose(self, request: Request) -> Proposal | Defer:
        self.asked += 1
        assert request is REQUEST
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


async def down(*steps: Says) -> Outcome:
    stairs: tuple[Step, ...] = steps
    return await descend(REQUEST, stairs, rule)


def visits(outcome: Outcome) -> list[tuple[str, str]]:
    return [(visit.step, visit.verdict) for visit in outcome.visits]


async def test_the_first_that_may_answers_and_nobody_below_is_asked() -> None:
    below = Says("large", GUESS)
    outcome = await down(Says("cache", EXACT), below)
    assert outcome.answer is EXACT.answer
    assert visits(outcome) == [("cache", "answered")]
    assert below.asked == 0


async def test_who_defers_is_passed_and_its_reason_and_cost_are_kept() -> None:
    outcome = await down(Says("cache", Defer("miss", usd=0.5)), Says("large", GUESS))
    assert outcome.answer is GUESS.answer
    assert visits(outcome) == [("cache", "deferred"), ("large", "answered")]
    assert (outcome.visits[0].reason, outcome.visits[0].usd) == ("miss", 0.5)
    assert all(visit.seconds >= 0 for visit in outcome.visits)


async def test_only_exact_evidence_passes_above_the_last_step() -> None:
    outcome = await down(Says("specialist", GUESS), Says("large", GUESS))
    assert visits(outcome) == [("specialist", "refused"), ("large", "answered")]
    assert "does not allow" in outcome.visits[0].reason


async def test_a_step_that_breaks_is_a_failed_visit_and_the_next_one_answers() -> None:
    outcome = await down(Says("cache", ZeroDivisionError("oh")), Says("large", GUESS))
    assert outcome.answer is GUESS.answer
    assert visits(outcome) == [("cache", "failed"), ("large", "answered")]
    assert "ZeroDivisionError" in outcome.visits[0].reason


async def test_the_last_steps_error_is_the_callers() -> None:
    error = EngineUnavailable("dead", engine="up")
    outcome = await down(Says("cache", Defer("miss")), Says("large", error))
    assert (outcome.answer, outcome.error) == (None, error)
    assert visits(outcome) == [("cache", "deferred"), ("large", "failed")]


async def test_a_defect_in_the_last_step_shows_the_caller_nothing_of_it() -> None:
    outcome = await down(Says("large", ZeroDivisionError("secret")))
    assert isinstance(outcome.error, StepwellError)
    assert "secret" not in str(outcome.error)


async def test_a_final_defer_ends_the_descent() -> None:
    error, below = EngineUnavailable("dead"), Says("large", GUESS)
    outcome = await down(Says("cache", Defer("the same failed", error=error, final=True)), below)
    assert (outcome.error, below.asked) == (error, 0)


def test_the_promise_is_exact_answers_only() -> None:
    assert rule("cache", EXACT).verdict == "serve"
    assert rule("cache", GUESS).verdict == "refuse"
