"""Signed texts: who signed them, and whether they are as they were."""

from __future__ import annotations

from base64 import b64encode

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as some

from stepwell.errors import ConfigError, NotAuthentic
from stepwell.signing import Signed, authentic, new_key, signed, signing_key, trusted, unsealed

KEY = new_key()
KEYS = trusted((), KEY)


@given(some.text(), some.integers(0, 500), some.integers(1, 255))
def test_what_was_signed_is_read_and_what_was_changed_is_not(payload: str, place: int, by: int) -> None:
    data = signed(payload.encode(), KEY)
    assert authentic(data, KEYS) == payload
    place %= len(data)
    changed = data[:place] + bytes([data[place] ^ by]) + data[place + 1 :]
    with pytest.raises(NotAuthentic):
        authentic(changed, KEYS)


def test_a_stranger_and_an_old_signature_are_refused() -> None:
    with pytest.raises(NotAuthentic, match="which is not trusted here"):
        authentic(signed(b"{}", new_key()), KEYS)
    other = msgspec.structs.replace(unsealed(signed(b"1", KEY))[0], payload="2")
    with pytest.raises(NotAuthentic, match="the signature is wrong"):
        authentic(msgspec.json.encode(other), KEYS)
    for nothing in (b"", b"{}", b"\xff", msgspec.json.encode(Signed("a", "%", "b"))):
        with pytest.raises(NotAuthentic):
            unsealed(nothing)


def test_keys_are_read_as_pem_and_as_base64(monkeypatch: pytest.MonkeyPatch) -> None:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    raw = b64encode(private.private_bytes_raw()).decode()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    ids = set()
    for text in (pem, raw):
        monkeypatch.setenv("KEY", text)
        ids.add(signing_key("KEY").id)
        assert text.strip() not in repr(signing_key("KEY"))
    ids |= set(trusted([public])) | set(trusted([b64encode(private.public_key().public_bytes_raw()).decode()]))
    assert len(ids) == 1


def test_keys_of_another_kind_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rsa = generate_private_key(65537, 2048)
    monkeypatch.setenv("KEY", rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    with pytest.raises(ConfigError, match="holds no Ed25519 key"):
        signing_key("KEY")
    public = rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(ConfigError, match="of another kind"):
        trusted([public])
    with pytest.raises(ConfigError, match="is no public Ed25519 key"):
        trusted(["short"])
