"""What is published at a place: as a reader sees it, and as its operator does."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256

from msgspec import Struct

from stepwell.errors import TemplateError
from stepwell.signing import Trusted
from stepwell.store.objects import Objects
from stepwell.templates.manifest import NAME, Manifest, authentic, timely, unproven, verify

FORMS = {"bytes": "", "br": ".br", "zst": ".zst", "gz": ".gz"}
PAST = re.compile(r"m/([1-9]\d{0,15})\.json")
MAX_PAST = 20


class Sizes(Struct, frozen=True):
    """One locale's bundle in bytes, in each form that is there; `update` from the bundle before it."""

    locale: str
    path: str
    forms: dict[str, int]
    update: dict[str, int]
    """Bytes by the first part of the older bundle's hash."""


class Past(Struct, frozen=True):
    """One version that was begun here."""

    version: int
    manifest: Manifest | None
    wrong: str = ""


class Status(Struct, frozen=True):
    """What an operator wants to know."""

    url: str
    manifest: Manifest | None
    signature: str
    """valid, unchecked (no key was given), or what is wrong."""
    wrong: str
    """Why readers would not take it now, or nothing."""
    bundles: tuple[Sizes, ...]
    past: tuple[Past, ...]
    """The latest versions, newest first."""

    @property
    def serving(self) -> bool:
        """Readers are shown something."""
        return self.manifest is not None and self.manifest.state == "live" and not self.wrong


def read(
    objects: Objects, keys: Trusted, *, now: datetime | None = None, newest: int = 0
) -> tuple[Manifest, dict[str, bytes]]:
    """What a reader sees: the manifest, if it holds now, and every bundle, each checked. Raises TemplateError."""
    held = objects.get(NAME)
    if held is None:
        raise TemplateError("nothing is published here", file=objects.url)
    manifest = verify(held.data, keys, now=now or datetime.now(UTC), newest=newest)
    return manifest, contents(objects, manifest)


def contents(objects: Objects, manifest: Manifest) -> dict[str, bytes]:
    """The bundles that a manifest names, by locale. Raises TemplateError where one is missing or another one."""
    bundles = {}
    for locale, bundle in manifest.bundles.items():
        held = objects.get(bundle.path)
        if held is None:
            raise TemplateError("the bundle is missing", file=f"{objects.url}/{bundle.path}")
        if sha256(held.data).hexdigest() != bundle.sha256 or len(held.data) != bundle.num_bytes:
            raise TemplateError("the bundle is not the one that was signed", file=f"{objects.url}/{bundle.path}")
        bundles[locale] = held.data
    return bundles


def past(version: int) -> str:
    """The key under which a version is kept for good."""
    return f"m/{version}.json"


def versions(objects: Objects) -> list[int]:
    """The versions that are kept, in order."""
    return sorted(int(found[1]) for found in map(PAST.fullmatch, objects.sizes("m/")) if found)


def status(objects: Objects, keys: Trusted, *, now: datetime | None = None) -> Status:
    """What is live, whether readers would take it, how large it is, and what was before. Raises StoreError."""
    held = objects.get(NAME)
    history = tuple(Past(each, *told(objects, past(each), keys)) for each in versions(objects)[: -MAX_PAST - 1 : -1])
    if held is None:
        return Status(objects.url, None, "none", "nothing is published here", (), history)
    manifest, wrong = judged(held.data, keys)
    signature = wrong or ("valid" if keys else "unchecked")
    if manifest and not wrong:
        wrong = trouble(objects, manifest, now or datetime.now(UTC))
    return Status(objects.url, manifest, signature, wrong, sizes(objects, manifest) if manifest else (), history)


def told(objects: Objects, key: str, keys: Trusted) -> tuple[Manifest | None, str]:
    """A kept manifest, and what is wrong with it."""
    held = objects.get(key)
    return judged(held.data, keys) if held else (None, "missing")


def judged(data: bytes, keys: Trusted) -> tuple[Manifest | None, str]:
    """A manifest, whether or not it can be trusted, and what is wrong with it."""
    try:
        return (authentic(data, keys) if keys else unproven(data)), ""
    except TemplateError as error:
        wrong = str(error)
    try:
        return unproven(data), wrong
    except TemplateError:
        return None, wrong


def trouble(objects: Objects, manifest: Manifest, now: datetime) -> str:
    """Why readers would not take what is there, or nothing."""
    try:
        contents(objects, timely(manifest, now))
    except TemplateError as error:
        return str(error)
    return ""


def sizes(objects: Objects, manifest: Manifest) -> tuple[Sizes, ...]:
    """Bytes of each bundle in each form, and of the updates to it."""
    there = objects.sizes("t/")
    found = []
    for locale, bundle in sorted(manifest.bundles.items()):
        forms = {name: there[bundle.path + end] for name, end in FORMS.items() if bundle.path + end in there}
        begin = bundle.path.removesuffix(".json") + ".from-"
        update = {key[len(begin) :].removesuffix(".zst"): size for key, size in there.items() if key.startswith(begin)}
        found.append(Sizes(locale, bundle.path, forms, update))
    return tuple(found)
