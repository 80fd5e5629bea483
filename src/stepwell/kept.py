"""The part of the composition root for what callers give us to keep: stored answers, examples, files, fine-tuning."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from msgspec import Struct

from stepwell.config import Config
from stepwell.gateway import stored
from stepwell.gateway.http import Opens
from stepwell.gateway.stored import Stored
from stepwell.gateway.surface import Surface, absent
from stepwell.types import Settler

NOT_STORED = "nothing is stored here: set [stored] path in stepwell.toml"


class Kept(Struct, frozen=True, kw_only=True):
    """What the door and the well need of it."""

    settlers: tuple[Settler, ...]
    surfaces: Mapping[bytes, Surface]
    opens: Opens
    stored: Stored | None

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on beside requests."""
        return ()

    async def close(self) -> None:
        """Write what waits."""
        if self.stored is not None:
            await self.stored.close()


def compose(config: Config) -> Kept:
    """Put it together. Raises ConfigError."""
    answers = Stored(config.stored) if config.stored.path else None
    surfaces = {stored.START: absent(NOT_STORED) if answers is None else answers.show}
    settlers = () if answers is None else (answers.settle,)
    return Kept(settlers=settlers, surfaces=surfaces, opens=lambda *_: None, stored=answers)
