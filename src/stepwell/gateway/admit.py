"""Yes or no before anything costs money: who asks, and may they."""

from __future__ import annotations

from collections.abc import Mapping

from stepwell.errors import NotAllowed, UnknownModel
from stepwell.types import Caller

ANYBODY = Caller(tenant="local", principal="local")
"""Who asks where no keys are configured: then the gateway listens on loopback only."""


def caller(authorization: bytes | None, callers: Mapping[bytes, Caller]) -> Caller:
    """Find out who asks from the Authorization header; `callers` is by its whole value. Raises NotAllowed."""
    if not callers:
        return ANYBODY
    if authorization is None:
        raise NotAllowed("no API key: send the header `Authorization: Bearer KEY`")
    found = callers.get(authorization)
    if found is None:  # the scheme may be written in any case, with any space behind it
        scheme, _, key = authorization.partition(b" ")
        found = callers.get(bearer(key.strip())) if scheme.lower() == b"bearer" else None
    if found is None:
        raise NotAllowed("this API key is not known here")
    return found


def bearer(key: bytes) -> bytes:
    """Write the Authorization header of a key."""
    return b"Bearer " + key


def model(name: str, known: Mapping[str, object]) -> None:
    """Raise UnknownModel where no route has this name."""
    if name not in known:
        raise UnknownModel(f"no route is called {name!r}; GET /v1/models lists them", param="model")
