"""What a teacher has answered, by the hash of the question: nothing is paid for twice, and no budget is passed.

Before a call its highest price is written down, after it what it cost: calls in flight at the same time count as
dear as they may become, and a process killed between the two has spent the highest price, as far as anybody can know.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.alone import alone
from stepwell.errors import StepwellError, StoreError
from stepwell.types import Usage


class Budget(Struct, frozen=True):
    """What may be paid, this run and all before it; None: no limit."""

    usd: float | None = None
    calls: int | None = None


class Spent(Struct, frozen=True):
    """What was paid."""

    calls: int = 0
    usd: float = 0.0


class Kept(Struct, frozen=True):
    """An answer and what it cost."""

    body: msgspec.Raw
    usd: float
    usage: Usage | None = None


class _Line(Struct, frozen=True):
    """One line of the account: a call that begins (at most so much), or one that is over (exactly so much)."""

    key: str
    usd: float
    over: bool


class BudgetReached(StepwellError):  # noqa: N818 - an outcome, said as one
    """The next call could pass the budget; what was paid for is kept."""

    code = "budget_reached"


def key_of(body: bytes, origin: str = "") -> str:
    """The name of a question; with `origin`, of a question to one server: another one of that name says otherwise."""
    return sha256(f"{origin}\0".encode() + body if origin else body).hexdigest()


class Answers:
    """A folder of answers with its account, which several tasks and processes may use at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.account = folder / "account.jsonl"
        self.num_read_bytes = 0
        self.num_calls, self.usd = 0, 0.0
        self.open_calls: dict[str, float] = {}
        self.reading = threading.Lock()

    def get(self, key: str) -> Kept | None:
        """The answer to a question, if it was ever given. Raises StoreError where its file is damaged."""
        file = self.folder / f"{key}.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=Kept)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{file} cannot be read ({error.strerror})") from error
        except msgspec.DecodeError as error:
            raise StoreError(f"{file}: damaged ({error}); remove it, and it is asked again") from error

    def spent(self) -> Spent:
        """What was paid so far; calls that never ended at their highest price. Raises StoreError."""
        with self.reading:
            return self._read_on()

    def _read_on(self) -> Spent:
        """Add up what the account says since it was last read."""
        try:
            with self.account.open("rb") as account:
                account.seek(self.num_read_bytes)
                new = account.read()
        except FileNotFoundError:
            return Spent(self.num_calls, self.usd)
        except OSError as error:
            raise StoreError(f"{self.account} cannot be read ({error.strerror})") from error
        lines = new.split(b"\n")[:-1]  # what has no line feed was cut short before its call began
        for line in lines:
            self._add(line)
            self.num_read_bytes += len(line) + 1
        return Spent(self.num_calls, self.usd)

    def begin(self, key: str, most_usd: float, budget: Budget) -> None:
        """Write down that a call begins. Raises BudgetReached where it could pass the budget."""
        with self._alone():
            spent = self.spent()
            if budget.calls is not None and spent.calls + 1 > budget.calls:
                raise BudgetReached(
                    f"{spent.calls} calls were made, and no more than {budget.calls} may be: raise --max-calls"
                )
            if budget.usd is not None and spent.usd + most_usd > budget.usd:
                told = f"{spent.usd:.4f} USD are spent and the next call may cost {most_usd:.4f}"
                raise BudgetReached(f"{told}: that could pass {budget.usd:.4f}; raise --budget-usd")
            self._note(_Line(key, most_usd, over=False), durable=True)

    def keep(self, key: str, kept: Kept) -> None:
        """Keep an answer for good, then write down what it cost."""
        file = self.folder / f"{key}.json"
        incoming = file.with_suffix(".part")
        try:
            with incoming.open("wb") as out:
                out.write(msgspec.json.encode(kept))
                out.flush()
                os.fsync(out.fileno())
            incoming.replace(file)
        except OSError as error:
            raise StoreError(f"{file} cannot be written ({error.strerror}): its answer is lost") from error
        self.end(key, kept.usd)

    def drop(self, key: str) -> None:
        """Forget an answer, so that it is asked for anew; what it cost is not forgotten."""
        (self.folder / f"{key}.json").unlink(missing_ok=True)

    def end(self, key: str, usd: float) -> None:
        """Write down what a call cost; 0 for one that was refused and never answered."""
        with self._alone():
            self._note(_Line(key, usd, over=True))  # lost, it counts at its highest price

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one at the account. Raises StoreError where it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.account):
                yield
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{self.folder} cannot be written ({error}): nothing is asked without an account"
            ) from error

    def _add(self, line: bytes) -> None:
        try:
            entry = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError as error:
            what = f"{self.account}: damaged ({error}): what was paid is not known; mend or remove the line"
            raise StoreError(what) from error
        self.usd += entry.usd - (self.open_calls.pop(entry.key, 0.0) if entry.over else 0.0)
        self.num_calls += not entry.over
        if not entry.over:
            self.open_calls[entry.key] = entry.usd

    def _note(self, line: _Line, *, durable: bool = False) -> None:
        """Add a line; half a line that a killed process left behind goes first."""
        with self.account.open("ab+") as account:
            end = account.seek(0, os.SEEK_END)
            if end:
                account.seek(end - 1)
                if account.read(1) != b"\n":
                    account.seek(0)
                    account.truncate(account.read().rfind(b"\n") + 1)
            account.write(msgspec.json.encode(line) + b"\n")
            account.flush()
            if durable:
                os.fsync(account.fileno())
