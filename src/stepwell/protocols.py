"""The seams: where one part can take another's place. Nothing else belongs here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from stepwell.types import Chunk, Defer, Outcome, Proposal, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Step(Protocol):
    """A stair: proposes an answer with its evidence, or defers with a reason."""

    @property
    def name(self) -> str: ...

    async def propose(self, request: Request) -> Proposal | Defer: ...


Descent = Callable[[], Coroutine[Any, Any, Outcome]]
"""Begins to ask the steps below."""
Onward = Callable[[Descent], Awaitable[Outcome]]
"""Sees to the rest of a descent in the place of `descend`; given back in `Defer.onward` and `Proposal.onward`."""


class Chunks(Protocol):
    """A reply on its way."""

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    def __anext__(self) -> Awaitable[Chunk]: ...

    def aclose(self) -> Awaitable[None]:
        """Want no more of it: the engine stops generating."""
        ...


Take = Callable[[bytes], bool]
"""Takes words at once, or leaves them to whoever iterates."""


@runtime_checkable
class Direct(Protocol):
    """What Chunks may be, too: able to give words away in the very call that brings them, without an iteration."""

    def direct(self, take: Take) -> None:
        """Offer words to `take` from now on; what it leaves, and whatever is more than words, is iterated, in order."""
        ...


class Engine(Protocol):
    """Something that generates."""

    @property
    def name(self) -> str: ...

    def generate(self, request: Request) -> Chunks:
        """Yield the reply: one chunk for a JSON request, many for a stream; the last one has `last` set.

        Raises EngineError before the first chunk where nothing was generated, later where the reply broke off.
        It is awaited outside of any task (`drive.py`): what needs one (timeouts, task groups) makes its own.
        """
        ...

    async def close(self) -> None:
        """Give back connections, threads and memory."""
        ...


class Embedder(Protocol):
    """Something that turns texts into vectors whose cosine says how near their meanings are."""

    @property
    def name(self) -> str:
        """Model and version: vectors of two names are never compared."""
        ...

    @property
    def num_dimensions(self) -> int: ...

    def reads(self, text: str) -> bool:
        """Whether all of a text counts: two that differ only behind the limit would look the same."""
        ...

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, shape (texts, num_dimensions). Raises EngineError."""
        ...

    async def close(self) -> None: ...


class Store(Protocol):
    """Bytes by key, leases and logs, which several processes may share. Times are seconds since 1970.

    Every call but `close` may raise StoreError, within a bounded time: whoever asked then goes on as if it were empty.
    """

    @property
    def name(self) -> str: ...

    async def get(self, key: bytes) -> tuple[bytes, float] | None:
        """Value and expiry, or None where there is none or it has expired."""
        ...

    async def put(self, key: bytes, value: bytes, expires_s: float, fence: int = 0) -> None:
        """Keep a value. With a `fence` from `lease`, only where nobody was granted a later lease on `key`."""
        ...

    async def drop(self, key: bytes) -> None:
        """Forget a value, if it is there."""
        ...

    async def lease(self, key: bytes, ttl_s: float) -> int | None:
        """Be the only one at `key` for `ttl_s`: a fencing number above every earlier one (Kleppmann), or None."""
        ...

    async def release(self, key: bytes, fence: int) -> None:
        """End a lease early; one that has passed to another is left alone."""
        ...

    async def append(self, log: bytes, row: bytes, expires_s: float) -> None:
        """Add a row to the end of a log, durable within the store's flush interval."""
        ...

    async def since(self, log: bytes, position: int, limit: int) -> list[tuple[int, bytes]]:
        """Up to `limit` rows behind `position`, oldest first, each with its position; expired ones are left out.

        No row ever appears in front of one that was read.
        """
        ...

    async def close(self) -> None: ...
