"""OpenAI's lists: pages of what comes after an id, and whether there is more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from stepwell.errors import BadRequest

MOST_DIGITS = 9
"""Of a limit."""


class Window(Struct, frozen=True):
    """Which part of a list is wanted."""

    after: str
    limit: int
    ascending: bool

    @property
    def sign(self) -> str:
        """How numbers of later rows compare with the one of `after`, in SQL."""
        return ">" if self.ascending else "<"

    @property
    def order(self) -> str:
        """In SQL."""
        return "ASC" if self.ascending else "DESC"


def window(query: Mapping[str, str], *, limit: int, most: int, ascending: bool) -> Window:
    """Read `after`, `limit` and `order`. Raises BadRequest."""
    told = query.get("limit", str(limit))
    if not told.isascii() or not told.isdigit() or len(told) > MOST_DIGITS or not 1 <= int(told) <= most:
        raise BadRequest(f"must be a number from 1 to {most}", param="limit")
    order = query.get("order", "asc" if ascending else "desc")
    if order not in {"asc", "desc"}:
        raise BadRequest('must be "asc" or "desc"', param="order")
    return Window(query.get("after", ""), int(told), order == "asc")


def metadata(query: Mapping[str, str]) -> dict[str, str]:
    """Read `metadata[name]=value`."""
    begins = "metadata["
    return {
        name[len(begins) : -1]: value for name, value in query.items() if name.startswith(begins) and name.endswith("]")
    }


def listed(found: Sequence[Mapping[str, Any]], wanted: Window) -> dict[str, Any]:
    """One page of a list; `found` may hold one more than is wanted, which tells that there is more."""
    data = found[: wanted.limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > wanted.limit,
    }
