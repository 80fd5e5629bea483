"""The same from transformers, for folders of compressed-tensors: with the package of that name it unpacks the codes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepwell.errors import DistillError

Floats = NDArray[np.float32]
NEEDED = ("torch", "transformers", "compressed_tensors")


def opened(folder: Path, threads: int = 1) -> tuple[Any, Any]:
    """Model and tokenizer of a folder. Raises DistillError."""
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise DistillError(f"needs {', '.join(lacking)}: pip install 'stepwell[transformers]' compressed-tensors")
    import torch  # noqa: PLC0415 - only where it is this engine
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    torch.set_num_threads(threads)
    try:
        words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DistillError(f"transformers cannot load it ({error})") from error
    return model.eval(), words


def logits(model: Any, ids: Sequence[int], begin: int) -> Floats:  # noqa: ANN401
    """The logits after each token from `begin` on, (tokens, vocabulary)."""
    import torch  # noqa: PLC0415

    with torch.no_grad():
        made: Floats = model(torch.tensor([list(ids)])).logits[0, begin:].float().numpy()
    return made.copy()


def engine() -> str:
    """Names and versions."""
    return f"transformers {version('transformers')}, compressed-tensors {version('compressed-tensors')}"
