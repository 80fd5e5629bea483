"""What the gate's commands need beside the core."""

from __future__ import annotations

import importlib.util

from stepwell.errors import ConfigError

GATE = ("cryptography", "numpy")
BLEU = ("sacrebleu",)


def check_gate(*, bleu: bool = False) -> None:
    """Raise ConfigError where something is not installed."""
    lacking = [name for name in (*GATE, *(BLEU if bleu else ())) if importlib.util.find_spec(name) is None]
    if lacking:
        raise ConfigError(f"needs {', '.join(lacking)}: pip install 'stepwell[gate]'")
