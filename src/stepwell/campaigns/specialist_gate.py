"""The stage that judges the file that will serve, on held-out traffic, beside the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.campaigns.run import Folders, Stage
from stepwell.campaigns.served import Served, served
from stepwell.campaigns.specialist_job import GATE, QUANTIZE, SPLIT, TEACH, Job
from stepwell.campaigns.specialist_rows import HELD_OUT
from stepwell.campaigns.specialist_teach import JUDGED
from stepwell.campaigns.specialist_train import learned_rows
from stepwell.errors import DistillError
from stepwell.quality import gate as room
from stepwell.quality.compare import GatePlan, Pair
from stepwell.quality.files import lay, sha256_of
from stepwell.quality.judges import source_of
from stepwell.quality.slicing import SLOT
from stepwell.quality.verdict import FILE
from stepwell.signing import signing_key
from stepwell.store import tables
from stepwell.synth import row
from stepwell.synth.row import Row

FOLDER = "gate"
"""Beside the stages: who judged which pairs, whatever recipe it was for; and where the promotion will stand."""
PAIRS, SERVED, VERDICT = "pairs.jsonl", "served.json", "verdict.json"


class Answered(Struct, frozen=True):
    """What answering took."""

    answer_cpu_s: float
    input_tokens: int
    output_tokens: int


def stage(job: Job, plan: GatePlan) -> Stage:
    """`gate` leaves `pairs.jsonl`, `served.json` and the signed `verdict.json`; `ROOT/gate` what promotion reads."""

    def work(before: Folders, out: Path) -> None:
        model = model_file(before)
        if not (out / SERVED).exists():  # killed while it judged, it judges the very answers that it began with
            answer(job, before, model, out)
        pairs = [msgspec.convert(each, Pair) for each in tables.read(out / PAIRS)]
        folder = job.root / FOLDER
        trained_on = {each.prompt for each in learned_rows(before)}
        room.gate(folder, plan, pairs, model=sha256_of(model), key=signing_key(), trained_on=trained_on)
        (out / VERDICT).write_bytes((folder / FILE).read_bytes())

    key = signing_key()
    yours = [plan.verify, *([] if plan.slice_by.startswith(SLOT) else [plan.slice_by])]
    sources = [source_of(name, field="gate") for name in yours]
    return Stage(GATE, msgspec.json.encode((plan, key.id)) + b"".join(sources), work, resumes=True)


def answer(job: Job, before: Folders, model: Path, out: Path) -> None:
    """Have the file answer what is held out: `pairs.jsonl`, then `served.json`."""
    real = list(row.read(before[SPLIT] / HELD_OUT))
    held = list(row.read(before[TEACH] / JUDGED)) if TEACH in before else real
    told = served(model, prompts(held), max_tokens=job.recipe.file.train.max_tokens, watch=watch(job, held))
    tables.write(out / PAIRS, map(msgspec.to_builtins, pairs_of(held, real, told)))
    usage = told.answer_usage
    answered = Answered(told.answer_cpu_s, usage.input_tokens, usage.output_tokens)
    lay(out / SERVED, msgspec.json.encode(answered))


def seal(job: Job, plan: GatePlan) -> room.Sealed:
    """State the plan before anything is made. Raises DistillError where pairs were judged by another one."""
    return room.seal(job.root / FOLDER, plan, signing_key())


def model_file(before: Folders) -> Path:
    """The file that will serve. Raises DistillError where the recipe makes none."""
    if QUANTIZE not in before:
        raise DistillError("the gate judges a file that can be served: give [export] quantize a format")
    (file,) = before[QUANTIZE].glob("*.gguf")
    return file


def prompts(held: Sequence[Row]) -> list[str]:
    """What is asked, each once."""
    return list(dict.fromkeys(each.prompt for each in held))


def watch(job: Job, held: Sequence[Row]) -> Callable[[int], None]:
    """Tell how many are answered."""
    num = len(prompts(held))
    return lambda done: job.allowed.progress(done, num, "the student answers")


def pairs_of(held: Sequence[Row], real: Sequence[Row], told: Served) -> list[Pair]:
    """Both answers to each prompt. References are `real` texts of it, never the one that stands for the teacher."""
    said = dict(zip(prompts(held), told.texts, strict=True))
    first: Mapping[str, Row] = {each.prompt: each for each in reversed(held)}
    texts: dict[str, list[str]] = {}
    for each in real:
        teachers = first.get(each.prompt)
        if each.completion and teachers is not None and each.completion != teachers.completion:
            texts.setdefault(each.prompt, []).append(each.completion)
    return [
        Pair(each.id, prompt, said[prompt], each.completion, references=tuple(texts.get(prompt, ())))
        for prompt, each in sorted(first.items())
    ]
