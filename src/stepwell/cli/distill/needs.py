"""What the gate's commands need beside the core."""

from __future__ import annotations

import importlib.util

from stepwell.errors import ConfigError

GATE = {"cryptography": "templates", "numpy": "cache"}
"""Packages, and the extra that brings each."""


def check_gate() -> None:
    """Raise ConfigError where something is not installed."""
    for name, extra in GATE.items():
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"needs {name}: pip install 'stepwell[{extra}]'")
