"""Ed25519: keys, and signed texts. Needs the package cryptography.

A signed file is `{"payload": "<JSON text>", "signature": "<base64>", "key": "<key id>"}`; the signature is over the
UTF-8 bytes of the payload's text.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from stepwell.errors import ConfigError, NotAuthentic

KEY_ENV = "STEPWELL_SIGNING_KEY"
"""The environment variable that holds the signing key."""
KEY_BYTES, KEY_ID_CHARS = 32, 16

Trusted = Mapping[str, Ed25519PublicKey]
"""Public keys by id: several while keys are being changed."""


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


def signed(payload: bytes, key: SigningKey) -> bytes:
    """The file that says a JSON text and who signed it."""
    signature = b64encode(key.private.sign(payload)).decode()
    return msgspec.json.encode(Signed(payload.decode(), signature, key.id))


def unsealed(data: bytes) -> tuple[Signed, bytes]:
    """The file's three fields, and the signature's bytes; nothing is proven yet. Raises NotAuthentic."""
    try:
        found = msgspec.json.decode(data, type=Signed)
        signature = b64decode(found.signature, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise NotAuthentic(f"nothing signed: {error}") from error
    if msgspec.json.encode(found) != data or b64encode(signature).decode() != found.signature:
        raise NotAuthentic("not written the way signed files are written: changed on its way")
    return found, signature


def authentic(data: bytes, keys: Trusted) -> str:
    """The payload's text, if one of the keys signed it. Raises NotAuthentic."""
    found, signature = unsealed(data)
    if found.key not in keys:
        known = ", ".join(keys) or "none; name a public key"
        raise NotAuthentic(f"signed with the key {found.key[:64]!r}, which is not trusted here (trusted: {known})")
    try:
        keys[found.key].verify(signature, found.payload.encode())
    except InvalidSignature as error:
        raise NotAuthentic("the signature is wrong: forged, or changed on its way") from error
    return found.payload


# --- keys


def new_key() -> SigningKey:
    """A fresh key."""
    return SigningKey(Ed25519PrivateKey.generate())


def signing_key(variable: str = KEY_ENV) -> SigningKey:
    """The private key in an environment variable, as PEM or as base64 of its 32 bytes. Raises ConfigError."""
    text = os.environ.get(variable, "").strip()
    if not text:
        raise ConfigError(f"the environment variable {variable} holds no key; `stepwell templates key` makes one")
    try:
        key = load_pem_private_key(text.encode(), None) if "BEGIN" in text else None
        private = key or Ed25519PrivateKey.from_private_bytes(raw(text))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        what = "holds no Ed25519 key: PEM without password, or base64 of 32 bytes"
        raise ConfigError(f"the environment variable {variable} {what}")
    return SigningKey(private)


def trusted(texts: Iterable[str], *more: SigningKey) -> dict[str, Ed25519PublicKey]:
    """Public keys (PEM, or base64 of 32 bytes) by id, and those of signing keys. Raises ConfigError."""
    keys = [each.public for each in more]
    for text in texts:
        try:
            key = (
                load_pem_public_key(text.encode()) if "BEGIN" in text else Ed25519PublicKey.from_public_bytes(raw(text))
            )
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{text[:80]!r} is no public Ed25519 key: PEM, or base64 of 32 bytes") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"{text[:80]!r} is a key of another kind than Ed25519")
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
