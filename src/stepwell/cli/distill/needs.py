"""What the gate's commands need beside the core."""

from __future__ import annotations

import importlib.util

from stepwell.errors import ConfigError

GATE = {"cryptography": "templates", "numpy": "cache"}
BLEU = {"sacrebleu": "eval"}
"""Packages, and the extra that brings each."""


def check_gate(*, bleu: bool = False) -> None:
    """Raise ConfigError where something is not installed."""
    for name, extra in (GATE | (BLEU if bleu else {})).items():
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"needs {name}: pip install 'stepwell[{extra}]'")
