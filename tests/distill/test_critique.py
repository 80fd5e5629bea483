"""A teacher that talks: what it is asked, what is made of what it says, and what it may cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import Upstream, json_reply
from stepwell.distill.critique import Wrong, asking, mended, writing
from stepwell.distill.teach import Job, TeacherSection
from stepwell.engines.answers import Answers, Budget
from stepwell.ledger import prices
from stepwell.quality.verify import verifier
from stepwell.types import Usage

NO_LIMIT = Budget()
MODEL = "gpt-4o-mini"
USD = prices.price_of(prices.load(), MODEL).of(Usage(100, 20))
"""What one reply here costs."""
verify = verifier("values")
WRONG = Wrong("name[The Eagle], near[Burger King]", "The Eagle is here.", ("near is missing: Burger King",))
OTHER = Wrong("name[The Punter], near[Burger King]", "", ("the completion is empty",))


def reply(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    ).encode()


def teacher(upstream: Upstream, out: Path, budget: Budget = NO_LIMIT, **known: Any) -> Job:
    section = TeacherSection(url=upstream.url, model=MODEL, max_tokens=100, **known)
    return Job(section, out, out, budget)


def test_the_teacher_reads_the_complaints_and_its_critique_is_kept(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = json_reply(
        reply("CRITIQUE: It leaves out the place nearby.\nREPAIRED: The Eagle is near Burger King.")
    )
    tell = asking(teacher(upstream, tmp_path), talks=True)
    after = mended([WRONG], tell, verify, tries=2)
    assert [each.told.repaired for each in after.repaired] == ["The Eagle is near Burger King."]
    assert after.repaired[0].told.critique == "It leaves out the place nearby."
    assert after.repaired[0].told.usd == pytest.approx(USD)
    asked = json.loads(upstream.requests[0][1])["messages"][1]["content"]
    assert all(part in asked for part in (WRONG.prompt, WRONG.answer, WRONG.complaints[0]))
    mended([WRONG], tell, verify, tries=2)
    assert len(upstream.requests) == 1  # kept


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I'm sorry, but I can't help with that.", "no answer"),
        ("", "no answer"),
        ("The Eagle is near Burger King.", "no answer: The Eagle"),
        ("CRITIQUE: bad.\nREPAIRED: Der Adler.", "name is missing"),
    ],
)
def test_what_is_no_repair_is_kept_apart(upstream: Upstream, tmp_path: Path, said: str, reason: str) -> None:
    upstream.script = json_reply(reply(said))
    after = mended([WRONG], asking(teacher(upstream, tmp_path), talks=True), verify, tries=2)
    assert not after.repaired
    assert reason in after.apart[0].reason
    assert len(upstream.requests) == 2


def test_a_budget_in_the_middle_leaves_the_rest_unasked(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = json_reply(reply("CRITIQUE: x\nREPAIRED: The Eagle and The Punter are near Burger King."))
    wrongs = [WRONG, OTHER, *(Wrong(f"name[The Eagle], near[Burger King], x[{n}]", "", ("",)) for n in range(5))]
    after = mended(wrongs, asking(teacher(upstream, tmp_path, Budget(calls=3)), talks=True), verify, tries=1)
    assert len(upstream.requests) == 3
    assert Answers(tmp_path / "answers").spent().calls == 3
    assert len(after.repaired) + len(after.apart) == 3
    assert after.num_unasked == 4


def test_no_budget_of_money_is_passed(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = json_reply(reply("CRITIQUE: x\nREPAIRED: The Eagle and The Punter are near Burger King."))
    limit = 20 * USD
    tell = asking(teacher(upstream, tmp_path, Budget(usd=limit)), talks=True)
    wrongs = [Wrong(f"name[The Eagle], near[Burger King], name[The Punter {n}]", "", ("",)) for n in range(50)]
    after = mended(wrongs, tell, verify, tries=2)
    spent = Answers(tmp_path / "answers").spent()
    assert 0 < spent.usd <= limit
    assert after.num_unasked > 0


def test_a_teacher_that_cannot_talk_answers_the_prompt_itself(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = json_reply(reply("The Eagle is near Burger King."))
    after = mended([WRONG], asking(teacher(upstream, tmp_path), talks=False), verify, tries=2)
    assert [each.told.repaired for each in after.repaired] == ["The Eagle is near Burger King."]
    assert after.repaired[0].told.critique == WRONG.complaints[0]
    assert json.loads(upstream.requests[0][1])["messages"] == [{"role": "user", "content": WRONG.prompt}]


def test_a_local_writer_that_was_killed_begins_no_call_anew(tmp_path: Path) -> None:
    answers = Answers(tmp_path)

    def dies(_prompts: Sequence[str], _attempt: int) -> list[str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mended([WRONG, OTHER], writing(dies, "w", answers, Budget(calls=2)), verify, tries=1)
    tell = writing(
        lambda prompts, _attempt: ["The Eagle, The Punter, Burger King"] * len(prompts), "w", answers, Budget(calls=2)
    )
    after = mended([WRONG, OTHER], tell, verify, tries=1)
    assert len(after.repaired) == 2
    assert answers.spent().calls == 2
