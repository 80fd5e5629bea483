"""The Date header, made once a second."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from time import time


def http_date() -> bytes:
    """Now, in the words of RFC 9110."""
    return dated(int(time()))


@lru_cache(maxsize=2)
def dated(second: int) -> bytes:
    """One second, in the words of RFC 9110."""
    return formatdate(second, usegmt=True).encode()
