"""`[interact]` of a recipe, and what a round leaves behind; free of torch, so that a recipe is read anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from stepwell.distill.plan import Plan
from stepwell.store import tables
from stepwell.toml import Section

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
PRACTICE, REPAIRED, APART, LESSONS, RESULT = (
    f"{name}.jsonl" for name in ("practice", "repaired", "apart", "lessons", "round")
)
"""A round's files, in the order in which they are written; the last one says that it is over."""
AnyStruct = TypeVar("AnyStruct", bound=Struct)


class InteractSection(Section, frozen=True):
    """`[interact]`: which skill is new, which are old, and how far to go."""

    prompts: str
    """Rows whose prompts ask for the new skill; nothing else of them is read."""
    old: str
    """Rows of the old skills, as the student learned them: some are replayed in every round."""
    held_new: str
    held_old: str
    """Rows whose prompts measure the new and the old skill; never learned from."""
    verifier: str = "slots"
    critique: Literal["auto", "teacher", "verifier"] = "auto"
    """Who says what is wrong. teacher: one that can talk rewrites the answer; verifier: its complaints are all, and the
    teacher answers the prompt itself. auto: a server can talk, a model of one's own cannot."""
    rounds: Count = 6
    practice: Count = 400
    """Prompts that the student answers in a round."""
    repairs: Count = 100
    """Wrong answers that the teacher is shown in a round, at most."""
    tries: Count = 2
    """How often the teacher may try one answer."""
    share_random: Share = 0.2
    """Share of the prompts that are drawn at random, not by difficulty."""
    share_old: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    """Share of old rows among what a round learns from."""
    swaps: Annotated[int, Meta(ge=0)] = 4
    """Examples that are made of each right answer by swapping values; they cost no call."""
    preference: Annotated[float, Meta(ge=0)] = 0.0
    """Steps of learning to prefer the repaired to the wrong answer, as a share of `train.steps`; 0: none."""
    beta: Annotated[float, Meta(gt=0)] = 0.1
    """How near the preference keeps the student to what it was."""
    goal: Share = 0.95
    """Share of the held-out new prompts answered right at which to stop."""
    max_loss: Share = 0.01
    """How much of the old skill may be lost, as a share of the held-out old prompts."""
    train: Plan = Plan(steps=200, warm_steps=20)
    """`[interact.train]`: how one round learns."""
    licence: str = "as the prompts"
    seed: int = 0


class Try(Struct, frozen=True):
    """The student's answer to a prompt, and what the verifier says of it."""

    prompt: str
    answer: str
    complaints: tuple[str, ...]


class Round(Struct, frozen=True, kw_only=True):
    """One round that is over; number 0 is the student as it came."""

    number: int
    new: float
    """Share of the held-out new prompts answered right."""
    old: float
    student: str
    """The folder of its student."""
    num_practised: int = 0
    num_failed: int = 0
    num_repaired: int = 0
    num_apart: int = 0
    num_lessons: int = 0
    calls: int = 0
    """Teacher calls so far."""
    usd: float = 0.0


class Interaction(Struct, frozen=True):
    """How it ended: all rounds, the one whose student is kept, and why there was no further one."""

    rounds: tuple[Round, ...]
    best: Round
    reason: str


FORGIVEN = 1
"""After so many rounds that lose too much of the old skill another may win it back: a new one first shakes it."""


def share_old(rounds: Sequence[Round], section: InteractSection) -> float:
    """Share of old rows in the next round: half of the way to all of them where the last one lost too much."""
    lost = rounds[-1].old < rounds[0].old - section.max_loss
    return (1 + section.share_old) / 2 if lost else section.share_old


def best_of(rounds: Sequence[Round], max_loss: float) -> Round:
    """The round with the most new skill among those that have kept the old one."""
    kept = [each for each in rounds if each.old >= rounds[0].old - max_loss]
    return max(kept, key=lambda each: (each.new, each.old))


def ended(rounds: Sequence[Round], section: InteractSection) -> str:
    """Why no further round is wanted; "" where one is."""
    last, first = rounds[-1], rounds[0]
    lost = [each.old < first.old - section.max_loss for each in rounds[-FORGIVEN - 1 :]]
    if len(rounds) > FORGIVEN + 1 and all(lost):
        return f"the old skill fell from {first.old:.1%} to {last.old:.1%}"
    if last.new >= section.goal and not lost[-1]:
        return f"the new skill has reached its goal: {last.new:.1%}"
    return f"{last.number} rounds are over" if last.number >= section.rounds else ""


def write(file: Path, values: Iterable[Struct]) -> None:
    """Write values as a whole."""
    tables.write(file, map(as_record, values))


def kept(file: Path, kind: type[AnyStruct], make: Callable[[], Iterable[AnyStruct]]) -> list[AnyStruct]:
    """The values in a file; made, and written whole, where it is not there yet."""
    if not file.exists():
        write(file, make())
    return read(file, kind)


def read(file: Path, kind: type[AnyStruct]) -> list[AnyStruct]:
    """The values in a file."""
    return [msgspec.convert(row, kind) for row in tables.read(file)]


def as_record(value: Struct) -> dict[str, Any]:
    """A value as a row."""
    record: dict[str, Any] = msgspec.to_builtins(value)
    return record
