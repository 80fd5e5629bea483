"""The bundles that a gateway fills: what is published at a place, looked at again now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic

from msgspec import Struct

from stepwell.errors import StoreError, TemplateError
from stepwell.signing import Trusted
from stepwell.store.objects import Objects
from stepwell.templates.fill import Filler, load
from stepwell.templates.manifest import moment
from stepwell.templates.published import read
from stepwell.templates.structure import Index, index

log = logging.getLogger(__name__)


class Texts(Struct, frozen=True):
    """One locale's bundle, ready to be filled."""

    filler: Filler
    index: Index
    version: int


class Now(Struct, frozen=True):
    """What holds at the moment; `why` where nothing does."""

    texts: Mapping[str, Texts] = {}
    version: int = 0
    expires: datetime | None = None
    why: str = "nothing is published yet"


class Live:
    """What is published; a look that fails leaves the last good one in force until it expires."""

    def __init__(self, objects: Objects, keys: Trusted, refresh_s: float) -> None:
        self.objects, self.keys, self.refresh_s = objects, keys, refresh_s
        self.now = Now()
        self.next_s = 0.0
        self.looking: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Read and verify what is there; an older version than the newest seen is a replay, and is refused."""
        try:
            manifest, bundles = read(self.objects, self.keys, newest=self.now.version)
            if manifest.state == "killed":
                self.now = Now(version=manifest.version, why="the campaign was killed")
            elif manifest.version != self.now.version:
                fillers = {locale: load(data) for locale, data in bundles.items()}
                texts = {name: Texts(each, index(each.names), manifest.version) for name, each in fillers.items()}
                self.now = Now(texts, manifest.version, moment(manifest.expires), "")
        except (TemplateError, StoreError) as error:
            log.warning("templates: %s", error)
            if not self.now.texts:
                self.now = Now(version=self.now.version, why=str(error))

    def texts(self, locale: str) -> Texts | str:
        """A locale's texts, or why there are none. Looks again in the background when it is time."""
        if monotonic() > self.next_s and (self.looking is None or self.looking.done()):
            self.next_s = monotonic() + self.refresh_s
            self.looking = asyncio.ensure_future(asyncio.to_thread(self.look))
        now = self.now
        if now.why:
            return now.why
        if now.expires is not None and datetime.now(UTC) >= now.expires:
            return "the campaign has expired"
        return now.texts.get(locale) or f"no texts in {locale}; there are {', '.join(sorted(now.texts))}"
