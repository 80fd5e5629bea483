"""The search for the smallest file that keeps a model's quality: planned, run within a budget, written down.

The plan is written before anything is scored, and a folder holds one plan: with another margin it is another search.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from hashlib import sha256
from pathlib import Path

import msgspec

from stepwell import __version__
from stepwell.alone import alone
from stepwell.campaigns import quantize_out, quantize_score
from stepwell.campaigns.quantize_flow import PLAN, Search
from stepwell.campaigns.quantize_job import Clock, Job
from stepwell.campaigns.quantize_out import FOUND
from stepwell.campaigns.quantize_task import BLEU
from stepwell.errors import DistillError
from stepwell.ledger import prices
from stepwell.quality import paired
from stepwell.quality.files import lay, sha256_of
from stepwell.quantize import search
from stepwell.quantize.search import Found, Margins, Plan

LOCK = "search.lock"
MOST_ROWS = 10**9


def searched(job: Job) -> Found:
    """Search, or go on. Raises StepwellError for what cannot be searched."""
    clock = Clock(job.budget_s, cpu=job.cpu)
    asked = planned(job)
    try:
        job.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DistillError(f"cannot be made ({error.strerror}): name another folder", file=str(job.out)) from error
    try:
        with alone(job.out / LOCK.removesuffix(".lock")):
            return found_by(job, asked, clock)
    except sqlite3.OperationalError as error:
        what = f"another search is at work in it ({error}): wait, or name another folder"
        raise DistillError(what, file=str(job.out)) from error


def found_by(job: Job, asked: Plan, clock: Clock) -> Found:
    """What is there already, or what searching finds. Raises StepwellError."""
    plan = sealed(job, asked)
    if (job.out / FOUND).is_file():
        found = msgspec.json.decode((job.out / FOUND).read_bytes(), type=Found)
        if found.status != "incomplete":
            return found
    run = Search(job, plan, clock)
    found = run.run()
    quantize_out.written(job, plan, found, run.files)
    return found


def planned(job: Job) -> Plan:
    """All that is fixed before the search. Raises ConfigError for a margin that does not fit the task."""
    task = job.task
    facts = task.scorer == BLEU and quantize_score.facts((*task.search, *task.gate))
    margins = search.margins(job.margin, bleu=task.scorer == BLEU, facts=facts)
    check_power(margins, min(len(task.search), len(task.gate)), job.alpha)
    return Plan(
        model=job.model.name,
        model_sha256=model_sha256(job.model),
        task=task.name,
        scorer=task.scorer,
        splits=task.hashes,
        num_rows={name: len(getattr(task, name)) for name in task.hashes},
        margins=margins,
        alpha=job.alpha,
        target=job.target,
        at_most=job.at_most,
        seed=job.seed,
        resamples=job.resamples,
        max_tokens=task.max_tokens,
        cpu_hour_usd=prices.load().cpu_hour_usd,
        stepwell=__version__,
        rule=search.RULE.format(level=1 - job.alpha),
    )


def check_power(margins: Margins, num: int, alpha: float) -> None:
    """Raise DistillError where not even the parent's own answers could be shown to be within the margin."""
    if margins.right and not shown(num, margins.right, alpha):
        needed = bisect_left(range(MOST_ROWS), 1, key=lambda each: shown(each, margins.right, alpha))
        what = f"{num} prompts cannot show a margin of {margins.right:g}: it takes {needed}, or a wider margin"
        raise DistillError(f"{what}, even where no answer differs")


def shown(num: int, margin: float, alpha: float) -> bool:
    """Whether so many prompts, all answered alike, show that a share lies within the margin."""
    return num > 0 and paired.interval(0, 0, num, alpha)[0] > -margin


def model_sha256(folder: Path) -> str:
    """The name of a model: its weights, configuration and words. Raises DistillError where there are none."""
    weights, needed = list(folder.glob("*.safetensors")), (folder / "config.json", folder / "tokenizer.json")
    if not weights or not all(each.is_file() for each in needed):
        what = (
            "is no model with weights: name a Hugging Face folder, with config.json, tokenizer.json and *.safetensors"
        )
        raise DistillError(what, file=str(folder))
    files = sorted([*weights, *folder.glob("tokenizer*.json"), folder / "config.json"])
    return sha256("".join(f"{each.name} {sha256_of(each)}\n" for each in files).encode()).hexdigest()


def sealed(job: Job, plan: Plan) -> Plan:
    """Write the plan, or find the same one. Raises DistillError where another search lies there."""
    path = job.out / PLAN
    if path.is_file():
        try:
            before = msgspec.json.decode(path.read_bytes(), type=Plan)
        except (UnicodeDecodeError, msgspec.DecodeError) as error:
            raise DistillError(f"is no plan of a search ({error}): name another folder", file=str(path)) from error
        if differs := search.differing(before, plan):
            what = f"holds another search ({', '.join(differs)}): name another folder, or remove this one"
            raise DistillError(what, file=str(job.out))
        return before
    if any(not each.name.startswith(LOCK) for each in job.out.iterdir()):
        raise DistillError("is not empty, and holds no search: name another folder", file=str(job.out))
    lay(path, msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n")
    return plan
