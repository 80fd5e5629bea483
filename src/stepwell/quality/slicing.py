"""Which slice of the traffic a prompt belongs to: the same at the gate and at serving."""

from __future__ import annotations

from collections.abc import Callable

from stepwell.quality.judges import found
from stepwell.quality.verify import bracketed

Slicer = Callable[[str], str]
SLOT = "slot:"


def slicer(name: str, *, field: str = "slice_by") -> Slicer:
    """`slot:NAME`: the value in `NAME[value]`, empty where there is none; or a function of yours, `module:function`.

    Raises ConfigError, for `field`, where there is none of that name.
    """
    if name.startswith(SLOT):
        slot = name.removeprefix(SLOT)
        return lambda prompt: bracketed(prompt).get(slot, "")
    function = found(name, field=field)
    return lambda prompt: str(function(prompt))
