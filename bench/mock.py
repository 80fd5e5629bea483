"""A server that streams frames at a steady pace, one write a frame: `python -m bench.mock PORT FRAMES GAP_S`."""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOLD = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "mock"}


def frame(choices: list[dict[str, object]], **more: object) -> bytes:
    """One event as one HTTP chunk."""
    data = b"data: " + json.dumps({**TOLD, "choices": choices, **more}, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def frames(num: int) -> list[bytes]:
    """The frames of one stream, then usage, the end mark and the end of the body."""
    words = [frame([{"index": 0, "delta": {"content": f"f{at} "}, "finish_reason": None}]) for at in range(num)]
    usage = frame([], usage={"prompt_tokens": 9, "completion_tokens": num, "total_tokens": num + 9})
    return [*words, usage + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"]


async def main(port: int, num: int, gap_s: float) -> None:
    """Serve until killed."""
    told = frames(num)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while head := await read_head(reader):
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(HEAD)
            start_s = loop.time()
            for at, data in enumerate(told):
                await asyncio.sleep(max(0.0, start_s + (at + 1) * gap_s - loop.time()))
                writer.write(data)

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """The head of the next request; empty where there is none."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
