"""The manifest: which bundles of a campaign are live, from when to when, signed with Ed25519.

The file is `{"payload": "<JSON text>", "signature": "<base64>", "key": "<key id>"}`; the signature is over the UTF-8
bytes of the payload's text. It pins the hash of each bundle, so bundles need no signature of their own.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal, NoReturn

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from stepwell.errors import TemplateError

NAME = "manifest.json"
MAX_BYTES = 256 * 1024
MAX_VERSION = 2**53 - 1
"""Larger whole numbers are not exact in JavaScript."""
TIME = "%Y-%m-%dT%H:%M:%SZ"
KEY_BYTES, KEY_ID_CHARS, HASH_CHARS = 32, 16, 32
LOCALE = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*")

State = Literal["live", "killed"]
Trusted = Mapping[str, Ed25519PublicKey]
"""Public keys by id: several while keys are being changed."""


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


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: the payload's text as it was signed."""

    payload: str
    signature: str
    key: str


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key; it shows itself by its id only."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> Ed25519PublicKey:
        """The public half."""
        return self.private.public_key()

    @property
    def id(self) -> str:
        """The public half's id."""
        return key_id(self.public)

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"


def bundle_of(data: bytes) -> Bundle:
    """How a manifest names a bundle."""
    digest = sha256(data).hexdigest()
    return Bundle(f"t/{digest[:HASH_CHARS]}.json", digest, len(data))


def sign(manifest: Manifest, key: SigningKey) -> bytes:
    """The manifest's file. Raises TemplateError where no reader would take it."""
    sound(manifest, NAME)
    payload = msgspec.json.encode(manifest, order="deterministic")
    signature = b64encode(key.private.sign(payload)).decode()
    data = msgspec.json.encode(Signed(payload.decode(), signature, key.id))
    if len(data) > MAX_BYTES:
        refuse(f"more than {MAX_BYTES} bytes: fewer locales a campaign")
    return data


def unsealed(data: bytes, file: str) -> tuple[Signed, bytes]:
    """The file's three fields, and the signature's bytes. Raises TemplateError."""
    if len(data) > MAX_BYTES:
        refuse(f"{len(data)} bytes; a manifest has at most {MAX_BYTES}", file)
    try:
        signed = msgspec.json.decode(data, type=Signed)
        signature = b64decode(signed.signature, validate=True)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        refuse(f"no signed manifest: {error}", file, error)
    if msgspec.json.encode(signed) != data or b64encode(signature).decode() != signed.signature:
        refuse("not written the way manifests are written: changed on its way", file)
    return signed, signature


def unproven(data: bytes, *, file: str = NAME) -> Manifest:
    """The manifest, whoever signed it: to be shown, never to be acted on. Raises TemplateError."""
    return decoded(unsealed(data, file)[0].payload, file)


def authentic(data: bytes, keys: Trusted, *, file: str = NAME) -> Manifest:
    """The manifest, if one of the keys signed it and it is well-formed, at whatever time. Raises TemplateError."""
    signed, signature = unsealed(data, file)
    if signed.key not in keys:
        known = ", ".join(keys) or "none; name a public key"
        refuse(f"signed with the key {signed.key[:64]!r}, which is not trusted here (trusted: {known})", file)
    try:
        keys[signed.key].verify(signature, signed.payload.encode())
    except InvalidSignature as error:
        refuse("the signature is wrong: forged, or changed on its way", file, error)
    return decoded(signed.payload, file)


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


def new_key() -> SigningKey:
    """A fresh key."""
    return SigningKey(Ed25519PrivateKey.generate())


def signing_key(variable: str) -> SigningKey:
    """The private key in an environment variable, as PEM or as base64 of its 32 bytes. Raises TemplateError."""
    text = os.environ.get(variable, "").strip()
    if not text:
        refuse(f"the environment variable {variable} holds no key; `stepwell templates key` makes one", "")
    try:
        key = load_pem_private_key(text.encode(), None) if "BEGIN" in text else None
        private = key or Ed25519PrivateKey.from_private_bytes(raw(text))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        refuse(
            f"the environment variable {variable} holds no Ed25519 key: PEM without password, or base64 of 32 bytes", ""
        )
    return SigningKey(private)


def trusted(texts: Iterable[str], *more: SigningKey) -> dict[str, Ed25519PublicKey]:
    """Public keys (PEM, or base64 of 32 bytes) by id, and those of signing keys. Raises TemplateError."""
    keys = [each.public for each in more]
    for text in texts:
        try:
            key = (
                load_pem_public_key(text.encode()) if "BEGIN" in text else Ed25519PublicKey.from_public_bytes(raw(text))
            )
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            refuse(f"{text[:80]!r} is no public Ed25519 key: PEM, or base64 of 32 bytes", "", error)
        if not isinstance(key, Ed25519PublicKey):
            refuse(f"{text[:80]!r} is a key of another kind than Ed25519", "")
        keys.append(key)
    return {key_id(key): key for key in keys}


def raw(text: str) -> bytes:
    """A key's 32 bytes. Raises ValueError."""
    data = b64decode(text, validate=True)
    if len(data) != KEY_BYTES:
        raise ValueError
    return data


def key_id(key: Ed25519PublicKey) -> str:
    """A name that follows from the public key itself: the first 16 hex digits of its SHA-256."""
    return sha256(key.public_bytes_raw()).hexdigest()[:KEY_ID_CHARS]


def refuse(what: str, file: str = NAME, because: Exception | None = None) -> NoReturn:
    """Raise the TemplateError that says so."""
    raise TemplateError(what, file=file) from because
