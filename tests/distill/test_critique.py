"""A teacher that talks: what it is asked, what is made of what it says, and what it may cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import Upstream, json_reply
from stepwell.config import HttpEngine
from stepwell.distill.critique import Wrong, mended, talking, writing
from stepwell.engines.answers import Answers, Budget
from stepwell.engines.asking import Teacher
from stepwell.engines.http import Http
from stepwell.errors import EngineError
from stepwell.quality.verify import verifier
from stepwell.types import Usage

PRICE = 0.001
verify = verifier("values")
WRONG = Wrong("name[The Eagle], near[Burger King]", "The Eagle is here.", ("near is missing: Burger King",))
OTHER = Wrong("name[The Punter], near[Burger King]", "", ("the completion is empty",))


def reply(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    ).encode()


def teacher(upstream: Upstream) -> Teacher:
    engine = Http("teacher", HttpEngine(url=upstream.url, model="m", retries=0))
    return Teacher(engine, "m", lambda usage: PRICE if usage != Usage(0, 0) else 0.0, max_output_tokens=200)


def test_the_teacher_reads_the_complaints_and_its_critique_is_kept(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = json_reply(
        reply("CRITIQUE: It leaves out the place nearby.\nREPAIRED: The Eagle is near Burger King.")
    )
    tell = talking(lambda: teacher(upstream), Answers(tmp_path), Budget())
    after = mended([WRONG], tell, verify, tries=2)
    assert [each.told.repaired for each in after.repaired] == ["The Eagle is near Burger King."]
    assert after.repaired[0].told.critique == "It leaves out the place nearby."
    assert after.repaired[0].told.usd == PRICE
    asked = json.loads(upstream.requests[0][1])["messages"][1]["content"]
    assert all(part in asked for part in (WRONG.prompt, WRONG.answer, WRONG.complaints[0]))
    mended([WRONG], tell, verify, tries=2)
    assert len(upstream.requests) == 1  # kept


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I cannot help with that.", "the teacher gave no answer"),
        ("", "the teacher gave no answer"),
        ("CRITIQUE: bad.\nREPAIRED: Der Adler.", "name is missing"),
    ],
)
def test_what_is_no_repair_is_kept_apart(upstream: Upstream, tmp_path: Path, said: str, reason: str) -> None:
    upstream.script = json_reply(reply(said))
    after = mended([WRONG], talking(lambda: teacher(upstream), Answers(tmp_path), Budget()), verify, tries=2)
    assert not after.repaired
    assert reason in after.apart[0].reason
    assert len(upstream.requests) == 2


def test_a_budget_in_the_middle_leaves_the_rest_unasked(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = json_reply(reply("CRITIQUE: x\nREPAIRED: The Eagle and The Punter are near Burger King."))
    answers = Answers(tmp_path)
    wrongs = [WRONG, OTHER, *(Wrong(f"name[The Eagle], near[Burger King], x[{n}]", "", ("",)) for n in range(5))]
    after = mended(wrongs[:2], talking(lambda: teacher(upstream), answers, Budget(usd=PRICE * 1.5)), verify, tries=2)
    assert len(after.repaired) == 1
    assert after.num_unasked == 1
    after = mended(wrongs, talking(lambda: teacher(upstream), answers, Budget(calls=3)), verify, tries=1)
    assert len(upstream.requests) == 3
    assert answers.spent().calls == 3
    assert len(after.repaired) + len(after.apart) == 3
    assert after.num_unasked == 4


def test_a_teacher_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    engine = Http("teacher", HttpEngine(url="http://127.0.0.1:9/v1", model="m", retries=0))
    gone = Teacher(engine, "m", lambda _usage: PRICE, max_output_tokens=100)
    answers = Answers(tmp_path)
    with pytest.raises(EngineError):
        mended([WRONG], talking(lambda: gone, answers, Budget()), verify, tries=1)
    assert answers.spent().usd == 0.0  # it never reached a server


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
