"""A round's lessons as rows with their provenance: repaired answers, the student's own right ones, swaps of both."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from msgspec import Struct

from stepwell.distill.critique import Repaired
from stepwell.distill.data import Example
from stepwell.distill.replay import Values, swaps
from stepwell.distill.rounds import InteractSection, Try
from stepwell.quality.verify import Verify

ID_CHARS = 16
MOST_TRIES = 4
"""How often a swap is tried for each that is wanted: not every one passes the verifier."""


class Lesson(Struct, frozen=True, kw_only=True):
    """A row to learn from; the columns are those of `synth/row.py`, with the answer that was wrong and why."""

    id: str
    prompt: str
    completion: str
    source: str
    licence: str
    generator: str
    generator_rev: str
    params: dict[str, Any]
    prompt_hash: str
    parents: tuple[str, ...] = ()
    generation: int = 1
    filters: dict[str, str] = {}
    usd: float = 0.0
    rejected: str = ""
    critique: str = ""


class Pair(NamedTuple):
    """Two answers to a prompt: the one to prefer comes first."""

    prompt: str
    chosen: str
    rejected: str


class Names(NamedTuple):
    """Who answers in a round: name and revision of the teacher, and of the student."""

    teacher: str
    student: str


def from_round(
    section: InteractSection, names: Names, tries: Sequence[Try], repaired: Sequence[Repaired]
) -> Iterator[Lesson]:
    """What one round has brought: the repaired answers, and those that were right at once."""
    for each in repaired:
        usd, said = each.told.usd, {"rejected": each.wrong.answer, "critique": each.told.critique}
        yield lesson(section, each.wrong.prompt, each.told.repaired, names.teacher, usd=usd, **said)
    for own in tries:
        if not own.complaints:
            yield lesson(section, own.prompt, own.answer, names.student)


def lesson(section: InteractSection, prompt: str, completion: str, by: str, **known: Any) -> Lesson:  # noqa: ANN401
    """A row that a model wrote and the verifier passed."""
    name, _, revision = by.partition("@")
    fields = {
        "source": "sampled",
        "licence": section.licence,
        "generator": name,
        "generator_rev": revision or "unknown",
        "params": {"temperature": 0.0},
        "filters": {section.verifier: "right"},
        **known,
    }
    return Lesson(
        id=id_of(prompt, completion), prompt=prompt, completion=completion, prompt_hash=hashed(prompt), **fields
    )


def from_swaps(
    lessons: Sequence[Lesson],
    num: int,
    values: Values,
    verify: Verify,
    *,
    held: Collection[str],
    chance: random.Random,
) -> Iterator[Lesson]:
    """Up to `num` further lessons of each by swapped values; never one about a held-out prompt."""
    seen = {each.prompt for each in lessons} | set(held)
    for parent in lessons:
        left = num
        for made in swaps(Example(parent.prompt, parent.completion), MOST_TRIES * num, values, verify, chance):
            if left and made.prompt not in seen:
                seen.add(made.prompt)
                left -= 1
                yield recombined(parent, made)


def recombined(parent: Lesson, made: Example) -> Lesson:
    """A row that was made of another."""
    return Lesson(
        id=id_of(made.prompt, made.completion),
        prompt=made.prompt,
        completion=made.completion,
        source="recombined",
        licence=parent.licence,
        generator=parent.generator,
        generator_rev=parent.generator_rev,
        params={"swap": True},
        prompt_hash=hashed(made.prompt),
        parents=(parent.id,),
        generation=parent.generation + 1,
        filters=parent.filters,
    )


def pairs_of(repaired: Sequence[Repaired]) -> list[Pair]:
    """The repaired answer is preferred to the wrong one; an empty answer teaches nothing."""
    return [Pair(each.wrong.prompt, each.told.repaired, each.wrong.answer) for each in repaired if each.wrong.answer]


def id_of(prompt: str, completion: str) -> str:
    """The name of a row."""
    return sha256(f"{prompt}\0{completion}".encode()).hexdigest()[:ID_CHARS]


def hashed(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return sha256(text.encode()).hexdigest()
