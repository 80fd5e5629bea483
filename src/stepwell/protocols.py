"""The seams: where one part can take another's place. Nothing else belongs here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from stepwell.types import Chunk, Defer, Proposal, Request


class Step(Protocol):
    """A stair: proposes an answer with its evidence, or defers with a reason."""

    @property
    def name(self) -> str: ...

    async def propose(self, request: Request) -> Proposal | Defer: ...


class Chunks(Protocol):
    """A reply on its way."""

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    def __anext__(self) -> Awaitable[Chunk]: ...

    def aclose(self) -> Awaitable[None]:
        """Want no more of it: the engine stops generating."""
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


class Store(Protocol):
    """Bytes by key, each with the moment it expires (seconds since 1970)."""

    def get(self, key: bytes) -> tuple[bytes, float] | None: ...

    def put(self, key: bytes, value: bytes, expires_s: float) -> None: ...

    def close(self) -> None: ...
