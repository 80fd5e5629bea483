"""Wordings on their way into the index: each waits until it is known whose answer it leads to.

A question that went down has a fresh answer of its own. Where a judge says that the answer proposed before was as good,
its wording becomes one more key of that answer: so answers gather wordings, and the metric has something to learn from.
"""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from stepwell.cache.key import Identity
from stepwell.index.rows import KeyAdded
from stepwell.index.vectors import Vector, packed

MOST_WAITING = 10_000
"""Questions in flight or before the judge; the oldest go first, and are not found by meaning."""


class Waiting(Struct):
    """One wording. What is not known yet is None, or empty."""

    identity: Identity
    vector: Vector
    candidate: bytes
    """The answer that was proposed; empty where none was."""
    fresh: bytes = b""
    expires_s: float = 0.0
    judged: bool = False
    right: bool = False


class Wordings:
    """Wordings by exact digest. `embedder`: the tag of the one that made their vectors, see `index.rows.tag_of`."""

    def __init__(self, embedder: str) -> None:
        self.embedder = embedder
        self.waiting: OrderedDict[bytes, Waiting] = OrderedDict()

    def asked(self, identity: Identity, vector: Vector, candidate: bytes) -> None:
        """A question goes on, with a candidate or without."""
        self.waiting[identity.exact] = Waiting(identity, vector, candidate)
        while len(self.waiting) > MOST_WAITING:
            self.waiting.popitem(last=False)

    def answered(self, exact: bytes, answer: bytes, expires_s: float) -> KeyAdded | None:
        """Its fresh answer was kept: a key, where nothing is left to wait for."""
        one = self.waiting.get(exact)
        if one is None:
            return None
        one.fresh, one.expires_s = answer, expires_s
        return self.ready(exact, one)

    def renamed(self, exact: bytes, old: bytes, new: bytes) -> None:
        """The answer that was proposed to a question was made anew by asking that very question."""
        one = self.waiting.get(exact)
        if one is not None and old and one.candidate == old:
            one.candidate = new

    def judged(self, exact: bytes, *, right: bool) -> KeyAdded | None:
        """Its candidate was judged, or could not be (`right` False): a key, where nothing is left to wait for."""
        one = self.waiting.get(exact)
        if one is None:
            return None
        one.judged, one.right = True, right
        return self.ready(exact, one)

    def forget(self, exact: bytes) -> None:
        """It was answered from here: nothing is known that was not known before."""
        self.waiting.pop(exact, None)

    def ready(self, exact: bytes, one: Waiting) -> KeyAdded | None:
        """The key, once the fresh answer is there and the candidate, if any, was judged."""
        if not one.fresh or (one.candidate and not one.judged):
            return None
        del self.waiting[exact]
        return KeyAdded(
            exact=exact,
            partition=one.identity.partition,
            answer=one.candidate if one.right and one.candidate else one.fresh,
            text=one.identity.text,
            vector=packed(one.vector).tobytes(),
            embedder=self.embedder,
            principal=one.identity.principal,
            expires_s=one.expires_s,
        )
