"""The last act: the student that ships is judged by what was captured, and answers where it was found good enough."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from conftest import WRITER
from stepwell.demo import specialist
from stepwell.demo.city import questions
from stepwell.synth import row


@pytest.mark.timeout(240)  # two models on two busy cores
@pytest.mark.parametrize(("num", "decision"), [(specialist.PLAN.needed(), "promote"), (30, "cannot tell")])
def test_the_student_answers_once_it_was_judged(tmp_path: Path, num: int, decision: str) -> None:
    student = specialist.student_file()
    assert student is not None
    rows = [
        row.made(prompt, "It is somewhere.", source="captured", licence="own", params={"step": "large"})
        for prompt in questions(200, 4)[:num]
    ]
    row.write(tmp_path / "captured" / "guide-web" / "rows.jsonl", rows)
    console = Console(record=True)
    act = specialist.played(tmp_path, WRITER, student, console, num=60, seed=4)
    specialist.show(act, console)
    assert act.report.decision == decision
    assert act.story.num_errors == 0
    answered = {each.step: each.num for each in act.story.rows}
    assert ("specialist" in answered) == (decision == "promote")
    assert decision in console.export_text()
