"""Files beside their parent, all in the real engine: how far they moved, what they answer, and what that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

from msgspec import Struct

from stepwell.campaigns import quantize_score
from stepwell.campaigns.quantize_engine import one_after_the_other
from stepwell.campaigns.quantize_score import Settings
from stepwell.campaigns.quantize_task import BLEU, Row, Task
from stepwell.campaigns.served import served
from stepwell.config import EmbeddedEngine
from stepwell.distill import student
from stepwell.engines.embedded import Embedded
from stepwell.errors import DistillError
from stepwell.quantize.engine_divergence import Spoken, ratio, spoken
from stepwell.quantize.export import to_gguf
from stepwell.quantize.frontier import Difference
from stepwell.quantize.search import RIGHT_MARGIN, Margins

ROUNDS = 7
"""The smallest and the largest of seven hold the median between them with 98 %."""
NUM_TIMED = 4
"""Prompts of a round."""
ALPHA = 0.025
"""Beyond each end of an interval."""
RESAMPLES = 2000
USUAL_BLEU = 0.5
"""Margins that p-values are of; nothing is decided here."""
Any_ = TypeVar("Any_")
Watch = Callable[[int, int, str], None]


class Interval(Struct, frozen=True):
    """A figure and the ends of its interval."""

    value: float
    low: float
    high: float


class Compared(Struct, frozen=True, kw_only=True):
    """One file."""

    file: str
    num_bytes: int
    kl: float
    """To the parent in 32 bits, nats a token of the rows' completions."""
    kl_error: float
    kl_ratio: Interval
    """To the first file's, the same texts paired; 95 %."""
    top1: float
    """Share of tokens that both think likeliest."""
    scores: tuple[Difference, ...]
    """Beside the answers of the parent's 16-bit file; each bound is passed with 2.5 %."""
    tokens_per_s: Interval
    """Tokens written a CPU second, one answer at a time: median, smallest and largest of the rounds."""


def compared(
    files: Sequence[Path], folder: Path, asked: tuple[Task, Sequence[Row]], watch: Watch = lambda *_: None
) -> tuple[Compared, ...]:
    """Every file, in the order given, on some of a task's rows.

    Raises DistillError for a file that is missing or that the engine cannot run.
    """
    for file in files:
        if not file.is_file():
            raise DistillError("there is no such file: name GGUF files", file=str(file))
    task, rows = asked
    with TemporaryDirectory(prefix="stepwell-") as place:
        held = parent(folder.resolve(), Path(place), rows)
        moved = told("divergence", files, held.spoken.diverges, watch)
        first, *others = told("answers", (held.file, *files), partial(answers, asked), watch)
    scores = [quantize_score.compared(rows, each, first, settings(task, rows)) for each in others]
    paces = asyncio.run(timed(files, [row.prompt for row in rows[:NUM_TIMED]], task.max_tokens, watch))
    both = zip(files, moved, scores, paces, strict=True)
    return tuple(
        Compared(
            file=str(file),
            num_bytes=file.stat().st_size,
            kl=far.kl,
            kl_error=far.error,
            kl_ratio=Interval(*ratio(far, moved[0])),
            top1=far.top1,
            scores=gaps,
            tokens_per_s=pace,
        )
        for file, far, gaps, pace in both
    )


@dataclass(frozen=True)
class Parent:
    """What files are compared with."""

    spoken: Spoken
    """In torch, 32 bits."""
    file: Path
    """Its 16-bit file, which answers."""


def parent(folder: Path, place: Path, rows: Sequence[Row]) -> Parent:
    """Load it, let it speak, write it. Raises DistillError."""
    model = student.load(folder)
    texts = [(model.prompt_ids(row.prompt), model.text_ids(row.completion)) for row in rows]
    return Parent(spoken(model, texts), to_gguf(folder, place / "parent.gguf", "F16"))


def settings(task: Task, rows: Sequence[Row]) -> Settings:
    """What is compared: BLEU and, where facts can be checked, the share of answers that say them; or right answers."""
    by_bleu = task.scorer == BLEU
    right = RIGHT_MARGIN if not by_bleu or quantize_score.facts(rows) else 0.0
    return Settings(task.scorer, Margins(USUAL_BLEU if by_bleu else 0.0, right), ALPHA, RESAMPLES, 0)


def answers(asked: tuple[Task, Sequence[Row]], file: Path) -> list[str]:
    """What a file says to the rows' prompts, greedily."""
    task, rows = asked
    return served(file, [row.prompt for row in rows], max_tokens=task.max_tokens, watch=lambda _: None).texts


def told(what: str, files: Sequence[Path], ask: Callable[[Path], Any_], watch: Watch) -> list[Any_]:
    """What each file gives, saying which one is at work."""
    found = []
    for at, file in enumerate(files):
        watch(at, len(files), f"{what} {file.stem}")
        found.append(ask(file))
    return found


async def timed(files: Sequence[Path], prompts: Sequence[str], max_tokens: int, watch: Watch) -> list[Interval]:
    """Tokens a CPU second, one answer at a time, files taking turns."""
    seen: list[list[float]] = [[] for _ in files]
    async with AsyncExitStack() as stack:
        engines = [Embedded(file.stem, EmbeddedEngine(path=str(file), threads=1, slots=1)) for file in files]
        for engine in engines:
            stack.push_async_callback(engine.close)
        for turn in range(ROUNDS + 1):  # the first is to warm up
            watch(turn, ROUNDS + 1, "speed")
            for engine, paces in zip(engines, seen, strict=True):
                token_s = await one_after_the_other(engine, prompts, max_tokens)
                paces.extend([1 / token_s] * bool(turn))
    return [Interval(median(paces), min(paces), max(paces)) for paces in seen]
