"""Many questions to the teacher at once, over its batch interface; one that was begun is fetched, not begun anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.engines.batches import Batches
from stepwell.ledger.prices import Price
from stepwell.templates.answers import Answers, Budget, BudgetReached, Kept, key_of
from stepwell.templates.prompt import MAX_OUTPUT_TOKENS
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


def most_usd(price: Price, num_bytes: int) -> float:
    """The most that a question can cost: no token is shorter than a byte, no answer longer than its limit."""
    return price.of(Usage(num_bytes, MAX_OUTPUT_TOKENS))


def batched(server: Batches, price: Price, bodies: Sequence[bytes], answers: Answers, budget: Budget) -> None:
    """Keep the answers to all questions that have none and that the budget allows. Raises EngineError."""
    file = answers.folder / "batch.json"
    if file.exists():
        collect(server, price, msgspec.json.decode(file.read_bytes(), type=Open), answers, file)
    asked: dict[str, bytes] = {}
    for body in dict.fromkeys(bodies):
        key = key_of(body)
        if answers.get(key) is None:
            try:
                answers.begin(key, most_usd(price, len(body)), budget)
            except BudgetReached:
                break  # whoever needs the answer is told
            asked[key] = body
    if asked:
        begun = Open(server.submit(asked), {key: len(body) for key, body in asked.items()})
        answers.folder.mkdir(parents=True, exist_ok=True)
        incoming = file.with_suffix(".part")
        incoming.write_bytes(msgspec.json.encode(begun))
        incoming.replace(file)
        collect(server, price, begun, answers, file)


def collect(server: Batches, price: Price, begun: Open, answers: Answers, file: Path) -> None:
    """Wait for a batch and keep what it answered."""
    for key, body in server.fetch(begun.id).items():
        if answers.get(key) is None and key in begun.sizes:
            told = msgspec.json.decode(body, type=Reply).usage
            usage = (
                Usage(told.prompt_tokens, told.completion_tokens)
                if told
                else Usage(begun.sizes[key], MAX_OUTPUT_TOKENS)
            )
            answers.keep(key, Kept(msgspec.Raw(body), price.of(usage), usage))
    file.unlink()
