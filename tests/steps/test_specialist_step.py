"""The specialist step and its trial, with a student that does as it is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from asked import asked, chat
from hypothesis import given
from hypothesis import strategies as some

from promoted import promoted, put, report
from stepwell.config import Specialist as Section
from stepwell.engines.texts import answered_text
from stepwell.errors import EngineRefusal, EngineUnavailable
from stepwell.quality.judge import Verdict
from stepwell.quality.promise import Promise, Terms
from stepwell.quality.promotion import Promotion
from stepwell.quality.verify import Verify, verifier
from stepwell.signing import new_key, trusted
from stepwell.steps.descend import descend
from stepwell.steps.occupied import Occupied
from stepwell.steps.specialist import MOST_PROMPT_LETTERS, Asked, Specialist, question
from stepwell.steps.stand import Stand
from stepwell.steps.trial import Trial, by_judge, by_verifier, reserved, ruled
from stepwell.types import Answer, Chunk, Defer, Evidence, Outcome, Proposal, Request, Ruling, Settled, Usage

FACTS = "name[The Eagle], food[French]"
GOOD = "The Eagle serves French food."
KEY = new_key()


@dataclass
class Student:
    """Says its texts in turn."""

    texts: list[str]
    finish: str = "stop"
    delay_s: float = 0.0
    error: Exception | None = None
    name: str = "student"
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        self.bodies.append(json.loads(request.body))
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        text = self.texts[min(len(self.bodies), len(self.texts)) - 1]
        yield Chunk(chat(text).replace(b'"stop"', json.dumps(self.finish).encode()), Usage(5, 3), last=True)

    async def close(self) -> None: ...


class LargeStep:
    """The last step."""

    name = "large"

    def __init__(self, text: str = "large") -> None:
        self.text = text

    async def propose(self, request: Request) -> Proposal:  # noqa: ARG002 - the seam's
        return Proposal(Answer(form="json", body=chat(self.text), engine="large"), Evidence("large"))


def made(
    folder: Path,
    student: Student,
    *,
    stage: str = "live",
    verify: Verify | None = None,
    seconds: float = 0.0,
    **keys: Any,
) -> Specialist:
    promotion = promoted(folder, KEY, "m", stage)  # type: ignore[arg-type]
    section = Section(
        engine="student",
        routes=["well"],
        promotion=str(folder),
        public_keys=[],
        verify="values",
        judge="exact",
        **{"shadow": 1.0, **keys},
    )
    return Specialist(
        "writer",
        section,
        student,
        Stand(promotion, trusted((), KEY), model="m", error=0.05),
        verify=verify or verifier("values"),
        price=lambda usage, _: 0.001 if usage else seconds,
        occupied=Occupied(1),
        worth=lambda *_: 0.01,
    )


def asks(content: Any = FACTS, **more: Any) -> Request:
    return asked(messages=[{"role": "user", "content": content}], **more)


async def test_the_first_answer_is_greedy_and_the_others_are_samples(tmp_path: Path) -> None:
    student = Student(["Nothing.", "The Eagle.", GOOD, "never asked"])
    told = await made(tmp_path, student, tries=5, temperature=0.8).propose(asks())
    assert isinstance(told, Proposal)
    assert answered_text(told.answer.body, "json", "chat") == GOOD
    assert [(each["temperature"], each["seed"]) for each in student.bodies] == [(0, 0), (0.8, 1), (0.8, 2)]
    assert told.usd == pytest.approx(0.003), "every try is paid for"
    assert told.answer.saved_usd == pytest.approx(0.007)
    assert told.evidence.detail == "writer, try 3 of 5"


async def test_where_all_tries_fail_the_request_goes_on_with_their_cost(tmp_path: Path) -> None:
    told = await made(tmp_path, Student(["Nothing."]), tries=3).propose(asks())
    assert isinstance(told, Defer)
    assert told.usd == pytest.approx(0.003)
    assert told.reason == "writer: 3 tries did not pass: name is missing: The Eagle; food is missing: French"


@pytest.mark.parametrize(
    ("student", "keys", "reason"),
    [
        (Student([GOOD], delay_s=1.0), {"deadline_ms": 30}, "no answer within 30 ms"),
        (Student([GOOD], error=EngineUnavailable("gone", engine="student")), {}, "engine student: gone"),
        (Student([GOOD], finish="length"), {}, "empty, refused or cut off"),
        (Student([""]), {}, "empty, refused or cut off"),
    ],
)
async def test_a_student_in_trouble_defers(tmp_path: Path, student: Student, keys: dict[str, Any], reason: str) -> None:
    specialist = made(tmp_path, student, seconds=0.5, **keys)
    told = await specialist.propose(asks())
    assert isinstance(told, Defer)
    assert reason in told.reason
    assert told.usd > 0
    assert specialist.occupied.num_running == 0


async def test_a_student_that_is_always_late_is_left_alone(tmp_path: Path) -> None:
    student = Student([GOOD], delay_s=1.0)
    specialist = made(tmp_path, student, deadline_ms=10)
    reasons = [told.reason for _ in range(8) if isinstance(told := await specialist.propose(asks()), Defer)]
    assert len(reasons) == 8
    assert ["no answer within" in each for each in reasons] == [True] * 5 + [False] * 3
    assert "left alone for 10.0 s" in reasons[-1]
    assert len(student.bodies) == 5
    specialist.breaker.clock = lambda: time.monotonic() + 11
    student.delay_s = 0
    assert isinstance(await specialist.propose(asks()), Proposal)


async def test_what_a_student_refuses_does_not_count_against_it(tmp_path: Path) -> None:
    error = EngineRefusal("too long", engine="student", status=400, body=b"{}")
    specialist = made(tmp_path, Student([GOOD], error=error))
    reasons = {told.reason for _ in range(8) if isinstance(told := await specialist.propose(asks()), Defer)}
    assert reasons == {"writer: engine student: too long"}


async def test_a_verifier_that_breaks_lets_nothing_pass(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_prompt: str, _text: str) -> list[str]:
        raise ZeroDivisionError

    told = await made(tmp_path, Student([GOOD]), verify=broken).propose(asks())
    assert isinstance(told, Defer)
    assert "the verifier broke: ZeroDivisionError()" in told.reason
    assert "the verifier of the specialist writer broke" in caplog.text


async def test_whoever_is_cancelled_stops_the_student(tmp_path: Path) -> None:
    specialist = made(tmp_path, Student([GOOD], delay_s=5.0))
    task = asyncio.ensure_future(specialist.propose(asks()))
    await asyncio.sleep(0.05)
    assert specialist.occupied.num_running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.01)
    assert specialist.occupied.num_running == 0


@pytest.mark.parametrize(
    ("more", "limit"), [({}, 256), ({"max_tokens": 7}, 7), ({"max_completion_tokens": 9, "seed": 3}, 9)]
)
def test_a_callers_limit_holds(more: dict[str, Any], limit: int) -> None:
    told = question(asks(**more), 256)
    assert not isinstance(told, str)
    assert (told.prompt, told.max_tokens) == (FACTS, limit)


@given(some.sampled_from(["tools", "n", "logprobs", "response_format", "stop", "logit_bias", "unheard_of"]))
def test_more_than_a_text_is_not_its_task(name: str) -> None:
    values: dict[str, Any] = {"n": 2, "logprobs": True, "logit_bias": {"1": 2}}
    assert question(asks(**{name: values.get(name, ["x"])}), 256) == f"asks for {name}"


# --- costs


def test_time_is_shared_by_those_who_run_and_none_is_lost() -> None:
    now = [0.0]
    occupied = Occupied(2, lambda: now[0], lambda: 9 * now[0])
    one = occupied.begin()
    now[0] = 3.0
    other = occupied.begin()
    now[0] = 5.0
    assert occupied.end(one) == pytest.approx(2 * 3 + 2 * 2 / 2)
    now[0] = 6.0
    assert occupied.end(other) == pytest.approx(2 * 2 / 2 + 2)
    now[0] = 9.0
    third = occupied.begin()
    assert occupied.end(third) == 0


@given(
    some.lists(some.tuples(some.integers(0, 7), some.floats(0, 2)), max_size=60),
    some.integers(1, 8),
    some.floats(0, 9),
)
def test_what_all_pay_is_what_was_spent(steps: list[tuple[int, float]], threads: int, cpu: float) -> None:
    now, paid, busy_s = [0.0], 0.0, 0.0
    occupied, running = Occupied(threads, lambda: now[0], lambda: cpu * now[0]), dict[int, float]()
    for who, seconds in [*steps, *((who, 0.0) for who in range(8))]:
        now[0] += seconds
        busy_s += seconds * bool(running)
        if who in running:
            paid += occupied.end(running.pop(who))
        elif seconds:
            running[who] = occupied.begin()
    for begun in running.values():
        paid += occupied.end(begun)
    assert paid == pytest.approx(min(threads, cpu) * busy_s)


# --- the trial


def on_trial(specialist: Specialist, *, audit: float = 0.02, same: bool | None = True, waiting: int = 100) -> Trial:
    async def judge(_question: str, proposed: str, fresh: str) -> Verdict:
        return Verdict(same, f"{proposed} / {fresh}")

    async def forget() -> None: ...

    return Trial(specialist, by_judge(judge), audit=audit, max_waiting=waiting, chance=Random(1), forget=forget)


def base(_step: str, _proposal: Proposal) -> Ruling:
    return Ruling("refuse", "somebody else's")


async def settled(trial: Trial, request: Request, *, text: str = "large") -> Outcome:
    steps = (trial.specialist, LargeStep(text))
    outcome = await descend(request, steps, ruled({"writer": trial}, base))
    assert outcome.answer is not None
    body = outcome.answer.body
    trial.settle(
        Settled(
            request=request, outcome=outcome, form="json", body=body, usage=None, complete=True, status=200, seconds=0.1
        )
    )
    return outcome


async def worked(trial: Trial) -> None:
    task = asyncio.ensure_future(trial.run())
    await asyncio.wait_for(trial.line.join(), 5)
    task.cancel()


async def test_an_audited_answer_is_the_large_models_and_both_are_compared(tmp_path: Path) -> None:
    trial = on_trial(made(tmp_path, Student([GOOD])), audit=1.0)
    outcome = await settled(trial, asks())
    assert [(visit.step, visit.verdict) for visit in outcome.visits] == [
        ("specialist", "audited"),
        ("large", "answered"),
    ]
    assert outcome.visits[0].usd == pytest.approx(0.001)
    await worked(trial)
    assert Promotion(tmp_path).standing().counts.ties == 1


async def test_only_slices_that_passed_are_answered(tmp_path: Path) -> None:
    specialist = made(tmp_path, Student(["a pub"]))
    put(tmp_path, KEY, report("m", slices=("pub",)))
    Promotion(tmp_path).promote(trusted((), KEY), to="live", because="a test")
    assert isinstance(await specialist.propose(asks("kind[pub]")), Proposal)
    told = await specialist.propose(asks("kind[cafe]"))
    assert isinstance(told, Defer)
    assert told.reason == "writer: the slice 'cafe' did not pass the gate"


def test_a_prompt_without_end_is_not_its_task() -> None:
    assert isinstance(question(asks("x" * MOST_PROMPT_LETTERS), 256), Asked)
    assert question(asks("x" * (MOST_PROMPT_LETTERS + 1)), 256) == "the prompt is longer than 32768 letters"


@pytest.mark.parametrize(("stage", "share"), [("shadow", 0), ("canary", 0.02 * 0.3), ("live", 0.02)])
async def test_what_it_may_get_wrong_is_not_there_for_others(tmp_path: Path, stage: str, share: float) -> None:
    trial = on_trial(made(tmp_path, Student([GOOD]), stage=stage, canary=0.3))
    assert trial.reserved() == pytest.approx(share)
    promise = Promise(Terms(0.03), Random(0))
    promise.reserved = trial.reserved()
    assert promise.past().terms.error == pytest.approx(0.03 - share)
    assert promise.terms.error == 0.03
    promise.reserved = 0.05
    assert promise.past().terms.error == 0


async def test_several_may_get_no_more_wrong_than_they_answer(tmp_path: Path) -> None:
    def canary(name: str, share: float) -> Trial:
        return on_trial(made(tmp_path / name, Student([GOOD]), stage="canary", canary=share))

    few = [canary("a", 0.3), canary("b", 0.3)]
    assert reserved(few) == pytest.approx(0.6 * 0.02), "each answers its own share of the requests"
    assert reserved([*few, canary("c", 0.9)]) == pytest.approx(0.02), "a request is answered by one of them"
    assert reserved([]) == 0


async def test_a_share_of_answers_is_audited(tmp_path: Path) -> None:
    trial = on_trial(made(tmp_path, Student([GOOD])), audit=0.2)
    steps = [(await settled(trial, asks())).visits[-1].step for _ in range(200)]
    assert 20 <= steps.count("large") <= 60
    await worked(trial)
    assert Promotion(tmp_path).standing().counts.num == steps.count("large")


async def test_a_canary_is_looked_at_more_often(tmp_path: Path) -> None:
    trial = on_trial(made(tmp_path, Student([GOOD]), stage="canary", canary=1.0), audit=0.001)
    steps = [(await settled(trial, asks())).visits[-1].step for _ in range(100)]
    assert 12 <= steps.count("large") <= 40


async def test_a_judge_who_cannot_say_counts_for_nothing(tmp_path: Path) -> None:
    trial = on_trial(made(tmp_path, Student([GOOD])), audit=1.0, same=None)
    await settled(trial, asks())
    await worked(trial)
    assert (trial.num_unclear, Promotion(tmp_path).standing().counts.num) == (1, 0)


async def test_wrong_answers_roll_back_and_then_nothing_is_served(tmp_path: Path) -> None:
    trial = on_trial(made(tmp_path, Student([GOOD])), audit=1.0, same=False)
    for _ in range(40):
        await settled(trial, asks())
    await worked(trial)
    trial.stand.look()
    outcome = await settled(trial, asks())
    assert outcome.visits[0].verdict == "deferred"
    assert outcome.visits[0].reason.startswith("writer: rolled back: audits: ")


async def test_a_shadow_answers_beside_and_what_does_not_pass_is_no_comparison(tmp_path: Path) -> None:
    student = Student([GOOD, "Nothing."])
    trial = on_trial(made(tmp_path, student, stage="shadow"))
    for _ in range(3):
        outcome = await settled(trial, asks())
        assert outcome.visits[-1].step == "large"
    assert student.bodies == [], "nobody waits for it"
    await worked(trial)
    assert Promotion(tmp_path).standing().counts.num == 1
    assert trial.num_deferred == 2
    assert trial.usd == pytest.approx(0.003)


async def test_a_full_line_drops_and_says_so(tmp_path: Path) -> None:
    trial = on_trial(made(tmp_path, Student([GOOD])), audit=1.0, waiting=2)
    for _ in range(5):
        await settled(trial, asks())
    assert trial.num_dropped == 3


async def test_what_others_propose_is_not_its_to_rule(tmp_path: Path) -> None:
    trial = on_trial(made(tmp_path, Student([GOOD])))
    other = Proposal(Answer(form="json"), Evidence("semantic"))
    assert ruled({"writer": trial}, base)("cache", other).reason == "somebody else's"


async def test_an_audit_asks_the_large_model_and_no_other_specialist(tmp_path: Path) -> None:
    one = on_trial(made(tmp_path / "a", Student([GOOD])), audit=1.0)
    between = made(tmp_path / "b", Student([GOOD]))
    between.title = "between"
    rule = ruled({"writer": one, "between": on_trial(between)}, base)
    outcome = await descend(asks(), (one.specialist, between, LargeStep()), rule)
    assert [visit.step for visit in outcome.visits] == ["specialist", "large"]


async def test_answers_are_compared_by_a_verifier_each_by_itself() -> None:
    compare: Callable[..., Any] = by_verifier(verifier("values"))
    assert await compare(FACTS, GOOD, "Nothing.") == (True, False)
    assert await compare(FACTS, "The Eagle.", GOOD) == (False, True)


async def test_kept_answers_are_let_go_once_a_roll_back(tmp_path: Path) -> None:
    trial = on_trial(made(tmp_path, Student([GOOD])))
    gone: list[str] = []

    async def forget() -> None:
        gone.append("now")

    trial.forget = forget
    await trial.look()
    assert gone == []
    Promotion(tmp_path).roll_back("a test")
    trial.stand.look()
    for _ in range(3):
        await trial.look()
    assert gone == ["now"]
