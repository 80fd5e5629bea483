"""An engine that answers by script: for trying out a configuration, and for every test that needs a known answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

from stepwell.config import ScriptedEngine
from stepwell.engines import openai
from stepwell.errors import EngineBadReply, EngineRefusal, EngineUnavailable
from stepwell.types import Chunk, Request, Usage

FOREVER_S = 1e9
REFUSALS = {"limit": (429, "too many requests, by script"), "error": (500, "an internal error, by script")}


class Scripted:
    """Says `config.reply`, word by word in a stream, with the delays and failures of its script."""

    def __init__(self, name: str, config: ScriptedEngine) -> None:
        self.name, self.config = name, config
        self.asked = 0

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Follow the script; see `protocols.Engine`."""
        self.asked += 1
        fails = bool(self.config.fail) and not 0 < self.config.fail_first < self.asked
        if self.config.delay_s:
            await asyncio.sleep(self.config.delay_s)
        if fails and self.config.fail != "die":
            await self.failed()
        words = re.findall(r"\s*\S+", self.config.reply)
        usage = Usage(len(request.canonical) // 4, 0 if request.kind == "embedding" else len(words))
        if request.stream and request.kind != "embedding":
            async for chunk in self.streamed(request, words, usage, dies=fails):
                yield chunk
        elif fails:
            raise EngineBadReply("died in mid-reply, by script", engine=self.name)
        else:
            yield Chunk(openai.said(request, self.config.reply, usage), usage, last=True)

    async def close(self) -> None:
        """Nothing to give back."""

    async def streamed(
        self, request: Request, words: list[str], usage: Usage, *, dies: bool
    ) -> AsyncGenerator[Chunk, None]:
        """A stream, one word an event."""
        for place, word in enumerate(words):
            if place and self.config.frame_delay_s:
                await asyncio.sleep(self.config.frame_delay_s)
            if dies and place == 2:  # noqa: PLR2004 - after the first words
                raise EngineBadReply("died in mid-stream, by script", engine=self.name)
            yield Chunk(openai.event(request, word, first=place == 0))
        yield Chunk(openai.event(request, None, "stop"))
        yield Chunk(openai.usage_event(request, usage), usage)
        yield Chunk(openai.DONE, last=True)

    async def failed(self) -> None:
        """Fail as the script says."""
        if self.config.fail == "hang":
            await asyncio.sleep(FOREVER_S)
        if self.config.fail == "refuse":
            raise EngineUnavailable("refused, by script", engine=self.name)
        status, message = REFUSALS[self.config.fail]
        body = b'{"error":{"message":"%b","type":"server_error","param":null,"code":null}}' % message.encode()
        raise EngineRefusal(message, engine=self.name, status=status, body=body)
