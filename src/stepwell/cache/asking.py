"""One question on its way into the search by meaning, with what its caller will take."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from stepwell.cache.coalesce import Flight, Flights
from stepwell.cache.key import Identity
from stepwell.cache.rows import AnswerRow
from stepwell.types import Request


class Asking(Struct, frozen=True):
    """A request, and the rules of its route and caller about what may be given to it."""

    request: Request
    identity: Identity
    flights: Flights
    """Questions that are being answered right now."""
    takes: Callable[[AnswerRow], bool]
    """Whether a kept answer is fresh enough, and depends on all that this caller's answers depend on."""
    joins: Callable[[Flight], bool]
    """The same of an answer that is being made."""
