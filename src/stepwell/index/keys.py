"""What belongs to each key, in columns: an object a key would weigh more than its vector."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.index.rows import KeyAdded

NAME_BYTES = 32
MOST_DEAD = 0.25
"""Share of removed keys above which the columns are written anew without them."""
NO_EXPIRY = 2**32 - 1
COLUMNS = ("numbers", "partitions", "expiries", "answers", "texts", "ends", "gone")


class Key(Struct, frozen=True, gc=False):
    """One wording that leads to an answer."""

    number: int
    partition: int
    answer: bytes
    text: str
    expires_s: float


class Keys:
    """A table in the order of key numbers, which only ascend: they are positions in the log."""

    def __init__(self) -> None:
        self.numbers = array("q")
        self.partitions = array("I")
        self.expiries = array("I")
        self.answers = bytearray()
        self.texts = bytearray()
        self.ends = array("q")
        self.gone = bytearray()
        self.num_gone = 0

    def __len__(self) -> int:
        return len(self.numbers) - self.num_gone

    def add(self, rows: Sequence[tuple[int, KeyAdded]], partitions: list[int]) -> None:
        """Add keys; their numbers ascend, from above all that are there."""
        texts = [row.text.encode("utf-8", "replace") for _, row in rows]
        self.numbers.extend([number for number, _ in rows])
        self.partitions.extend(partitions)
        self.expiries.extend([min(math.ceil(row.expires_s), NO_EXPIRY) for _, row in rows])
        self.answers += b"".join(row.answer for _, row in rows)
        self.ends.extend(accumulate(map(len, texts), initial=len(self.texts)))
        del self.ends[-len(rows) - 1]
        self.texts += b"".join(texts)
        self.gone += bytes(len(rows))

    def last(self) -> int:
        """The highest number so far, 0 in an empty table."""
        return self.numbers[-1] if self.numbers else 0

    def at(self, number: int) -> int:
        """Row of a key, or -1 where there is none."""
        row = bisect_left(self.numbers, number)
        found = row < len(self.numbers) and self.numbers[row] == number and not self.gone[row]
        return row if found else -1

    def get(self, number: int) -> Key | None:
        """A key by its number."""
        row = self.at(number)
        if row < 0:
            return None
        start = self.ends[row - 1] if row else 0
        return Key(
            number,
            self.partitions[row],
            bytes(self.answers[row * NAME_BYTES : (row + 1) * NAME_BYTES]),
            self.texts[start : self.ends[row]].decode(),
            self.expiries[row],
        )

    def remove(self, number: int) -> None:
        """Forget a key."""
        row = self.at(number)
        if row >= 0:
            self.gone[row] = 1
            self.num_gone += 1

    def answers_of(self, numbers: NDArray[np.int64]) -> list[bytes]:
        """Answers of keys that are there."""
        rows = np.searchsorted(np.frombuffer(self.numbers, np.int64), numbers)
        answers: list[bytes] = np.frombuffer(self.answers, f"V{NAME_BYTES}")[rows].tolist()
        return answers

    def of(self, answer: bytes) -> list[int]:
        """Numbers of all keys that lead to an answer."""
        names = np.frombuffer(self.answers, np.uint64).reshape(-1, NAME_BYTES // 8)
        return self.chosen((names == np.frombuffer(answer, np.uint64)).all(axis=1))

    def expired(self, now_s: float) -> list[int]:
        """Numbers of all keys whose time is over."""
        return self.chosen(np.frombuffer(self.expiries, np.uint32) <= now_s)

    def chosen(self, rows: NDArray[np.bool_]) -> list[int]:
        """Numbers of the rows that are marked and still there."""
        alive = np.frombuffer(self.gone, np.uint8) == 0
        numbers: list[int] = np.frombuffer(self.numbers, np.int64)[rows & alive].tolist()
        return numbers

    def columns(self) -> dict[str, bytes]:
        """A copy of all columns, by their names."""
        return {name: bytes(memoryview(getattr(self, name)).cast("B")) for name in COLUMNS}

    def fill(self, columns: Mapping[str, bytes]) -> None:
        """Take over columns. Raises ValueError where they are not of one length."""
        for name in COLUMNS:
            column = getattr(self, name)
            column.frombytes(columns[name]) if isinstance(column, array) else column.extend(columns[name])
        lengths = {len(each) for each in (self.numbers, self.partitions, self.expiries, self.ends, self.gone)}
        lengths.add(len(self.answers) // NAME_BYTES)
        if len(lengths) > 1 or len(self.texts) != (self.ends[-1] if self.ends else 0):
            raise ValueError("columns of several lengths")
        self.num_gone = sum(self.gone)

    def pack(self) -> None:
        """Write the columns anew, where too many rows are gone."""
        if self.num_gone <= MOST_DEAD * len(self.numbers):
            return
        kept = np.frombuffer(self.gone, np.uint8) == 0
        ends = np.frombuffer(self.ends, np.int64)
        lengths = ends - np.concatenate([[0], ends[:-1]])
        self.texts = bytearray(np.frombuffer(self.texts, np.uint8)[np.repeat(kept, lengths)].tobytes())
        self.ends = array("q", np.cumsum(lengths[kept]).tobytes())
        self.answers = bytearray(np.frombuffer(self.answers, np.uint8).reshape(-1, NAME_BYTES)[kept].tobytes())
        self.numbers = array("q", np.frombuffer(self.numbers, np.int64)[kept].tobytes())
        self.partitions = array("I", np.frombuffer(self.partitions, np.uint32)[kept].tobytes())
        self.expiries = array("I", np.frombuffer(self.expiries, np.uint32)[kept].tobytes())
        self.gone = bytearray(len(self.numbers))
        self.num_gone = 0
