"""Rows are made and completed once, within the budget; what a generator does wrong is told by row or at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from generating import SEEDS, Kitchen, kitchen_in, sentence

from conftest import Upstream
from stepwell.engines.answers import Answers, Budget, BudgetReached, Kept
from stepwell.errors import ConfigError, DistillError, EngineError, StoreError
from stepwell.synth.generator import keys, opened
from stepwell.synth.make import make
from stepwell.synth.recipe import load
from stepwell.synth.row import lacks


@pytest.fixture
def kitchen(tmp_path: Path, upstream: Upstream) -> Kitchen:
    return kitchen_in(tmp_path, upstream)


SLOTS = """
[synth.slots.name]
parts = [["The ", "Old "], ["Boat", "Crown", "Star", "Swan", "Bear"]]
[synth.slots.food]
choices = ["French", "Thai"]
"""


def test_every_source_brings_rows_with_provenance(kitchen: Kitchen) -> None:
    invented = iter(range(1000))

    def say(body: dict[str, Any]) -> str:
        if "Examples of requests" not in body["messages"][-1]["content"]:
            return sentence(body)
        numbers = [next(invented) for _ in range(8)]
        return "\n".join(f"{at}. name[House {number} of wood{number} w{number}], food[Food{number}]"
                         for at, number in enumerate(numbers, 1))  # fmt: skip

    kitchen.server.say = say
    recipe = kitchen.load(
        SLOTS + "[synth.sampled]\nrows = 12\n[synth.recombined]\nrows = 5\n[synth.grown]\nrows = 10\n",
        generator="temperature = 0.5\nnum = 2",
    )
    rows = make(recipe, kitchen.open(recipe))
    num = {source: sum(row.source == source for row in rows) for source in {row.source for row in rows}}
    assert num == {"seed": 6, "sampled": 24, "recombined": 10, "grown": 20}
    assert [(row, missing) for row in rows if (missing := lacks(row))] == []
    for row in rows:
        if row.source != "seed":
            assert (row.generator, row.generator_rev) == ("meta-llama/llama-3-3-70b-instruct", "writer-2026-11 fp_1")
            assert row.params["temperature"] == 0.5
            assert row.usd > 0
            assert row.tokens_out == 20
            assert row.licence == "CC0-1.0"
        else:
            assert (row.generator, row.licence, row.usd) == ("", "CC BY 4.0", 0)
    asked = len(kitchen.server.bodies)
    assert make(recipe, kitchen.open(recipe)) == rows
    assert len(kitchen.server.bodies) == asked, "nothing is paid twice"


def test_the_budget_is_never_passed_and_what_was_paid_is_kept(kitchen: Kitchen) -> None:
    recipe = kitchen.load(SLOTS + "[synth.sampled]\nrows = 20\n", generator="concurrency = 5")
    kitchen.server.delay_s = 0.01
    with pytest.raises(BudgetReached, match="raise --budget-usd"):
        make(recipe, kitchen.open(recipe, Budget(usd=0.0003)))
    spent = Answers(kitchen.folder / "answers").spent()
    assert 0 < spent.usd <= 0.0003
    paid = len(kitchen.server.bodies)
    assert spent.calls == paid < 20
    make(recipe, kitchen.open(recipe))
    assert len(kitchen.server.bodies) == 20


def test_every_call_that_went_out_is_in_the_account(kitchen: Kitchen) -> None:
    busy = iter(["503 Service Unavailable", "429 Too Many Requests"])

    def say(body: dict[str, Any]) -> str | dict[str, Any]:
        status = next(busy, "")
        return {"status": status, "error": "busy"} if status else sentence(body)

    kitchen.server.say = say
    recipe = kitchen.load(SLOTS + "[synth.sampled]\nrows = 3\n", generator="concurrency = 1")
    assert all(row.completion for row in make(recipe, kitchen.open(recipe)))
    assert len(kitchen.server.bodies) == 5, "one question was asked three times"
    assert Answers(kitchen.folder / "answers").spent().calls == 5


def test_rows_that_are_not_answered_say_why(kitchen: Kitchen) -> None:
    faults: list[str | dict[str, Any]] = [
        {"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"},
        {"message": {"content": "The Boat serves"}, "finish_reason": "length"},
        {"message": {"content": None}, "finish_reason": "content_filter"},
        "  ",
        {"status": "400 Bad Request", "error": {"message": "not this"}},
    ]
    kitchen.server.say = lambda body: faults.pop() if faults else sentence(body)
    recipe = kitchen.load(SLOTS + "[synth.sampled]\nrows = 9\n", generator="concurrency = 1")
    rows = [row for row in make(recipe, kitchen.open(recipe)) if row.source == "sampled"]
    assert [row.filters.get("written", "") for row in rows[:6]] == [
        "the server refused (400)", "empty", "refused", "cut off at max_tokens", "refused", ""]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "16 empty"),
        ({"message": {"content": None, "refusal": "No."}}, "16 refused"),
        ({"status": "422 Unprocessable Entity", "error": {"message": "no"}}, r"16 the server refused \(422\)"),
    ],
)
def test_a_generator_that_answers_nothing_is_not_asked_on(
    kitchen: Kitchen, said: str | dict[str, Any], why: str
) -> None:
    kitchen.server.say = lambda _: dict(said) if isinstance(said, dict) else said
    recipe = kitchen.load(SLOTS + "[synth.sampled]\nrows = 20\n")
    with pytest.raises(DistillError, match=f"answered none of the first 16 prompts: {why}"):
        make(recipe, kitchen.open(recipe))
    assert len(kitchen.server.bodies) == 16


def test_a_server_that_fails_ends_the_run_and_the_next_goes_on(kitchen: Kitchen) -> None:
    recipe = kitchen.load(SLOTS + "[synth.sampled]\nrows = 20\n", generator="concurrency = 1")

    def say(body: dict[str, Any]) -> str | dict[str, Any]:
        if len(kitchen.server.bodies) > 8:
            return {"status": "401 Unauthorized", "error": {"message": "no key"}}
        return sentence(body)

    kitchen.server.say = say
    with pytest.raises(EngineError):
        make(recipe, kitchen.open(recipe))
    kitchen.server.say = sentence
    make(recipe, kitchen.open(recipe))
    assert len({json.dumps(body) for body in kitchen.server.bodies}) == 20
    assert len(kitchen.server.bodies) == 21


def test_equal_questions_are_asked_once(kitchen: Kitchen) -> None:
    (kitchen.folder / "seeds.jsonl").write_text(json.dumps({"prompt": "name[A B], food[C]"}) + "\n")
    (kitchen.folder / "more.jsonl").write_text(json.dumps({"prompt": "name[A B], food[C]"}) + "\n")
    recipe = kitchen.load('[synth.seeds]\npaths = ["seeds.jsonl", "more.jsonl"]\nlicence = "x"', seeds=False)
    rows = make(recipe, kitchen.open(recipe))
    assert len(rows) == 2
    assert len(kitchen.server.bodies) == 1
    assert rows[0].source == "seed"
    assert rows[0].generator == "meta-llama/llama-3-3-70b-instruct"


def test_without_a_generator_prompts_wait_for_a_teacher(kitchen: Kitchen) -> None:
    path = kitchen.recipe(SLOTS + "[synth.sampled]\nrows = 3\n")
    path.write_text(path.read_text().replace("[synth.generator]", "[other]"))
    rows = make(load(path), None)
    assert [row.completion for row in rows[6:]] == ["", "", ""]
    assert all(lacks(row) == [] for row in rows)


def test_grown_prompts_that_are_not_new_say_so(kitchen: Kitchen) -> None:
    kitchen.server.say = lambda body: (
        "1. name[The Mill], food[French]\n2) 'name[The Cellar], food[Greek]'\nthree\n- name[The Cellar], food[Greek] too"
        if "Examples" in body["messages"][-1]["content"]
        else sentence(body)
    )
    recipe = kitchen.load("[synth.grown]\nrows = 40\nbatch = 4\n")
    rows = [row for row in make(recipe, kitchen.open(recipe)) if row.source == "grown"]
    new = [row for row in rows if not row.filters]
    assert [row.prompt for row in new] == ["name[The Cellar], food[Greek]"]
    assert new[0].slots == {"name": "The Cellar", "food": "Greek"}
    assert set(new[0].parents)
    assert rows[0].filters == {"novelty": "ROUGE-L 1.00 to an earlier prompt"} or rows[0] == new[0]
    rounds = [body for body in kitchen.server.bodies if "Examples" in body["messages"][-1]["content"]]
    assert len(rounds) == 3 * 10


def test_a_generator_that_makes_up_nothing_is_told(kitchen: Kitchen) -> None:
    kitchen.server.say = lambda _: {"message": {"refusal": "No."}}
    recipe = kitchen.load("[synth.grown]\nrows = 8\n")
    with pytest.raises(DistillError, match=r"made up no new prompt in 3 rounds \(0 were like others; 3 refused\)"):
        make(recipe, kitchen.open(recipe))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"prompt": 3}', "row 7: prompt is no text; the row has prompt"),
        ('{"text": "x"}', "row 7: prompt is no text; the row has text"),
        ('{"prompt": " "}', "row 7: prompt is empty"),
        ('{"prompt": "x", "completion": [3]}', "row 7: completion is neither text nor a list of texts"),
        ('{"messages": [{"role": "user"}]}', "row 7: messages: Object missing required field `content`"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "row 7: messages: no turn of the user"),
        ('{"prompt"', "line 7 is not JSON"),
    ],
)
def test_a_wrong_seed_is_told_by_file_and_row(kitchen: Kitchen, line: str, told: str) -> None:
    with (kitchen.folder / "seeds.jsonl").open("a") as file:
        file.write(line + "\n")
    recipe = kitchen.load()
    with pytest.raises(StoreError, match=r"seeds\.jsonl: " + told):
        make(recipe, None)


def test_empty_seeds_are_told(kitchen: Kitchen) -> None:
    (kitchen.folder / "seeds.jsonl").write_text("\n")
    with pytest.raises(DistillError, match=r"seeds\.jsonl: holds no row"):
        make(kitchen.load(), None)


def test_talks_and_lists_of_completions_are_read(kitchen: Kitchen) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    lines = [
        {"messages": [*turns, {"role": "assistant", "content": "Hello."}]},
        {"messages": turns},
        {"prompt": "name[A B]", "completion": ["one", "two"]},
    ]
    (kitchen.folder / "seeds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = make(kitchen.load(), None)
    assert [(row.prompt, row.completion) for row in rows] == [
        ("Hi", "Hello."), ("Hi", ""), ("name[A B]", "one"), ("name[A B]", "two")]  # fmt: skip
    assert rows[0].messages[0].content == "Be kind."
    assert rows[2].slots == {"name": "A B"}


def test_a_key_that_is_not_there_and_a_model_without_a_price_are_told(kitchen: Kitchen) -> None:
    recipe = kitchen.load(SLOTS + "[synth.sampled]\nrows = 3\n", generator='key_env = "NO_SUCH_KEY_HERE"')
    with pytest.raises(ConfigError, match="NO_SUCH_KEY_HERE holds no key"):
        make(recipe, kitchen.open(recipe))
    path = kitchen.recipe(SLOTS + "[synth.sampled]\nrows = 3\n")
    path.write_text(path.read_text().replace("meta-llama/llama-3-3-70b-instruct", "meta-llama/llama-3-3-70b-instrukt"))
    recipe = load(path)
    with pytest.raises(
        ConfigError,
        match="no price for 'meta-llama/llama-3-3-70b-instrukt'; did you mean 'meta-llama/llama-3-3-70b-instruct'",
    ):
        make(recipe, kitchen.open(recipe))


def test_only_so_many_seeds(kitchen: Kitchen) -> None:
    path = kitchen.recipe()
    path.write_text(path.read_text().replace('licence = "CC BY 4.0"', 'licence = "CC BY 4.0"\nrows = 3'))
    assert [row.prompt for row in make(load(path), None)] == [SEEDS[at]["prompt"] for at in (0, 2, 4)]


def test_a_generator_whose_terms_restrict_training_needs_your_word(kitchen: Kitchen) -> None:
    path = kitchen.recipe(SLOTS + "[synth.sampled]\nrows = 3\n")
    path.write_text(path.read_text().replace("meta-llama/llama-3-3-70b-instruct", "gpt-4o-mini"))
    recipe = load(path)
    answers = Answers(kitchen.folder / "answers")
    with pytest.raises(DistillError, match=r"restrict training .* --i-may"):
        opened(recipe, answers, Budget(), lambda _done, _all, _usd: None)
    opened(recipe, answers, Budget(), lambda _done, _all, _usd: None, i_may=True)
    assert not kitchen.server.bodies


def test_a_generator_of_the_same_name_at_another_server_is_asked_anew(kitchen: Kitchen) -> None:
    recipe = kitchen.load()
    paid, body = kitchen.open(recipe)(), b'{"model": "writer"}'
    paid.answers.begin(paid.teacher.key_of(body), 0.0, Budget())
    paid.answers.keep(paid.teacher.key_of(body), Kept(msgspec.Raw(b"{}"), 0.0))
    assert keys(paid, [body])[:2] == (1, 0)
    elsewhere = msgspec.structs.replace(paid, teacher=msgspec.structs.replace(paid.teacher, origin="http://other/v1"))
    assert keys(elsewhere, [body])[:2] == (0, 1)
