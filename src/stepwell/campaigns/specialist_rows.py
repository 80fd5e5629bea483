"""The stages of a specialist that bring rows: what is held out, what is made, what stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from stepwell.campaigns.run import Folders, Stage
from stepwell.campaigns.specialist_file import Recipe
from stepwell.campaigns.specialist_job import FILTER, SPLIT, SYNTH, Job, paying
from stepwell.errors import ConfigError, DistillError
from stepwell.quality.judge import Embed
from stepwell.quality.judges import source_of
from stepwell.store import tables
from stepwell.synth import recipe as synths
from stepwell.synth import row, run, slots, sources
from stepwell.synth.generator import Paid, opened
from stepwell.synth.recipe import Captured, Filters, Seeds, Synth, Table
from stepwell.synth.row import Row
from stepwell.synth.sift import Tools
from stepwell.toml import placed

CAPTURED, SEEDS, HELD_OUT, PROMPTS = "captured.jsonl", "seeds.jsonl", "held_out.jsonl", "held_out_prompts.jsonl"
BYTES = 8

PLAIN = Filters(near=0.0, words=(1, 1_000_000))
"""For rows that are simply given: none is taken out but repetitions, refusals and what is held out."""


def stages(job: Job) -> list[Stage]:
    """`split`, `synth` and `filter`. Raises DistillError and StoreError where files are missing."""
    recipe = job.recipe
    synth = section_of(recipe)
    check_captured(synth)
    whole = synths.Recipe(synth, recipe.source.parent)
    tools = tools_of(job, whole)

    def split(_: Folders, out: Path) -> None:
        halve(recipe, whole, out)

    def make(before: Folders, out: Path) -> None:
        with paying(job, out):
            run.made(learning(whole, before[SPLIT]), out, tools.open)

    def sift(before: Folders, out: Path) -> None:
        with paying(job, out):
            run.sifted(learning(whole, before[SPLIT]), before[SYNTH] / run.RAW, out, tools)

    making = run.making(whole)
    return [
        Stage(SPLIT, msgspec.json.encode(recipe.file.split) + making, split),
        Stage(SYNTH, making, make),
        Stage(FILTER, run.sifting(whole) + yours(whole.synth.filters), sift),
    ]


def yours(filters: Filters) -> bytes:
    """The text of your own functions that filter: where they change, rows are filtered anew."""
    judges = [("judge", name) for name in filters.judge.split("+")]
    named = [("verify", filters.verify), ("round_trip", filters.round_trip), *judges]
    return b"".join(source_of(name.strip(), field=f"synth.filters.{field}") for field, name in named)


def tools_of(job: Job, whole: synths.Recipe) -> Tools:
    """The generator within the job's budget, and the embedder, each opened where a filter needs it."""

    def watch(done: int, num: int, usd: float) -> None:
        job.allowed.progress(done, num, f"{usd:.4f} USD" if usd else "")

    def embed() -> Embed:
        from stepwell.engines.embed import MiniLm  # noqa: PLC0415 - the extra `cache`

        return MiniLm(None, job.root / "embedder").embed

    def open_() -> Paid:
        return opened(whole, job.answers, job.allowed.budget, watch, i_may=job.allowed.i_may)

    return Tools(open_ if whole.synth.generator else None, embed)


def section_of(recipe: Recipe) -> Synth:
    """`[synth]` with its paths found, or the rows that `[train]` names as seeds. Raises ConfigError for both."""
    file = recipe.file
    if file.synth is not None and file.train.data:
        what = "is not learned from where there is [synth]: name these rows as paths in [synth.seeds], or take one out"
        raise placed(ConfigError(what, field="train.data"), recipe.source)
    synth = file.synth or Synth(
        seeds=Seeds(paths=(file.train.data,), licence=file.export.licence), filters=PLAIN, real_floor=0.0
    )
    generator = synth.generator
    if generator and generator.path:
        generator = replace(generator, path=str(recipe.path(generator.path)))
    return replace(
        synth,
        seeds=synth.seeds and replace(synth.seeds, paths=found(recipe, synth.seeds.paths)),
        captured=synth.captured and replace(synth.captured, paths=found(recipe, synth.captured.paths)),
        held_out=tuple(replace(each, paths=found(recipe, each.paths)) for each in synth.held_out),
        generator=generator,
    )


def found(recipe: Recipe, paths: Iterable[str]) -> tuple[str, ...]:
    """Where files are."""
    return tuple(str(recipe.path(path).absolute()) for path in paths)


def check_captured(synth: Synth) -> None:
    """Raise DistillError where nothing was captured yet."""
    for path in synth.captured.paths if synth.captured else ():
        if not Path(path).exists():
            what = "no captured traffic is here yet: serve with [capture] in stepwell.toml"
            raise DistillError(f"{what} (the city guide's is written by `stepwell demo`: run it first)", file=path)


# --- what is held out


def halve(recipe: Recipe, whole: synths.Recipe, out: Path) -> None:
    """Write the rows to learn from, and those that the gate will judge by."""
    synth = whole.synth
    captured = sources.captured(whole, synth.captured) if synth.captured else []
    seeds = sources.seeds(whole, synth.seeds) if synth.seeds else []
    if not captured and not seeds and not (synth.sampled or synth.grown):
        raise DistillError("there is not one row to learn from", file=str(recipe.source))
    share = recipe.file.split.held_out if recipe.file.gate and not synth.held_out else 0.0
    held = [each for each in captured or seeds if chance(each, "held out") < share]
    learned = {prompt_key(each) for each in held}
    row.write(out / CAPTURED, (each for each in captured if prompt_key(each) not in learned))
    row.write(out / SEEDS, (each for each in seeds if prompt_key(each) not in learned))
    held += given(whole)
    row.write(out / HELD_OUT, (replace(each, split="held_out") for each in held))
    tables.write(out / PROMPTS, ({"prompt": each.prompt} for each in held))


def chance(each: Row, what: str) -> float:
    """A number from 0 to 1 that hangs on the prompt alone: the same prompts are chosen in every run."""
    digest = sha256(f"{what}\0{prompt_key(each)}".encode()).digest()
    return float(int.from_bytes(digest[:BYTES]) / 256**BYTES)


def prompt_key(each: Row) -> str:
    """The same for prompts that ask the same."""
    return slots.facts_key(each.prompt) or " ".join(each.prompt.casefold().split())


def given(whole: synths.Recipe) -> list[Row]:
    """The rows of the evaluation sets that the recipe names."""
    return [row.made(prompt, text, source="human", licence="") for prompt, text in sources.held_out(whole)]


def learning(whole: synths.Recipe, split: Path) -> synths.Recipe:
    """The recipe as it is run: without what is held out, of which not even the facts may come back.

    Of the recipe's own traffic the held-out texts are no leak: the teacher says alike what is alike.
    """
    synth = whole.synth
    held = (*synth.held_out, Table(paths=(str(split / PROMPTS),))) if has_rows(split / PROMPTS) else synth.held_out
    captured, seeds = synth.captured, synth.seeds
    return replace(
        whole,
        synth=replace(
            synth,
            captured=captured and Captured(paths=(str(split / CAPTURED),), rows=captured.rows),
            seeds=seeds and Seeds(paths=(str(split / SEEDS),), licence=seeds.licence, rows=seeds.rows),
            held_out=held,
        ),
    )


def has_rows(file: Path) -> bool:
    """Whether a table has any row."""
    return file.stat().st_size > 0


# --- what came of it


class Counted(Struct, frozen=True):
    """What the stages brought."""

    sources: dict[str, int]
    licences: dict[str, int]
    refused: dict[str, int]


def counted(rows: Sequence[Row], folder: Path) -> Counted:
    """Rows by source and licence, and deaths by filter."""
    funnel = run.reread(folder).funnel
    return Counted(
        counts(each.source for each in rows),
        counts(each.licence for each in rows),
        {each.filter: each.died for each in funnel if each.died},
    )


def counts(names: Iterable[str]) -> dict[str, int]:
    """How often each."""
    found_: dict[str, int] = {}
    for name in names:
        found_[name] = found_.get(name, 0) + 1
    return found_
