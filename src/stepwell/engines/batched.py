"""Many questions to a teacher at once, over its batch interface; one that was begun is fetched, not begun anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.engines.answers import Answers, Budget, BudgetReached, Kept, key_of
from stepwell.engines.asking import Teacher
from stepwell.engines.batches import Batches
from stepwell.types import Usage


class Open(Struct, frozen=True):
    """A batch on its way."""

    id: str
    sizes: dict[str, int]
    """Bytes of each question, by name."""


class Told(Struct):
    """What a reply says of its tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Reply(Struct):
    """The part of a reply that matters here."""

    usage: Told | None = None


def batched(teacher: Teacher, bodies: Sequence[bytes], answers: Answers, budget: Budget) -> None:
    """Keep the answers to all questions that have none and that the budget allows. Raises EngineError.

    A teacher without a batch interface is not asked.
    """
    server = teacher.batches
    if server is None:
        return
    file = answers.folder / "batch.json"
    if file.exists():
        collect(server, teacher, msgspec.json.decode(file.read_bytes(), type=Open), answers, file)
    asked: dict[str, bytes] = {}
    for body in dict.fromkeys(bodies):
        key = key_of(body)
        if answers.get(key) is None:
            try:
                answers.begin(key, teacher.most_usd(len(body)), budget)
            except BudgetReached:
                break  # whoever needs the answer is told
            asked[key] = body
    if asked:
        begun = Open(server.submit(asked), {key: len(body) for key, body in asked.items()})
        answers.folder.mkdir(parents=True, exist_ok=True)
        incoming = file.with_suffix(".part")
        incoming.write_bytes(msgspec.json.encode(begun))
        incoming.replace(file)
        collect(server, teacher, begun, answers, file)


def collect(server: Batches, teacher: Teacher, begun: Open, answers: Answers, file: Path) -> None:
    """Wait for a batch and keep what it answered."""
    for key, body in server.fetch(begun.id).items():
        if answers.get(key) is None and key in begun.sizes:
            told = msgspec.json.decode(body, type=Reply).usage
            usage = (
                Usage(told.prompt_tokens, told.completion_tokens)
                if told
                else Usage(begun.sizes[key], teacher.max_output_tokens)
            )
            answers.keep(key, Kept(msgspec.Raw(body), teacher.usd_of(usage), usage))
    file.unlink()
