"""The least that can pass a frame on in Python, on uvloop: `python -m bench.relay PORT UPSTREAM_PORT` (and relay.c)."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop


class End(asyncio.Protocol):
    """One of two connections: what it hears, the other says."""

    def __init__(self, other: End | None = None) -> None:
        self.other = other
        self.transport: Any = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make the way up for a caller, or say what the caller has said already."""
        self.transport = transport
        if self.other is None:
            self.opening = asyncio.ensure_future(self.open())
        else:
            self.other.other = self
            transport.writelines(self.other.early)  # type: ignore[attr-defined]

    async def open(self) -> None:
        """Connect to the upstream."""
        await asyncio.get_running_loop().create_connection(lambda: End(self), "127.0.0.1", int(sys.argv[2]))

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Close the other end."""
        if self.other is not None:
            self.other.transport.close()


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(End, "127.0.0.1", int(sys.argv[1]), backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
