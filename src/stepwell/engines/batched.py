"""Many questions to a teacher at once, over its batch interface; one that was begun is fetched, not begun anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.engines.answers import Answers, Budget, BudgetReached, Kept
from stepwell.engines.asking import Teacher
from stepwell.engines.batches import Batches, NothingAnswered
from stepwell.errors import EngineError, EngineRefusal
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
        with suppress(NothingAnswered):  # what it was to answer is asked anew
            collect(server, teacher, msgspec.json.decode(file.read_bytes(), type=Open), answers, file)
    asked: dict[str, bytes] = {}
    for body in dict.fromkeys(bodies):
        key = teacher.key_of(body)
        if answers.get(key) is None:
            try:
                answers.begin(key, teacher.most_usd(len(body)), budget)
            except BudgetReached:
                break  # whoever needs the answer is told
            asked[key] = body
    if asked:
        begun = Open(handed_in(server, asked, answers), {key: len(body) for key, body in asked.items()})
        answers.folder.mkdir(parents=True, exist_ok=True)
        incoming = file.with_suffix(".part")
        incoming.write_bytes(msgspec.json.encode(begun))
        incoming.replace(file)
        collect(server, teacher, begun, answers, file)


def handed_in(server: Batches, asked: Mapping[str, bytes], answers: Answers) -> str:
    """The id of a new batch. Raises EngineError, after which nothing is owed where the server surely began none."""
    uploaded = False
    try:
        file = server.upload(asked)
        uploaded = True
        return server.begin(file)
    except EngineError as error:
        if not uploaded or (isinstance(error, EngineRefusal) and error.status < 500):  # noqa: PLR2004
            unpaid(answers, asked)
        raise


def unpaid(answers: Answers, keys: Iterable[str]) -> None:
    """Write down that calls cost nothing."""
    for key in keys:
        answers.end(key, 0.0)


def collect(server: Batches, teacher: Teacher, begun: Open, answers: Answers, file: Path) -> None:
    """Wait for a batch and keep what it answered. Raises NothingAnswered, after which it is not waited for again."""
    try:
        replies = server.fetch(begun.id)
    except NothingAnswered:
        unpaid(answers, begun.sizes)
        file.unlink()
        raise
    for key, body in replies.items():
        if answers.get(key) is None and key in begun.sizes:
            told = msgspec.json.decode(body, type=Reply).usage
            usage = (
                Usage(told.prompt_tokens, told.completion_tokens)
                if told
                else Usage(begun.sizes[key], teacher.max_output_tokens)
            )
            answers.keep(key, Kept(msgspec.Raw(body), teacher.usd_of(usage), usage))
    file.unlink()
