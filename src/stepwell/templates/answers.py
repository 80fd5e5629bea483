"""What the teacher has answered, by the hash of the question: nothing is paid for twice, and no budget is passed.

Before a call its highest price is written down, after it what it cost: a process killed between the two has spent the
highest price, as far as anybody can know.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.errors import TemplateError
from stepwell.types import Usage


class Budget(Struct, frozen=True):
    """What a campaign may cost, this run and all before it; None: no limit."""

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


class BudgetReached(TemplateError):  # noqa: N818 - an outcome, said as one
    """The next call could pass the budget; what was paid for is kept."""


def key_of(body: bytes) -> str:
    """The name of a question."""
    return sha256(body).hexdigest()


class Answers(Struct, frozen=True):
    """A folder of answers with its account."""

    folder: Path

    def get(self, key: str) -> Kept | None:
        """The answer to a question, if it was ever given. Raises TemplateError where its file is damaged."""
        file = self.folder / f"{key}.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=Kept)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise TemplateError(f"damaged ({error}); remove it, and it is asked again", file=str(file)) from error

    def spent(self) -> Spent:
        """What was paid so far; calls that never ended at their highest price."""
        try:
            lines = (self.folder / "account.jsonl").read_bytes().split(b"\n")
        except FileNotFoundError:
            return Spent()
        usd, calls = 0.0, 0
        open_calls: dict[str, float] = {}
        for line in lines[:-1]:  # what has no line feed was cut short before its call began
            entry = msgspec.json.decode(line, type=_Line)
            usd += entry.usd - (open_calls.pop(entry.key, 0.0) if entry.over else 0.0)
            calls += not entry.over
            if not entry.over:
                open_calls[entry.key] = entry.usd
        return Spent(calls, usd)

    def begin(self, key: str, most_usd: float, budget: Budget) -> None:
        """Write down that a call begins. Raises BudgetReached where it could pass the budget."""
        spent = self.spent()
        if budget.calls is not None and spent.calls + 1 > budget.calls:
            raise BudgetReached(
                f"{spent.calls} calls were made, and no more than {budget.calls} may be: raise --max-calls"
            )
        if budget.usd is not None and spent.usd + most_usd > budget.usd:
            told = f"{spent.usd:.4f} USD are spent and the next call may cost {most_usd:.4f}"
            raise BudgetReached(f"{told}: that could pass {budget.usd:.4f}; raise --budget-usd")
        self._note(_Line(key, most_usd, over=False))

    def keep(self, key: str, kept: Kept) -> None:
        """Keep an answer for good, then write down what it cost."""
        file = self.folder / f"{key}.json"
        incoming = file.with_suffix(".part")
        with incoming.open("wb") as out:
            out.write(msgspec.json.encode(kept))
            out.flush()
            os.fsync(out.fileno())
        incoming.replace(file)
        self._note(_Line(key, kept.usd, over=True))

    def _note(self, line: _Line) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "account.jsonl").open("ab+") as account:
            end = account.seek(0, os.SEEK_END)
            if end:
                account.seek(end - 1)
                if account.read(1) != b"\n":
                    account.seek(0)
                    account.truncate(account.read().rfind(b"\n") + 1)
            account.write(msgspec.json.encode(line) + b"\n")
            account.flush()
            os.fsync(account.fileno())
