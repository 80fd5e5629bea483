"""The plain Llama computes what transformers computes, read whole, padded, packed side by side or token by token."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import KINDS, write_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from stepwell.distill import batch, llama, student
from stepwell.distill.data import Example

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def theirs(folder: Path) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def some_ids(rows: int = 3, tokens: int = 40) -> Tensor:
    return torch.randint(4, 260, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_key_value_heads": 4, "tie_word_embeddings": True},
        {"num_key_value_heads": 1, "head_dim": 16},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}},
        {"rope_parameters": LLAMA3},
    ],
    ids=["grouped", "tied", "one key head", "another theta", "llama 3"],
)
def test_logits_are_those_of_transformers(tmp_path: Path, sizes: dict[str, Any]) -> None:
    folder = write_model(tmp_path, "llama", **sizes)
    ours, ids = student.load(folder), some_ids()
    assert isinstance(ours.module, llama.Llama)
    torch.testing.assert_close(ours.logits(ours.hidden(ids)), theirs(folder)(ids).logits, atol=2e-5, rtol=1e-4)


def test_an_old_config_says_the_same(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "llama", rope_parameters=LLAMA3)
    new = student.load(folder)
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    old = {**config, "rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (folder / "config.json").write_text(json.dumps(old))
    assert student.load(folder).module.shape == new.module.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_autograd_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_model(tmp_path, "llama")
    ours, other, ids = student.load(folder), theirs(folder), some_ids()
    ours.module.to(dtype)
    for logits in (ours.logits(ours.hidden(ids)), other(ids).logits):
        logits.float().square().mean().backward()
    expected = {name.removeprefix("model."): weight.grad for name, weight in other.named_parameters()}
    for name, weight in ours.module.named_parameters():
        apart = (weight.grad.float() - expected[name]).norm() / expected[name].norm()
        assert apart < (1e-4 if dtype == torch.float32 else 0.05), name


def test_recomputed_gradients_are_the_same(tmp_path: Path) -> None:
    ours, ids = student.load(write_model(tmp_path, "llama")), some_ids()
    found = []
    for recompute in (False, True):
        ours.module.zero_grad()
        ours.module.recompute = recompute
        ours.logits(ours.hidden(ids)).square().mean().backward()
        found.append([weight.grad.clone() for weight in ours.module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_texts_side_by_side_are_learned_as_if_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    model = student.load(write_model(tmp_path, "llama"), dtype=dtype)
    rows = [Example(prompt, text) for prompt in ("one", "another one") for text in ("a", "bc and more", "d e f")]
    packed = batch.rows_of(batch.groups_of(model, rows), 3, random.Random(0))
    single = [batch.Row(row.prompt, (text,), row.asked) for row in packed for text in row.texts]
    assert len(packed) == 2
    found = []
    for some in (packed, single, *([row] for row in single)):
        laid = batch.laid_out(some, packs=True)
        hidden = model.hidden(laid.ids, laid.places, laid.mask).flatten(0, 1)[laid.sources]
        found.append((model.logits(hidden).float(), laid.targets))
    alone = torch.cat([logits for logits, _ in found[2:]])
    close = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.1}
    for logits, targets in found[:2]:
        torch.testing.assert_close(logits, alone, **close)
        assert targets.tolist() == torch.cat([targets for _, targets in found[2:]]).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_any_architecture_gives_its_own_logits_also_padded(tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path, kind)
    model, other = student.load(folder), theirs(folder)
    texts = [Example("one", "a longer text than the window of a sliding layer is"), Example("another", "b")]
    rows = batch.rows_of(batch.groups_of(model, texts), 1, random.Random(0))
    laid = batch.laid_out(rows, packs=model.packs)
    hidden = model.hidden(laid.ids, laid.places, laid.mask).flatten(0, 1)[laid.sources]
    alone = [
        other(torch.tensor([row.prompt + text.ids[:-1]])).logits[0, len(row.prompt) - 1 :]
        for row in rows
        for text in row.texts
    ]
    torch.testing.assert_close(model.logits(hidden), torch.cat(alone), atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_read_again_by_us_and_by_transformers(tmp_path: Path, kind: str) -> None:
    model, ids = student.load(write_model(tmp_path / "a", kind)), some_ids()
    folder = student.save(model, tmp_path / "b", {"made": "here"})
    expected = model.logits(model.hidden(ids)[0])
    again = student.load(folder)
    torch.testing.assert_close(again.logits(again.hidden(ids)[0]), expected)
    torch.testing.assert_close(theirs(folder)(ids).logits[0], expected, atol=2e-5, rtol=1e-4)
    assert json.loads((folder / "provenance.json").read_text())["tokenizer_sha256"] == model.tokenizer_hash
    assert again.prompt_ids("x") == model.prompt_ids("x")
