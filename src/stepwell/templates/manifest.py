"""The manifest: which bundles of a campaign are live, from when to when, signed with Ed25519.

It is a signed file as `signing.py` writes it, and pins the hash of each bundle: bundles need no signature of their own.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal, NoReturn

import msgspec

from stepwell import signing
from stepwell.errors import NotAuthentic, TemplateError
from stepwell.signing import SigningKey, Trusted

NAME = "manifest.json"
MAX_BYTES = 256 * 1024
MAX_VERSION = 2**53 - 1
"""Larger whole numbers are not exact in JavaScript."""
TIME = "%Y-%m-%dT%H:%M:%SZ"
HASH_CHARS = 32
LOCALE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")

State = Literal["live", "killed"]


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"num_bytes": "bytes"}):
    """One locale's bundle: where it is and what it must be."""

    path: str
    sha256: str
    num_bytes: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is live of a campaign; times are ISO 8601 in UTC to the second (`2026-11-24T12:00:00Z`)."""

    campaign: str
    version: int
    not_before: str
    expires: str
    state: State
    bundles: dict[str, Bundle]


def bundle_of(data: bytes) -> Bundle:
    """How a manifest names a bundle."""
    digest = sha256(data).hexdigest()
    return Bundle(f"t/{digest[:HASH_CHARS]}.json", digest, len(data))


def sign(manifest: Manifest, key: SigningKey) -> bytes:
    """The manifest's file. Raises TemplateError where no reader would take it."""
    sound(manifest, NAME)
    data = signing.signed(msgspec.json.encode(manifest, order="deterministic"), key)
    if len(data) > MAX_BYTES:
        refuse(f"more than {MAX_BYTES} bytes: fewer locales a campaign")
    return data


def sized(data: bytes, file: str) -> bytes:
    """The file itself. Raises TemplateError where it is too large to be one."""
    if len(data) > MAX_BYTES:
        refuse(f"{len(data)} bytes; a manifest has at most {MAX_BYTES}", file)
    return data


def unproven(data: bytes, *, file: str = NAME) -> Manifest:
    """The manifest, whoever signed it: to be shown, never to be acted on. Raises TemplateError."""
    try:
        signed, _ = signing.unsealed(sized(data, file))
    except NotAuthentic as error:
        refuse(f"no signed manifest: {error}", file, error)
    return decoded(signed.payload, file)


def authentic(data: bytes, keys: Trusted, *, file: str = NAME) -> Manifest:
    """The manifest, if one of the keys signed it and it is well-formed, at whatever time. Raises TemplateError."""
    try:
        payload = signing.authentic(sized(data, file), keys)
    except NotAuthentic as error:
        refuse(f"no signed manifest: {error}", file, error)
    return decoded(payload, file)


def verify(
    data: bytes, keys: Trusted, *, now: datetime, newest: int = 0, campaign: str = "", file: str = NAME
) -> Manifest:
    """The manifest, if it holds now. `newest` is the highest version seen so far: an older one is a replay.

    A killed campaign's manifest is returned like any other: its `state` says so. Raises TemplateError.
    """
    manifest = authentic(data, keys, file=file)
    told = f"version {manifest.version} of {manifest.campaign!r}"
    if campaign and manifest.campaign != campaign:
        refuse(f"{told}, not of {campaign!r}", file)
    if manifest.version < newest:
        refuse(f"{told} was put back in the place of version {newest}", file)
    return timely(manifest, now, file=file)


def timely(manifest: Manifest, now: datetime, *, file: str = NAME) -> Manifest:
    """The manifest itself. Raises TemplateError where its time has not come, or is over."""
    told = f"version {manifest.version} of {manifest.campaign!r}"
    if now < moment(manifest.not_before, file):
        refuse(f"{told} is not valid before {manifest.not_before}", file)
    if now >= moment(manifest.expires, file):
        refuse(f"{told} expired {manifest.expires}: publish again", file)
    return manifest


def decoded(payload: str, file: str) -> Manifest:
    """A payload's manifest. Raises TemplateError."""
    try:
        manifest = msgspec.json.decode(payload, type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        refuse(f"the payload is no manifest: {error}", file, error)
    return sound(manifest, file)


def sound(manifest: Manifest, file: str) -> Manifest:
    """The manifest itself. Raises TemplateError where a field makes no sense."""
    if not manifest.campaign.strip() or not manifest.campaign.isprintable():
        refuse(f"campaign {manifest.campaign!r}: give it a name", file)
    if not 1 <= manifest.version <= MAX_VERSION:
        refuse(f"version {manifest.version}: from 1 to {MAX_VERSION}", file)
    if moment(manifest.not_before, file) >= moment(manifest.expires, file):
        refuse(f"expires {manifest.expires}, before it is valid ({manifest.not_before})", file)
    if not manifest.bundles:
        refuse("no bundle", file)
    for locale, bundle in manifest.bundles.items():
        digest_ok = re.fullmatch(r"[0-9a-f]{64}", bundle.sha256) and bundle.num_bytes > 0
        if not LOCALE.fullmatch(locale) or not digest_ok or bundle.path != f"t/{bundle.sha256[:HASH_CHARS]}.json":
            refuse(f"the bundle of {locale!r} is not named by its hash", file)
    return manifest


def moment(text: str, file: str = NAME) -> datetime:
    """A time as manifests write it. Raises TemplateError."""
    try:
        found = datetime.strptime(text, TIME).replace(tzinfo=UTC)
    except ValueError as error:
        refuse(f"{text!r} is no time like 2026-11-24T12:00:00Z", file, error)
    return found if stamp(found) == text else refuse(f"{text!r} is no time like 2026-11-24T12:00:00Z", file)


def stamp(at: datetime) -> str:
    """A time as manifests write it."""
    return at.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def refuse(what: str, file: str = NAME, because: Exception | None = None) -> NoReturn:
    """Raise the TemplateError that says so."""
    raise TemplateError(what, file=file) from because
