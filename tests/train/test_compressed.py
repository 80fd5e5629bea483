"""compressed-tensors: what transformers loads of the folder computes what the codes stand for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import write_model

from stepwell.distill import student
from stepwell.errors import DistillError
from stepwell.quantize import manifest
from stepwell.quantize.compressed import to_compressed
from stepwell.quantize.formats import FORMATS
from stepwell.quantize.grids import Coded, fit, rounded
from stepwell.quantize.verify import verified_folder
from stepwell.quantize.weights import read

pytest.importorskip("compressed_tensors", reason="needs compressed-tensors: pip install compressed-tensors")

IDS = torch.randint(4, 300, (2, 24), generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}


def codes_of(folder: Path, formats: dict[str, str]) -> dict[str, Coded]:
    made = {}
    for name, weight in read(folder):
        kind = next((kind for part, kind in formats.items() if part in name), "")
        if weight.ndim > 1 and kind:
            held = torch.tensor(weight)
            made[name.removeprefix("model.")] = rounded(fit(FORMATS[kind], held), held)
    return made


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(IDS).logits.float(), -1)


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def wanted(folder: Path, coded: dict[str, Coded]) -> torch.Tensor:
    """What the parent computes with decoded weights, all others in 16 bits."""
    model = loaded(folder)
    with torch.no_grad():
        for name, each in model.named_parameters():
            held = coded.get(name.removeprefix("model."))
            each.copy_(each.half().float() if held is None else held.decoded())
    return logits(model)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize(
    "formats",
    [
        {"_proj": "int8"},
        {"_proj": "int4_g32"},
        {"_proj": "int4_g128"},
        {"mlp.down": "int8", "self_attn": "int4_g32"},
    ],
)
def test_transformers_computes_what_the_codes_stand_for(tmp_path: Path, kind: str, formats: dict[str, str]) -> None:
    folder = write_model(tmp_path / kind, kind, **SIZES)
    coded = codes_of(folder, formats)
    theirs = wanted(folder, coded)
    ours = logits(loaded(to_compressed(folder, tmp_path / "out", coded)))
    apart = (logits(loaded(folder)) - theirs).abs().max()
    assert (ours - theirs).abs().max() < min(2e-3, apart / 5)


def test_an_untied_head_may_have_codes(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "llama", "llama", **SIZES)
    coded = codes_of(folder, {"_proj": "int4_g32", "lm_head": "int8"})
    assert "lm_head.weight" in coded
    ours = logits(loaded(to_compressed(folder, tmp_path / "out", coded)))
    assert (ours - wanted(folder, coded)).abs().max() < 2e-3


def test_the_package_itself_unpacks_the_codes(tmp_path: Path) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    folder = write_model(tmp_path / "llama", "llama", **SIZES | {"intermediate_size": 160})
    for kind, bits in (("int8", 8), ("int4_g32", 4)):
        coded = codes_of(folder, {"_proj": kind})
        held = load_file(to_compressed(folder, tmp_path / kind, coded) / "model.safetensors")
        for name, each in coded.items():
            full = f"model.{name}"
            shape = torch.Size(held[f"{full}_shape"].tolist())
            assert torch.equal(unpack_from_int32(held[f"{full}_packed"], bits, shape).float(), each.codes)
            assert torch.equal(held[f"{full}_scale"].float(), each.grid.scale)


@pytest.mark.parametrize(
    ("kind", "formats", "said"),
    [
        ("llama", {"_proj": "Q4_0"}, "compressed-tensors has int8, int4_g32, int4_g128"),
        ("llama", {"embed": "int8"}, "stays 16 bits"),
        ("llama", {"q_proj": "int8", "_proj": "int4_g32"}, "vLLM reads as one"),
        ("llama", {"gate_proj": "int8"}, "vLLM reads as one"),
    ],
)
def test_what_the_format_has_no_place_for_is_refused(
    tmp_path: Path, kind: str, formats: dict[str, str], said: str
) -> None:
    folder = write_model(tmp_path / kind, kind, **SIZES)
    with pytest.raises(DistillError, match=said):
        to_compressed(folder, tmp_path / "out", codes_of(folder, formats))
    assert not (tmp_path / "out").exists()


def test_groups_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "llama", "llama", **SIZES)
    coded = codes_of(folder, {"_proj": "int4_g32"})
    name, each = next(iter(coded.items()))
    wide = Coded(each.grid, torch.nn.functional.pad(each.codes, (0, 8)))
    with pytest.raises(DistillError, match="takes 32 at a time"):
        to_compressed(folder, tmp_path / "out", coded | {name: wide})


def test_the_old_folder_stays_where_a_new_one_cannot_be_written(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "llama", "llama", **SIZES)
    out = to_compressed(folder, tmp_path / "out", codes_of(folder, {"_proj": "int8"}))
    before = (out / "model.safetensors").read_bytes()
    other = codes_of(folder, {"_proj": "int4_g32"}) | {
        "layers.9.mlp.up_proj.weight": codes_of(folder, {"up_proj": "int8"})["layers.0.mlp.up_proj.weight"]
    }
    with pytest.raises(DistillError, match="which it has not"):
        to_compressed(folder, out, other)
    assert (out / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
    told = json.loads((out / "config.json").read_text())["quantization_config"]
    assert told["config_groups"]["group_0"]["weights"]["num_bits"] == 8
    shutil.rmtree(out)
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(DistillError, match="is no model"):
        to_compressed(folder, out, codes_of(folder, {"_proj": "int8"}))
    assert (out / "precious.txt").read_text() == "mine"


@pytest.mark.timeout(240)  # two fresh processes with torch and transformers
def test_a_folder_is_verified_by_transformers(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "llama", "llama", **SIZES)
    parent = student.load(folder)
    coded = codes_of(folder, {"_proj": "int4_g32"})
    out = to_compressed(folder, tmp_path / "out", coded)
    texts = [(each[:8], each[8:]) for each in IDS.tolist()]
    made = verified_folder(out, folder, parent, texts, coded)
    assert made.passed, made.complaints
    assert made.engine.startswith("transformers 5")
    assert manifest.check(out / "model.safetensors") == made
    other = codes_of(folder, {"_proj": "int4_g128"})
    assert "computes something else" in verified_folder(out, folder, parent, texts, other).complaints[0]
