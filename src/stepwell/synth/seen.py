"""What the gateway hands over of a request that is over."""

from __future__ import annotations

from msgspec import Struct

from stepwell.types import Form, Kind

LARGE = "large"
"""The step whose answers are the teacher's."""


class Seen(Struct, frozen=True, array_like=True, gc=False):
    """Question and answer as bytes, as they were: they are read elsewhere."""

    tenant: str
    request: str
    at_s: float
    route: str
    kind: Kind
    asked: bytes
    form: Form
    answered: bytes
    step: str
    engine: str
    usd: float
    tokens_in: int
    tokens_out: int
