"""llama.cpp's C functions, in the one shared library that the xllamacpp wheel brings."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stepwell.errors import DistillError

Signatures = Mapping[str, tuple[Any, tuple[Any, ...]]]
"""What each function gives, and what it takes."""


class Strange(DistillError):  # noqa: N818 - it says what is so
    """This llama.cpp's C functions are not the ones that are known here."""


def functions(signatures: Signatures) -> ctypes.CDLL:
    """The library with these functions declared.

    Raises DistillError where the wheel is not installed, Strange where it, or one of the functions, cannot be loaded.
    """
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise DistillError("llama.cpp is needed: pip install 'stepwell[embedded]'")
    try:
        found = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("*.so"))))
        for name, (gives, takes) in signatures.items():
            function = getattr(found, name)
            function.restype, function.argtypes = gives, takes
    except (StopIteration, OSError, AttributeError) as error:
        raise Strange(f"this llama.cpp does not offer what is needed ({error})") from error
    return found
