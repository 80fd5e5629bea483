"""What may be filled in: typed slots, and which of them may be blank, by channel and locale."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Kind = Literal["choice", "number", "money", "date", "entity", "text"]
Missing = Literal["skip", "default", "variant"]
Channel = Literal["push", "subject", "page"]

MAX_CHARS: dict[Channel, int] = {"push": 178, "subject": 78, "page": 2000}
"""Longest text by channel: what phones show of a push message, what RFC 5322 advises for a line, a page's paragraph."""
MAX_VALUE_CHARS = 200
"""Longest value where a slot does not say."""

Value = str | int | float
Values = dict[str, Value]
"""One reader's values by slot; a form of an entity is a slot of its own with a dotted name (`team.genitive`)."""


class Slot(Struct, frozen=True, kw_only=True):
    """One fact that a text may speak of."""

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    """choice: all of them. entity: those known when the templates are checked (examples, where there will be more)."""
    forms: tuple[str, ...] = ()
    """entity: its further forms (a case, an article, a gender); the form `f` of slot `s` is the slot `s.f`."""
    form_values: dict[str, dict[str, str]] = {}
    """entity: value → form → text, for the check and for readers who give only the value."""
    low: float | str = 0
    high: float | str = 0
    """number, money: the range. date: first and last day, YYYY-MM-DD."""
    decimals: int = 0
    currency: str = ""
    """money: ISO 4217."""
    max_chars: int = MAX_VALUE_CHARS
    blank: bool = True
    """May be filled in. Where it may not (a choice), each value has its own texts: the slot is only selected by."""
    optional: bool = False
    """A text may leave it out."""
    protected: bool = False
    """An attribute of the reader that must not change the text."""
    default: Value | None = None
    """What stands where a reader has no value (policy `default`)."""

    @property
    def untrusted(self) -> bool:
        """Written by somebody else: never part of a prompt, never in fixed text."""
        return self.kind == "text"


class Schema(Struct, frozen=True, kw_only=True):
    """What one campaign may say."""

    name: str
    slots: tuple[Slot, ...]
    locales: tuple[str, ...] = ("en",)
    channel: Channel = "push"
    missing: Missing = "skip"
    max_chars: int = 0
    """Longest text in characters; 0: the channel's."""
    banned: tuple[str, ...] = ()
    """Words that no text may hold."""
    allowed: tuple[str, ...] = ()
    """Names that fixed text may hold: the product's, the sender's. Any other is taken for an invented fact."""

    def slot(self, name: str) -> Slot | None:
        """The slot of a name, or of which the name is a form."""
        return next((slot for slot in self.slots if name == slot.name or name.partition(".")[0] == slot.name), None)

    @property
    def longest(self) -> int:
        """Most characters of a text."""
        return self.max_chars or MAX_CHARS[self.channel]
