"""Publishing: bundles under the names of their hashes first, then one signed manifest, flipped in one step.

Readers see the old campaign or the new one whatever happens on the way: nothing they can reach is ever changed but the
manifest, and that one only by compare-and-swap. `m/<version>.json` is made before a version goes live and never again,
so no two publishers can give a version's number to different contents.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import msgspec
from msgspec import Struct

from stepwell.errors import TemplateError
from stepwell.signing import SigningKey, Trusted, trusted
from stepwell.store.objects import Objects, conditional
from stepwell.templates.manifest import NAME, Manifest, authentic, bundle_of, sign, stamp
from stepwell.templates.packed import FOREVER, MAX_BUNDLE_BYTES, pieces, whole
from stepwell.templates.published import contents, past, versions

MANIFEST_HEADERS = {
    "Content-Type": "application/json",
    "Cache-Control": "public, max-age=30, stale-while-revalidate=300, stale-if-error=86400",
}
EXPIRES_DAYS = 30
SLOW_CLOCKS = timedelta(minutes=5)
"""Readers' clocks go wrong: what is published now has been valid for a while."""


class Terms(Struct, frozen=True):
    """From when to when a manifest holds; without a time: from now on, for a month."""

    not_before: datetime | None = None
    expires_days: float = EXPIRES_DAYS

    def span(self) -> tuple[str, str]:
        """Not before and expiry, as manifests write them. Raises TemplateError."""
        begins = self.not_before or datetime.now(UTC) - SLOW_CLOCKS
        try:
            ends = max(begins, datetime.now(UTC)) + timedelta(days=self.expires_days)
        except OverflowError as error:
            raise TemplateError(f"{self.expires_days:g} days until it expires: too many") from error
        return stamp(begins), stamp(ends)


class Live(Struct, frozen=True):
    """What is there now, and its tag."""

    manifest: Manifest
    tag: str


class Head(Struct, frozen=True):
    """The part of a bundle that publishing looks at."""

    v: int
    locale: str
    t: dict[str, list[msgspec.Raw]]


MONTH = Terms()


def publish(
    objects: Objects,
    bundles: Mapping[str, bytes],
    *,
    campaign: str,
    key: SigningKey,
    keys: Trusted | None = None,
    terms: Terms = MONTH,
) -> Manifest:
    """Put a campaign's bundles (by locale) live; `keys` are older ones that may have signed what is there.

    Raises TemplateError, also where another publisher was faster, and StoreError; then what was live still is.
    """
    for locale, data in bundles.items():
        inspect(locale, data)
    live = current(objects, key, keys)
    if live and live.manifest.campaign != campaign:
        raise TemplateError(f"{objects.url} holds the campaign {live.manifest.campaign!r}, not {campaign!r}")
    not_before, expires = terms.span()
    named = {locale: bundle_of(data) for locale, data in sorted(bundles.items())}
    manifest = Manifest(campaign, next_version(objects, live), not_before, expires, "live", named)
    signed = sign(manifest, key)
    for locale, data in sorted(bundles.items()):
        place(objects, data, last(objects, live, locale))
    return flip(objects, manifest, signed, live)


def rollback(
    objects: Objects, version: int, *, key: SigningKey, keys: Trusted | None = None, terms: Terms = MONTH
) -> Manifest:
    """Put the contents of an older version live, under a new version. Raises TemplateError and StoreError."""
    if current(objects, key, keys) is None:
        raise TemplateError("nothing is published here", file=objects.url)
    held = objects.get(past(version))
    if held is None:
        raise TemplateError(f"there is no version {version}; `stepwell templates status` lists them", file=objects.url)
    older = authentic(held.data, all_keys(key, keys), file=past(version))
    return publish(objects, contents(objects, older), campaign=older.campaign, key=key, keys=keys, terms=terms)


def kill(objects: Objects, *, key: SigningKey, keys: Trusted | None = None, terms: Terms = MONTH) -> Manifest:
    """Tell readers to show nothing, until something is published or rolled back. Raises TemplateError, StoreError."""
    live = current(objects, key, keys)
    if live is None:
        raise TemplateError("nothing is published here", file=objects.url)
    not_before, expires = msgspec.structs.replace(terms, not_before=None).span()
    manifest = msgspec.structs.replace(
        live.manifest, version=next_version(objects, live), state="killed", not_before=not_before, expires=expires
    )
    return flip(objects, manifest, sign(manifest, key), live)


def inspect(locale: str, data: bytes) -> None:
    """Raise TemplateError unless the bytes are a bundle of the locale."""
    if len(data) > MAX_BUNDLE_BYTES:
        raise TemplateError(f"{len(data)} bytes; a bundle has at most {MAX_BUNDLE_BYTES}", file=f"{locale}.json")
    try:
        head = msgspec.json.decode(data, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TemplateError(f"no bundle: {error}", file=f"{locale}.json") from error
    if head.v != 1 or head.locale != locale or not head.t:
        told = f"format {head.v}, locale {head.locale!r}, {len(head.t)} templates"
        raise TemplateError(f"{told}: expected format 1, locale {locale!r} and templates", file=f"{locale}.json")


def all_keys(key: SigningKey, keys: Trusted | None) -> Trusted:
    """One's own key and the older ones."""
    return {**(keys or {}), **trusted((), key)}


def current(objects: Objects, key: SigningKey, keys: Trusted | None) -> Live | None:
    """What is there, whatever its time. Raises TemplateError where it cannot be trusted."""
    held = objects.get(NAME)
    if held is None:
        return None
    try:
        return Live(authentic(held.data, all_keys(key, keys), file=f"{objects.url}/{NAME}"), held.tag)
    except TemplateError as error:
        what = (
            "give the public key that signed it, or remove it: its versions are kept, the next one goes on from there"
        )
        raise TemplateError(f"{error}; {what}") from error


def next_version(objects: Objects, live: Live | None) -> int:
    """One more than any version that was ever begun here."""
    return max([live.manifest.version if live else 0, *versions(objects)]) + 1


def last(objects: Objects, live: Live | None, locale: str) -> bytes | None:
    """The live bundle of a locale, if there is a whole one: only a dictionary, so a missing one is no error."""
    bundle = live.manifest.bundles.get(locale) if live else None
    held = objects.get(bundle.path) if bundle else None
    whole_one = held and bundle and sha256(held.data).hexdigest() == bundle.sha256
    return held.data if held and whole_one else None


def place(objects: Objects, data: bytes, before: bytes | None) -> None:
    """Put every form of a bundle, read each back and unpack it. Raises TemplateError and StoreError."""
    for piece in pieces(data, before):
        objects.create(piece.key, piece.data, piece.headers)
        held = objects.get(piece.key)
        if held is None or whole(piece.key, held.data, before) != data:
            raise TemplateError("reads back as something else: remove it", file=f"{objects.url}/{piece.key}")
    if not conditional(objects, piece.key, piece.data, piece.headers):
        raise TemplateError(f"{objects.url} ignores conditional writes: two publishers could overwrite each other")


def flip(objects: Objects, manifest: Manifest, signed: bytes, live: Live | None) -> Manifest:
    """Reserve the version, then put the manifest in the place of the one that was read. Raises TemplateError."""
    kept = past(manifest.version)
    ours = objects.create(kept, signed, FOREVER) or is_there(objects, kept, signed)
    tag = live.tag if live else None
    if not ours or not (objects.swap(NAME, signed, MANIFEST_HEADERS, tag) or is_there(objects, NAME, signed)):
        raise TemplateError(
            f"somebody else published while version {manifest.version} was being put there: theirs is live, this one "
            "is not; look at `stepwell templates status`, then publish again",
            file=objects.url,
        )
    return manifest


def is_there(objects: Objects, key: str, data: bytes) -> bool:
    """Say whether a refused put had been done all the same, and only the answer to its first try was lost."""
    held = objects.get(key)
    return held is not None and held.data == data
