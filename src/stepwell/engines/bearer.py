"""The key that a server asks for: from the environment, and given anew for each call."""

from __future__ import annotations

import os

from stepwell.engines.http import Key
from stepwell.errors import ConfigError


def secret(env: str, *, field: str) -> str:
    """What a variable of the environment holds; "" where none is named. Raises ConfigError where it holds nothing."""
    held = os.environ.get(env, "") if env else ""
    if env and not held:
        raise ConfigError(f"the environment variable {env} holds no key", field=field)
    return held


def bearer(key: str) -> Key | None:
    """Gives the key; None where there is none."""
    if not key:
        return None

    async def given() -> str:
        return key

    return given
