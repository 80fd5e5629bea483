"""The last stage: the student's folder as it ships, with its card and its provenance."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

import stepwell
from stepwell.campaigns import card, cost, learning
from stepwell.campaigns.card import Data, Made, ModelFile
from stepwell.campaigns.cost import Cost, Economy
from stepwell.campaigns.run import Folders, Stage
from stepwell.campaigns.specialist_gate import PAIRS, SERVED, VERDICT, Answered
from stepwell.campaigns.specialist_job import CARD, COMPARE, FILTER, GATE, QUANTIZE, SPLIT, TRAIN, Job
from stepwell.campaigns.specialist_quantize import PHASES, PICTURE
from stepwell.campaigns.specialist_rows import HELD_OUT, counted
from stepwell.campaigns.specialist_train import data_sha256, learned_rows
from stepwell.errors import ConfigError
from stepwell.ledger import prices
from stepwell.quality import verdict
from stepwell.quality.files import sha256_of
from stepwell.quality.verdict import Report
from stepwell.quantize.phases import Phase
from stepwell.signing import authentic, signing_key, trusted
from stepwell.store import tables
from stepwell.synth import row
from stepwell.types import Usage

LATEST = "student"
"""Beside the stages: a link to the last student's folder, so that a configuration can name it."""
EXAMPLES = 3


def stage(job: Job) -> Stage:
    """`card` leaves `student/`: a Hugging Face folder, the file that serves, `provenance.json` and `README.md`."""

    def work(before: Folders, out: Path) -> None:
        folder = out / LATEST
        shutil.copytree(before[TRAIN] / learning.RUN / "student", folder)
        shutil.copyfile(before[TRAIN] / learning.RUN / "loss.svg", folder / "loss.svg")
        for file in before[QUANTIZE].glob("*.gguf") if QUANTIZE in before else ():
            shutil.copyfile(file, folder / file.name)
        if COMPARE in before and (before[COMPARE] / PICTURE).is_file():
            shutil.copyfile(before[COMPARE] / PICTURE, folder / PICTURE)
        if GATE in before:
            shutil.copyfile(before[GATE] / VERDICT, folder / VERDICT)
        made = told(job, before, folder)
        (folder / "provenance.json").write_bytes(card.provenance(made))
        (folder / "README.md").write_text(card.card(made), encoding="utf-8")

    return Stage(CARD, job.recipe.text.encode() + msgspec.json.encode(prices.load()), work)


def link(job: Job, folder: Path) -> Path:
    """Let `ROOT/student` be the last student's folder; the change is one step."""
    latest = job.root / LATEST
    new = job.root / f".{LATEST}.{os.getpid()}"
    new.symlink_to(Path(folder.name) / LATEST, target_is_directory=True)
    new.replace(latest)
    return latest


def told(job: Job, before: Folders, folder: Path) -> Made:
    """All that is known of the student."""
    file = job.recipe.file
    training = msgspec.json.decode((before[TRAIN] / learning.TOLD).read_bytes(), type=learning.Told)
    costs = costs_of(before, training)
    return Made(
        name=job.recipe.name,
        about=file.about,
        licence=file.export.licence,
        language=file.export.language,
        stepwell=stepwell.__version__,
        recipe=job.recipe.text,
        data=data_of(before),
        teacher=teacher_of(job),
        parameters=training.parameters,
        training=msgspec.to_builtins(file.train) | msgspec.to_builtins(training),
        file=next((ModelFile(each.name, sha256_of(each), each.stat().st_size) for each in folder.glob("*.gguf")), None),
        phases=phases_of(before),
        gate=report(before[GATE]) if GATE in before else None,
        costs=costs,
        economy=economy_of(job, before, costs),
        examples=tuple(examples(before)),
    )


def data_of(before: Folders) -> Data:
    """What was learned from."""
    rows, held = learned_rows(before), list(row.read(before[SPLIT] / HELD_OUT))
    found = counted(rows, before[FILTER])
    job = msgspec.json.decode((before[TRAIN] / learning.JOB).read_bytes(), type=learning.Job)
    return Data(
        sha256=data_sha256(rows),
        rows=len(job.learn),
        dev=len(job.dev),
        held_out=len(held),
        held_out_sha256=data_sha256(held),
        sources=found.sources,
        licences=found.licences,
        refused=found.refused,
    )


def teacher_of(job: Job) -> str:
    """Name and revision."""
    section = job.recipe.file.teacher
    if section is None:
        return ""
    if not section.path:
        return f"{section.name} at {section.url}"
    path = job.recipe.path(section.path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    return f"{section.name}, " + ", ".join(f"{each.name} sha256 {sha256_of(each)}" for each in files)


def phases_of(before: Folders) -> tuple[Phase, ...]:
    """What quantization brought."""
    if COMPARE not in before:
        return ()
    return msgspec.json.decode((before[COMPARE] / PHASES).read_bytes(), type=tuple[Phase, ...])


def costs_of(before: Folders, training: learning.Told) -> dict[str, Cost]:
    """What each stage took. Of training the run itself knows more: it counts what was done before a kill, too."""
    costs = {name: cost.of(folder) for name, folder in before.items()}
    return costs | {TRAIN: replace(costs[TRAIN], cpu_s=max(costs[TRAIN].cpu_s, training.cpu_s))}


def economy_of(job: Job, before: Folders, costs: dict[str, Cost]) -> Economy | None:
    """Prices, where an answer was measured and the large model has one."""
    if GATE not in before:
        return None
    table, answered = prices.load(), msgspec.json.decode((before[GATE] / SERVED).read_bytes(), type=Answered)
    try:
        price = prices.price_of(table, job.recipe.file.export.price or job.recipe.name)
    except ConfigError:
        return None
    large_usd = price.of(Usage(answered.input_tokens, answered.output_tokens))
    return cost.economy(sum(costs.values(), Cost()), answered.answer_cpu_s, large_usd, table.cpu_hour_usd)


def report(folder: Path) -> Report:
    """The verdict of a gate's stage."""
    return verdict.read(authentic((folder / VERDICT).read_bytes(), trusted((), signing_key())))


def examples(before: Folders) -> Iterator[tuple[str, str]]:
    """What the file says to a few held-out prompts."""
    pairs = list(tables.read(before[GATE] / PAIRS)) if GATE in before else []
    for each in sorted(pairs, key=lambda pair: len(pair["prompt"]))[:: max(1, len(pairs) // EXAMPLES)][:EXAMPLES]:
        yield each["prompt"], each["student"]
