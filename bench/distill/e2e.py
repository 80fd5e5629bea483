"""What the parts of this benchmark learn from and are judged on: E2E, the house writer as teacher, the scores.

Human texts are those that say all their facts (`recipes/writer/data.py`); new prompts recombine the slots of seen ones,
never those of dev or test; the teacher writes each once, greedily, and what the slot checker complains about is not
learned from. What was made is kept under runs/, by the names of all that it depends on.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from recipes.writer import data

from bench.distill import scores
from bench.distill.scores import Scores
from stepwell.distill.data import Example
from stepwell.distill.generate import generate
from stepwell.distill.plan import Plan, StudentSection
from stepwell.distill.sparse import SparseRows
from stepwell.distill.student import Model, create, load
from stepwell.distill.teach import Job, TeacherSection, teach
from stepwell.distill.train import Told, Trained, train
from stepwell.quality import slots
from stepwell.store import tables
from stepwell.synth.recombine import recombined
from stepwell.synth.row import made

TEACHER = Path("models/house-writer")
KEPT = Path("runs/bench-distill")
STUDENT = StudentSection(hidden=128, layers=3, heads=4, kv_heads=1, inner=160)
"""0.57 million parameters."""
LICENCE = "CC-BY-SA-4.0"


class Set(Struct, frozen=True):
    """Rows to learn from, and the folder with what the teacher expected of each."""

    rows: list[Example]
    folder: Path


def human() -> list[data.Pair]:
    """The human texts that say all their facts."""
    return data.clean(data.read("train"))


def new_prompts(seen: Iterable[str], num: int, seed: int) -> list[str]:
    """Prompts with the slots of seen ones and values of others; none is one of dev or test."""
    rows = [made(mr, "", source="seed", licence=LICENCE) for mr in dict.fromkeys(seen)]
    measured = {key(mr) for part in ("dev", "test") for mr in data.read(part)}
    drawn = recombined(rows, num + num // 10, licence=LICENCE, seed=seed)
    return [row.prompt for row in drawn if key(row.prompt) not in measured][:num]


def key(mr: str) -> frozenset[tuple[str, str]]:
    """The same for the same facts in any order."""
    return frozenset(slots.facts_of(mr).items())


def taught(pairs: Sequence[data.Pair], prompts: Sequence[str]) -> Set:
    """Human pairs and the teacher's texts of prompts, all with the teacher's probabilities."""
    named = sha256(msgspec.json.encode([[pair.mr, pair.text] for pair in pairs] + list(prompts))).hexdigest()[:12]
    folder = KEPT / named
    said = told(folder / "texts", [{"id": f"new-{at}", "prompt": prompt} for at, prompt in enumerate(prompts)], "texts")
    rows = [{"id": f"human-{at}", "prompt": pair.mr, "completion": pair.text} for at, pair in enumerate(pairs)]
    every = told(folder / "logits", rows + said, "logits")
    weights = {f"human-{at}": pair.weight for at, pair in enumerate(pairs)}
    examples = [Example(row["prompt"], row["completion"], weights.get(row["id"], 1.0), row["id"]) for row in every]
    return Set(examples, folder / "logits" / "logits")


def told(out: Path, rows: list[dict[str, Any]], give: Any) -> list[dict[str, Any]]:
    """Rows as the teacher gives them back."""
    verify = "slots" if give == "texts" else ""
    section = TeacherSection(path=str(TEACHER.resolve()), give=give, max_tokens=110, verifier=verify)
    teach(Job(section, Path.cwd(), out), rows)
    kept = list(tables.read(out / "rows.jsonl"))
    return [{name: row[name] for name in ("id", "prompt", "completion")} for row in kept]


def student(plan: Plan, rows: Sequence[Example], out: Path, **means: Any) -> tuple[Model, Trained]:
    """A student of its own for a plan; `means`: sparse or teacher, dev, watch."""
    model = create(STUDENT, TEACHER, plan.seed)
    done = train(plan, model, rows, out, **means)
    return load(done.folder), done


def sparse(of: Set, model: Model) -> SparseRows:
    """What the teacher expected."""
    return SparseRows.open(of.folder, model.tokenizer_hash)


def measured(model: Model, part: str = "test") -> Scores:
    """Score a model's greedy texts."""
    return scores.scored([one for (one,) in generate(model, list(scores.references(part)), max_tokens=110)], part)


def bar(what: str, plan: Plan) -> Any:
    """Say every hundred steps how a training goes."""
    lately: list[float] = []

    def watch(heard: Told) -> None:
        lately.append(heard.loss)
        if heard.step % 100 == 0 or heard.step == plan.steps:
            print(f"  {what}: step {heard.step} of {plan.steps}, loss {np.mean(lately[-50:]):.3f}", flush=True)

    return watch


def shuffled(pairs: Sequence[data.Pair], num: int, seed: int) -> list[data.Pair]:
    """So many pairs, by chance."""
    return random.Random(seed).sample(list(pairs), num)
