"""Learning by interaction: who is asked, what is paid, what is learned, when it stops, and what a kill leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepwell.distill import rounds
from stepwell.distill.critique import Tell, writing
from stepwell.distill.data import Example
from stepwell.distill.interact import Job, Taught, interact
from stepwell.distill.lessons import Lesson
from stepwell.distill.rounds import Interaction, InteractSection, Round
from stepwell.engines.answers import Answers, Budget
from stepwell.errors import DistillError
from stepwell.quality.verify import bracketed, verifier
from stepwell.synth import row

NAMES = [f"Place {letter}{other}" for letter in "ABCDEFGH" for other in "ABCDEFGH"]
FOODS = ["French", "Italian", "Indian", "Chinese"]
verify = verifier("values")
ALL = Budget()


def sentence(prompt: str) -> str:
    facts = bracketed(prompt)
    near = f" near {facts['near']}" if "near" in facts else ""
    return f"{facts['name']} serves {facts['food']} food{near}."


def old_prompts(names: Sequence[str]) -> list[str]:
    return [f"name[{name}], food[{food}]" for name in names for food in FOODS]


def new_prompts(names: Sequence[str]) -> list[str]:
    return [f"name[{name}], food[{food}], near[{NAMES[-1]}]" for name in names for food in FOODS]


class ByHeart:
    """A student in a file: the slots that it can say. It learns a slot from so many right examples, and may forget."""

    def __init__(self, needs: int = 30, forgets_below: float = 0.0) -> None:
        self.needs, self.forgets_below, self.learned = needs, forgets_below, 0
        self.dies_at = 0

    def answers(self, student: Path, prompts: Sequence[str]) -> list[str]:
        known = set(json.loads((student / "known.json").read_text()))
        said = []
        for prompt in prompts:
            facts = {name: value for name, value in bracketed(prompt).items() if name in known}
            said.append(" ".join(facts.values()))
        return said

    def learn(self, student: Path, taught: Taught, out: Path) -> Path:
        self.learned += 1
        if self.learned == self.dies_at:
            raise KeyboardInterrupt
        known = json.loads((student / "known.json").read_text())
        new = [row for row in taught.examples(0) if "near" in bracketed(row.prompt)]
        known += ["near"] if len(new) >= self.needs else []
        if len(taught.examples(0)) - len(new) < self.forgets_below * len(taught.examples(0)):
            known.remove("food")
        folder = out / "student"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "known.json").write_text(json.dumps(known))
        return folder

    def revision(self, student: Path) -> str:
        return (student / "known.json").read_text()


class Writer:
    """A teacher that is right, or says nothing right."""

    def __init__(self, says: Callable[[str], str] = sentence) -> None:
        self.says, self.asked = says, 0

    def __call__(self, prompts: Sequence[str], attempt: int) -> list[str]:  # noqa: ARG002 - a Write
        self.asked += len(prompts)
        return [self.says(prompt) for prompt in prompts]


def section(**known: Any) -> InteractSection:
    fields = {"prompts": "", "old": "", "held_new": "", "held_old": "", "verifier": "values"}
    defaults = {"practice": 20, "repairs": 10, "swaps": 0, "rounds": 6}
    return InteractSection(**{**fields, **defaults, **known})


def job(
    root: Path, settings: InteractSection, pupil: ByHeart, writer: Writer, budget: Budget = ALL, **known: Any
) -> Job:
    student = root / "begin"
    student.mkdir(exist_ok=True)
    (student / "known.json").write_text('["name", "food"]')
    answers = Answers(root / "answers")
    tell: Tell = writing(writer, "writer@1", answers, budget)
    fields = {
        "section": settings,
        "root": root,
        "student": student,
        "prompts": new_prompts(NAMES[:40]),
        "old": [Example(prompt, sentence(prompt)) for prompt in old_prompts(NAMES[:40])],
        "held_new": new_prompts(NAMES[40:50]),
        "held_old": old_prompts(NAMES[40:50]),
        "verify": verify,
        "tell": tell,
        "teacher": "writer@1",
        "spent": answers.spent,
        "pupil": pupil,
    }
    return Job(**{**fields, **known})


def lessons_of(root: Path, number: int) -> list[Lesson]:
    (folder,) = root.glob(f"round-{number:02}-*")
    return rounds.read(folder / rounds.LESSONS, Lesson)


def test_a_skill_is_learned_in_rounds_until_it_reaches_its_goal(tmp_path: Path) -> None:
    writer = Writer()
    told = interact(job(tmp_path, section(), ByHeart(needs=25), writer))
    assert [each.new for each in told.rounds] == [0.0, 0.0, 0.0, 1.0]
    assert {each.old for each in told.rounds} == {1.0}
    assert [each.calls for each in told.rounds] == [0, 10, 20, 30]
    assert writer.asked == 30
    assert told.best == told.rounds[-1]
    assert "goal" in told.reason
    picture = (tmp_path / "skills.svg").read_text()
    assert picture.startswith("<svg")
    assert "30 calls" in picture
    assert "round 3" in picture


def test_swapped_values_teach_without_a_call_and_pass_the_verifier(tmp_path: Path) -> None:
    writer = Writer()
    settings = section(swaps=4)
    heard: list[Taught] = []

    class Hears(ByHeart):
        def learn(self, student: Path, taught: Taught, out: Path) -> Path:
            heard.append(taught)
            return super().learn(student, taught, out)

    told = interact(job(tmp_path, settings, Hears(needs=25), writer))
    assert len(told.rounds) == 2
    assert writer.asked == 10
    held = {*new_prompts(NAMES[40:50]), *old_prompts(NAMES[40:50])}
    new = [row for row in heard[0].examples(0) if "near" in row.prompt]
    assert len(new) > 30
    assert not any(verify(row.prompt, row.completion) for row in new)
    assert not any(row.prompt in held for row in heard[0].examples(0))
    assert len(heard[0].examples(0)) - len(new) == len(new)  # share_old = a half


def test_a_teacher_that_is_wrong_is_kept_apart_and_nothing_is_learned_from_it(tmp_path: Path) -> None:
    writer = Writer(lambda prompt: "" if "French" in prompt else "It serves food.")
    told = interact(job(tmp_path, section(), ByHeart(), writer))
    assert len(told.rounds) == 1
    assert "nothing was repaired" in told.reason
    (folder,) = tmp_path.glob("round-01-*")
    apart = [json.loads(line) for line in (folder / "apart.jsonl").read_text().splitlines()]
    assert len(apart) == 10
    assert writer.asked == 20
    assert any(each["reason"].startswith("no answer") for each in apart)
    assert any("name is missing" in each["reason"] for each in apart)


def test_the_call_budget_is_never_passed_and_more_of_it_goes_on(tmp_path: Path) -> None:
    writer = Writer()
    told = interact(job(tmp_path, section(), ByHeart(needs=25), writer, Budget(calls=15)))
    assert writer.asked == 15
    assert told.rounds[-1].calls == 15
    assert told.rounds[-1].new == 0.0
    assert "budget" in told.reason
    more = interact(job(tmp_path, section(), ByHeart(needs=25), writer, Budget(calls=100)))
    assert more.rounds[: len(told.rounds)] == told.rounds
    assert more.rounds[-1].new == 1.0
    assert writer.asked == 25


def test_a_killed_run_goes_on_and_pays_nothing_twice(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    wanted = interact(job(whole, section(), ByHeart(needs=25), Writer()))
    writer, pupil = Writer(), ByHeart(needs=25)
    pupil.dies_at = 2
    with pytest.raises(KeyboardInterrupt):
        interact(job(cut, section(), pupil, writer))
    assert writer.asked == 20
    told = interact(job(cut, section(), pupil, writer))
    assert writer.asked == 30
    assert shown(told, cut) == shown(wanted, whole)


def shown(told: Interaction, root: Path) -> list[Round]:
    return [msgspec.structs.replace(each, student=each.student.replace(str(root), "")) for each in told.rounds]


def test_it_stops_when_the_old_skill_falls_and_keeps_the_student_before(tmp_path: Path) -> None:
    told = interact(job(tmp_path, section(share_old=0.0), ByHeart(needs=5, forgets_below=0.1), Writer()))
    assert told.rounds[-1].old == 0.0
    assert "fell" in told.reason
    assert told.best == told.rounds[0]


def test_practice_without_a_mistake_needs_no_teacher(tmp_path: Path) -> None:
    writer = Writer()
    done = job(tmp_path, section(goal=1.0), ByHeart(), writer, prompts=old_prompts(NAMES[:20]), old=[])
    told = interact(done)
    assert writer.asked == 0
    assert told.reason == "practice shows no mistake"


def test_a_held_out_prompt_among_the_lessons_is_refused(tmp_path: Path) -> None:
    leak = old_prompts(NAMES[40:41])
    with pytest.raises(DistillError, match="held out"):
        interact(job(tmp_path, section(), ByHeart(), Writer(), old=[Example(leak[0], "text")]))
    with pytest.raises(DistillError, match="empty"):
        interact(job(tmp_path, section(), ByHeart(), Writer(), held_new=[]))


def test_every_lesson_says_where_it_comes_from(tmp_path: Path) -> None:
    interact(job(tmp_path, section(), ByHeart(needs=5), Writer()))
    (folder,) = tmp_path.glob("round-01-*")
    rows = list(row.read(folder / rounds.LESSONS))
    assert rows
    assert not [row.lacks(each) for each in rows if row.lacks(each)]
    repaired = lessons_of(tmp_path, 1)[0]
    assert repaired.generator == "writer"
    assert repaired.generator_rev == "1"
    assert repaired.rejected
    assert "near is missing" in repaired.critique


def test_a_teacher_that_is_asked_in_other_words_is_asked_anew(tmp_path: Path) -> None:
    for how in (b"", b'{"ask": "Tell me of {prompt}"}', b""):
        interact(job(tmp_path, section(rounds=1), ByHeart(), Writer(), how=how))
    assert len(list(tmp_path.glob("round-01-*"))) == 2
