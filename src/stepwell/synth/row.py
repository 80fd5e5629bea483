"""One example to learn from, with all that is known of where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from stepwell.errors import StoreError
from stepwell.store import tables

Source = Literal["captured", "seed", "human", "sampled", "recombined", "grown"]
REAL = frozenset({"captured", "seed", "human"})
"""Sources whose prompts people wrote; the others are synthetic."""
ID_CHARS = 16


class Message(Struct, frozen=True):
    """One turn of a talk."""

    role: str
    content: str


class Row(Struct, frozen=True, kw_only=True):
    """An example. The columns are named as TRL names them; on disk see `store/tables.py`."""

    id: str
    prompt: str
    completion: str
    messages: tuple[Message, ...] = ()
    slots: dict[str, Any] = {}
    """What the completion is to say."""
    split: str = "train"
    source: Source
    licence: str
    generator: str = ""
    """Who wrote the completion: a model's name, or "" for a person."""
    generator_rev: str = ""
    params: dict[str, Any] = {}
    """How the generator was asked: temperature, max_tokens."""
    seed: int = 0
    prompt_hash: str
    """SHA-256 of the prompt."""
    parents: tuple[str, ...] = ()
    """The ids of the rows that it was made from."""
    generation: int = 0
    """0: people's own texts and traffic; otherwise one more than the highest of its parents."""
    filters: dict[str, str] = {}
    """What each filter said, by its name."""
    usd: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def is_real(self) -> bool:
        """Whether it comes from people."""
        return self.source in REAL


def hashed(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return sha256(text.encode()).hexdigest()


def made(prompt: str, completion: str, *, source: Source, licence: str, **known: Any) -> Row:  # noqa: ANN401 - Row's fields
    """A row with its id, its prompt's hash, and the talk of two turns where no other is given."""
    id_ = sha256(b"\0".join(each.encode() for each in (source, prompt, completion))).hexdigest()[:ID_CHARS]
    talk = (Message("user", prompt), Message("assistant", completion))
    fields = {"id": id_, "messages": talk, "prompt_hash": hashed(prompt), **known}
    return Row(prompt=prompt, completion=completion, source=source, licence=licence, **fields)


def lacks(row: Row) -> list[str]:
    """What of a row's provenance is missing or contradicts itself; empty: all is there."""
    synthetic = not row.is_real
    checks: Mapping[str, bool] = {
        "id": bool(row.id),
        "licence": bool(row.licence),
        "prompt_hash": row.prompt_hash == hashed(row.prompt),
        "generator": bool(row.generator) or row.source in {"seed", "human"} or not row.completion,
        "generator_rev": bool(row.generator_rev) or not row.generator,
        "params": bool(row.params) or not synthetic,
        "parents": bool(row.parents) or row.source not in {"recombined", "grown"},
        "generation": (row.generation > 0) == synthetic,
        "usd": row.usd >= 0,
    }
    return [name for name, there in checks.items() if not there]


def read(path: Path) -> Iterator[Row]:
    """The rows of a table. Raises StoreError with the row and field at fault."""
    for number, record in enumerate(tables.read(path), 1):
        try:
            yield msgspec.convert({name: value for name, value in record.items() if value is not None}, Row)
        except msgspec.ValidationError as error:
            raise StoreError(f"{path}: row {number}: {error}") from error


def write(path: Path, rows: Iterable[Row], *, shard_rows: int = tables.SHARD_ROWS) -> list[Path]:
    """Write rows to a .jsonl file or a new folder of shards. Raises StoreError."""
    return tables.write(path, map(msgspec.to_builtins, rows), shard_rows=shard_rows, like=Row)
