"""Filters that ask a model: the round trip, the judge, and meaning; each asked once, within the budget."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generating import Kitchen, kitchen_in, sentence

from conftest import Upstream
from stepwell.engines.answers import Answers, Budget, BudgetReached
from stepwell.errors import ConfigError, DistillError
from stepwell.synth.make import make
from stepwell.synth.sift import Sifted, Tools, sift

SAMPLED = """
[synth.slots.name]
parts = [["The ", "Old "], ["Boat", "Crown", "Star", "Swan"]]
[synth.slots.food]
choices = ["French", "Thai"]
[synth.sampled]
rows = 10
"""


@pytest.fixture
def kitchen(tmp_path: Path, upstream: Upstream) -> Kitchen:
    return kitchen_in(tmp_path, upstream)


def sifted(kitchen: Kitchen, filters: str, *, budget: Budget | None = None, tools: Tools | None = None) -> Sifted:
    recipe = kitchen.load(SAMPLED + f"[synth.filters]\n{filters}\n", synth="real_floor = 0.0")
    open_ = kitchen.open(recipe, budget)
    return sift(recipe, make(recipe, kitchen.open(recipe)), tools or Tools(open_))


def reading(body: dict[str, Any]) -> str:
    """Reads well, but for stars."""
    system, text = body["messages"][0], body["messages"][-1]["content"]
    if "read facts" not in system["content"]:
        return sentence(body)
    found = re.match(r"(.+) serves (\w+) food", text)
    assert found
    if "Star" in text:
        return "I see nothing."
    told = json.dumps({"name": found[1], "food": "Greek" if "Swan" in text else found[2]})
    return f"Here: {told}"


def test_the_model_reads_the_slots_again(kitchen: Kitchen) -> None:
    kitchen.server.say = reading
    done = sifted(kitchen, 'round_trip = "model"')
    assert {row.rejected_by for row in done.dead} == {"round_trip"}
    assert {row.reason for row in done.dead} == {"the generator read nothing out of it", "food comes back as 'Greek'"}
    assert all("Swan" not in row.prompt and "Star" not in row.prompt for row in done.rows)
    assert done.rows
    num = len(kitchen.server.bodies)
    sifted(kitchen, 'round_trip = "model"')
    assert len(kitchen.server.bodies) == num


def judging(body: dict[str, Any]) -> str:
    """Judges that whatever speaks of a swan is different; answers otherwise."""
    system, text = body["messages"][0], body["messages"][-1]["content"]
    if "You compare two answers" not in system["content"]:
        return f"{sentence(body)} It is number {body['seed']}."
    same, different = re.findall(r'"code": "(\w+)"', system["content"])
    return json.dumps({"code": different if "Swan" in text else same})


def test_a_model_judges_beside_another_answer_and_is_asked_once(kitchen: Kitchen) -> None:
    kitchen.server.say = judging
    done = sifted(kitchen, 'judge = "model"')
    assert done.dead
    assert {(row.rejected_by, row.reason) for row in done.dead} == {("judge", "the model finds them different")}
    assert {"Swan" in row.prompt for row in done.dead} == {True}
    assert {"Swan" in row.prompt for row in done.rows} == {False}
    num = len(kitchen.server.bodies)
    assert num == 10 * 4, "an answer, a fresh one, and two verdicts a row"
    assert sifted(kitchen, 'judge = "model"').rows == done.rows
    paid = sum(passed.usd for passed in done.funnel) + sum(row.usd for row in [*done.rows, *done.dead])
    assert paid == pytest.approx(Answers(kitchen.folder / "answers").spent().usd)
    assert len(kitchen.server.bodies) == num


def test_a_judge_keeps_within_the_budget(kitchen: Kitchen) -> None:
    kitchen.server.say = judging
    with pytest.raises(BudgetReached):
        sifted(kitchen, 'judge = "model"', budget=Budget(calls=22))
    assert Answers(kitchen.folder / "answers").spent().calls == len(kitchen.server.bodies) == 22
    sifted(kitchen, 'judge = "model"')
    assert len(kitchen.server.bodies) == 10 * 4


def test_a_judge_without_a_verdict_is_told(kitchen: Kitchen) -> None:
    kitchen.server.say = lambda body: "perhaps" if "You compare" in body["messages"][0]["content"] else sentence(body)
    with pytest.raises(DistillError, match="model has no verdict on any row: the model that judges gave no verdict"):
        sifted(kitchen, 'judge = "model"')


def test_a_judge_of_your_own(kitchen: Kitchen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_judge.py").write_text("def right(question, proposed, fresh):\n    return 'Thai' in proposed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = sifted(kitchen, 'judge = "my_judge:right"')
    assert {row.reason for row in done.dead} == {"my_judge:right"}
    assert all(row.is_real or row.slots["food"] == "Thai" for row in done.rows)


def test_rows_that_mean_the_same(kitchen: Kitchen) -> None:
    def embed() -> Any:
        async def vectors(texts: list[str]) -> np.ndarray[Any, Any]:
            await asyncio.sleep(0)
            one_hot = np.eye(4, dtype=np.float32)
            return np.stack([one_hot[2 * ("Thai" in text) + ("Old" in text)] for text in texts])

        return vectors

    done = sifted(kitchen, "meaning = 0.9", tools=Tools(kitchen.open(kitchen.load(SAMPLED)), embed))
    assert 1 < len(done.rows) <= 4
    assert {row.rejected_by for row in done.dead} == {"meaning"}


def test_meaning_without_an_embedder_is_told(kitchen: Kitchen) -> None:
    with pytest.raises(ConfigError, match="pip install"):
        sifted(kitchen, "meaning = 0.9")
