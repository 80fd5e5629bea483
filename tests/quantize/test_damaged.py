"""Damaged folders: what is wrong is named, nothing is written, and the old file stays."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_folders import CONFIG, random_weights, write_folder, write_weights
from test_words import byte_level

from stepwell.errors import DistillError
from stepwell.quantize.export import to_gguf

Weights = dict[str, Any]
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def words() -> Any:
    return byte_level("gpt-2")


def put(name: str, change: Callable[[Any], Any]) -> Callable[[Weights], Weights]:
    return lambda held: held | {name: change(held[name].copy())}


def at(value: float) -> Callable[[Any], Any]:
    def change(weight: Any) -> Any:
        weight.flat[5] = value
        return weight

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put(UP, at(np.nan)), "up_proj.weight has weights that are NaN or infinite"),
        (put(UP, at(-np.inf)), "up_proj.weight has weights that are NaN or infinite"),
        (put("model.norm.weight", at(np.nan)), "norm.weight has weights that are NaN"),
        (put(UP, at(1e30)), "beyond 65504"),
        (put(UP, lambda each: each[:, :-1]), r"is \(64, 31\), and config.json makes it \(64, 32\)"),
        (put(UP, lambda each: each[None]), r"is \(1, 64, 32\)"),
        (
            lambda held: {name: each for name, each in held.items() if name != UP},
            "lacks 1 weights, layers.1.mlp.up_proj",
        ),
        (lambda held: held | {"model.layers.0.self_attn.q_proj.bias": np.zeros(32, np.float32)}, "which no llama"),
        (lambda held: held | {"model.layers.7.mlp.up_proj.weight": held[UP]}, "which no llama"),
        (lambda _: {}, "lacks 20 weights"),
    ],
)
def test_what_is_wrong_with_the_weights_is_named(
    tmp_path: Path, words: Any, change: Callable[[Weights], Weights], said: str
) -> None:
    folder = write_folder(tmp_path / "model", words)
    out = to_gguf(folder, tmp_path / "out" / "model.gguf")
    before = out.read_bytes()
    held = random_weights({**CONFIG, "vocab_size": words.get_vocab_size()})
    write_weights(folder / "model.safetensors", change(held))
    with pytest.raises(DistillError, match=said):
        to_gguf(folder, out)
    assert out.read_bytes() == before
    assert [each.name for each in out.parent.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("size", [0, 5, 100, 0.5, 0.999])
def test_weights_cut_short_are_named(tmp_path: Path, words: Any, size: float) -> None:
    folder = write_folder(tmp_path / "model", words)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: int(size if size > 1 or not size else size * len(data))])
    with pytest.raises(DistillError, match=r"model\.safetensors: is damaged"):
        to_gguf(folder, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    "header", [b"[]", b'{"a": 1}', b'{"a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}']
)
def test_headers_that_are_none_are_named(tmp_path: Path, words: Any, header: bytes) -> None:
    folder = write_folder(tmp_path / "model", words)
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(DistillError, match=r"model\.safetensors: is damaged"):
        to_gguf(folder, tmp_path / "model.gguf")


def test_a_head_beside_a_tied_embedding_is_left_out(tmp_path: Path, words: Any) -> None:
    folder = write_folder(tmp_path / "model", words)
    held = random_weights({**CONFIG, "vocab_size": words.get_vocab_size()})
    plain = to_gguf(folder, tmp_path / "a.gguf").read_bytes()
    write_weights(folder / "model.safetensors", held | {"lm_head.weight": held["model.embed_tokens.weight"]})
    assert to_gguf(folder, tmp_path / "b.gguf").read_bytes() == plain


def test_a_width_that_no_block_fits_is_refused(tmp_path: Path, words: Any) -> None:
    folder = write_folder(tmp_path / "model", words, hidden_size=48, intermediate_size=80)
    with pytest.raises(DistillError, match="48 wide, and Q8_0 takes 32 at a time"):
        to_gguf(folder, tmp_path / "model.gguf")
    assert to_gguf(folder, tmp_path / "model.gguf", "F16").is_file()


LOOP = """
import sys
from pathlib import Path
from stepwell.quantize.export import to_gguf
while True:
    for kind in ("F16", "F32"):
        print(kind, flush=True)
        to_gguf(Path(sys.argv[1]), Path(sys.argv[2]), kind)
"""


def test_an_export_that_is_killed_leaves_the_old_file(tmp_path: Path, words: Any) -> None:
    folder = write_folder(tmp_path / "model", words)
    either = {kind: to_gguf(folder, tmp_path / f"{kind}.gguf", kind).read_bytes() for kind in ("F16", "F32")}
    out = to_gguf(folder, tmp_path / "out.gguf", "F32")
    for turn in range(5):
        command = [sys.executable, "-c", LOOP, str(folder), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(1 + turn % 3):
                assert process.stdout.readline()
            time.sleep(0.01 * turn)
            process.kill()
        assert len(out.read_bytes()) in {len(each) for each in either.values()}
        assert out.read_bytes()[-4096:] in {each[-4096:] for each in either.values()}
