"""The recipe of the house writer: it learns, it can be stopped and resumed, and what it exports is what it learned."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from recipes.writer import data, export, train

from conftest import ROOT
from stepwell.config import EmbeddedEngine
from stepwell.distill import student
from stepwell.distill.llama import num_parameters
from stepwell.distill.plan import Plan, StudentSection
from stepwell.engines.embedded import Embedded
from stepwell.gateway import openai
from stepwell.quality import slots
from stepwell.types import Caller

pytestmark = pytest.mark.timeout(400)  # torch on two busy cores

FOODS = ("French", "Italian", "Indian", "Chinese")
SMALL = StudentSection(hidden=64, inner=128, layers=2, heads=2, kv_heads=2, context=512)
MODEL = ROOT / "models" / "house-writer"


def pairs(num: int = 200) -> list[data.Pair]:
    chance = random.Random(0)
    made = []
    for _ in range(num):
        name, food = data.invented_name(chance), chance.choice(FOODS)
        made.append(
            data.Pair(f"name[{name}], food[{food}], area[riverside]", f"{name} serves {food} food by the river.")
        )
    return made


def plan(steps: int) -> Plan:
    return replace(train.PLAN, steps=steps, save_every=20, warm_steps=5, batch_tokens=2048)


def run(out: Path, steps: int) -> list[dict[str, float]]:
    made = pairs()
    dev = {pair.mr: [pair.text] for pair in made[:4]}
    train.train(out, plan(steps), SMALL, dev=dev, pairs=made)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def answers(gguf: Path, mrs: list[str]) -> list[str]:
    """What the embedded engine says, greedily."""

    async def ask() -> list[str]:
        engine = Embedded("writer", EmbeddedEngine(path=str(gguf), threads=1, slots=4))
        said = []
        for mr in mrs:
            fields = {"model": "m", "messages": [{"role": "user", "content": mr}], "temperature": 0, "max_tokens": 100}
            body = json.dumps(fields).encode()
            request = openai.parse("chat", body, id="1", caller=Caller("t", "p"), started_s=0.0)
            (chunk,) = [chunk async for chunk in engine.generate(request)]
            said.append(json.loads(chunk.data)["choices"][0]["message"]["content"].strip())
        await engine.close()
        return said

    return asyncio.run(ask())


def test_it_learns(tmp_path: Path) -> None:
    log = run(tmp_path, 60)
    assert [line["step"] for line in log if "bleu" in line] == [20, 40, 60]
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < losses[0] * 0.8


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    run(tmp_path / "cut", 20)
    resumed = run(tmp_path / "cut", 40)
    assert [line["step"] for line in resumed if "bleu" in line] == [20, 40]


def test_what_is_exported_says_the_same_in_torch_and_in_llama_cpp(tmp_path: Path) -> None:
    made = pairs()
    sizes = replace(train.SIZES, layers=2)
    done = train.train(tmp_path / "run", plan(80), sizes, dev={made[0].mr: [made[0].text]}, pairs=made)
    out = tmp_path / "out"
    export.export(tmp_path / "run", out)
    model, again = student.load(done.folder), student.load(out)
    mrs = [pair.mr for pair in made[:6]]
    ids = torch.tensor([[1, 5, 6]])
    assert torch.allclose(model.hidden(ids), again.hidden(ids), atol=0.1)
    said, told = train.greedy(again, mrs), answers(out / "house-writer.gguf", mrs)
    assert sum(a == b for a, b in zip(said, told, strict=True)) >= 4, (said, told)


def test_only_texts_that_say_their_facts_are_kept() -> None:
    mr = "name[The Mill], food[French], area[riverside]"
    good, short, wrong = (
        "The Mill serves French food by the river.",
        "The Mill is French.",
        "The Mill is Indian, riverside.",
    )
    kept = data.clean({mr: [good, wrong]})
    assert [(pair.mr, pair.text) for pair in kept] == [(mr, good)]
    moved = data.clean({f"{mr}, familyFriendly[yes]": [good]})
    assert [pair.mr for pair in moved] == [mr]
    assert data.clean({mr: [short]}) == []


def test_invented_names_take_the_place_of_the_real_ones() -> None:
    group = data.Group("name[The Mill], near[Burger King]", ("The Mill is near Burger King.",))
    renamed = data.renamed(group, random.Random(1))
    facts = slots.facts_of(renamed.mr)
    assert "Mill" not in renamed.texts[0]
    assert facts["name"] in renamed.texts[0]
    assert facts["near"] in renamed.texts[0]


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "README.md"]
)
def test_the_shipped_folder_is_whole(name: str) -> None:
    assert (MODEL / name).stat().st_size > 0


def test_the_shipped_writer_is_small_and_says_the_same_in_both_forms() -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 15_000_000
    model = student.load(MODEL)
    assert num_parameters(model.module) <= 4_500_000
    mrs = [
        "name[The Amber Fox], eatType[pub], food[French], area[riverside]",
        "name[The Velvet Heron], food[Italian], priceRange[cheap], customer rating[5 out of 5], familyFriendly[no]",
        "name[The Quiet Plum], eatType[coffee shop], food[Indian], area[city centre]",
    ]
    said, told = train.greedy(model, mrs), answers(MODEL / "house-writer.gguf", mrs)
    assert sum(a == b for a, b in zip(said, told, strict=True)) >= 2, (said, told)
    assert all(not len(slots.errors(slots.facts_of(mr), text)) for mr, text in zip(mrs, told, strict=True)), told
