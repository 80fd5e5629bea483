"""Whether `peers` makes what llama.cpp's own `llama_model_quantize` makes: `python -m bench.quantize.peers_check DIR`.

The embedded engine's wheel does not export that function; node-llama-cpp's prebuilt library does. DIR is where
`npm install @node-llama-cpp/linux-x64` has put its `bins/linux-x64`. Every preset of every model is made both ways,
with and without importances, and all tensors are compared byte by byte.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from bench.quantize import peers
from stepwell.quantize import export, weights

MODELS = (Path("models/house-writer"), Path("models/house-student"))


class Importance(ctypes.Structure):
    """llama_model_imatrix_data."""

    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Options(ctypes.Structure):
    """llama_model_quantize_params."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("nthread", "ftype", "output_type", "embedding_type")),
        *((name, ctypes.c_bool) for name in ("requantize", "output", "only_copy", "pure", "keep_split", "dry_run")),
        *((name, ctypes.c_void_p) for name in ("imatrix", "overrides", "types", "prune")),
    )


def library(folder: Path) -> ctypes.CDLL:
    """llama.cpp as node-llama-cpp ships it."""
    for name in ("libggml-base.so", *sorted(each.name for each in folder.glob("libggml.*so"))):
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    found = ctypes.CDLL(str(next(folder.glob("libllama.v*.so"))))
    found.llama_model_quantize_default_params.restype = Options
    found.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Options)]
    found.llama_model_quantize.restype = ctypes.c_uint32
    return found


def real(lib: ctypes.CDLL, plain: Path, name: str, out: Path, imatrix: Mapping[str, peers.Floats]) -> Path:
    """The file as llama.cpp makes it."""
    options = lib.llama_model_quantize_default_params()
    if options.ftype != peers.FILE_TYPES["Q8_0"] or options.pure:
        raise RuntimeError("llama_model_quantize_params has another shape in this library")
    options.nthread, options.ftype = 1, peers.FILE_TYPES[name]
    rows = [Importance(key.encode(), value.ctypes.data, value.size) for key, value in imatrix.items()]
    held = (Importance * (len(rows) + 1))(*rows)
    options.imatrix = ctypes.addressof(held) if imatrix else None
    code = lib.llama_model_quantize(bytes(plain), bytes(out), ctypes.byref(options))
    if code:
        raise RuntimeError(f"llama_model_quantize refused {name}")
    return out


def compared(ours: Path, theirs: Path) -> tuple[int, list[str]]:
    """How many tensors there are, and those whose format or bytes differ."""
    mine = {each.name: each for each in gguf.GGUFReader(ours).tensors}
    wanted = {each.name: each for each in gguf.GGUFReader(theirs).tensors}
    names = mine.keys() | wanted.keys()
    return len(names), [each for each in sorted(names) if not same(mine.get(each), wanted.get(each))]


def same(mine: gguf.ReaderTensor | None, wanted: gguf.ReaderTensor | None) -> bool:
    """Whether both are there, in one format, byte for byte."""
    if mine is None or wanted is None or mine.tensor_type != wanted.tensor_type:
        return False
    return mine.data.tobytes() == wanted.data.tobytes()


def importances(folder: Path) -> dict[str, peers.Floats]:
    """Made-up importances of every matrix, by short name: to be compared, not to be served."""
    chance = np.random.default_rng(0)
    shapes = {name.removeprefix("model."): each.shape for name, each in weights.read(folder)}
    return {
        name: chance.gamma(0.5, 1, shape[1]).astype(np.float32) for name, shape in shapes.items() if len(shape) == 2
    }


def main() -> None:
    """Compare, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="node-llama-cpp's bins/linux-x64")
    parser.add_argument("--models", type=Path, nargs="+", default=MODELS)
    given = parser.parse_args()
    lib, files, tensors, wrong = library(given.folder), 0, 0, []
    with tempfile.TemporaryDirectory() as held:
        for model in given.models:
            plain = export.to_gguf(model, Path(held) / "plain.gguf", "F32", name=model.name)
            for guided in (False, True):
                calibration = importances(model) if guided else {}
                for name in (each for each in peers.PRESETS if guided or each not in peers.GUIDED_ONLY):
                    theirs = real(
                        lib, plain, name, Path(held) / "theirs.gguf", peers.named(calibration, gguf.GGUFReader(plain))
                    )
                    ours = peers.preset(model, name, Path(held) / "ours.gguf", calibration=calibration)
                    num, differ = compared(ours, theirs)
                    files, tensors = files + 1, tensors + num
                    wrong += [f"{model.name} {name}{' with importances' if guided else ''}: {each}" for each in differ]
    print(*wrong, sep="\n")
    print(json.dumps({"files": files, "tensors": tensors, "tensors_that_differ": len(wrong)}))


if __name__ == "__main__":
    main()
