"""Our int4 g128 beside the libraries that make it: `kl_vs_llmcompressor` and `kl_vs_autoround`.

Stated before the test texts were read:

- W4A16: symmetric codes of 4 bits, a 16-bit step for 128 weights, linear layers only, on the house writer. Embedding
  (which is the head), norms and everything else stay as they are, for all three.
- All look at the same E2E train texts, as people wrote them. llm-compressor gets GPTQ as its W4A16 example has it,
  AutoRound its own 200 steps for each block; both one thread.
- What each has written is read again by transformers, and what its layers then compute with is put into the parent in
  32 bits. KL is to the parent, a token of E2E's test texts, in torch.
- CPU seconds are of quantizing alone, calibration included, imports and loading not. The comparison is at equal or
  less time: of ours from all texts, from half of them and from a quarter, the one from most that took no longer.

    STEPWELL_DATA=... python -m bench.quantize.libraries      (needs `make peers`)
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import process_time

import torch
from recipes.writer import data
from safetensors.torch import load_file
from torch import Tensor

from stepwell.distill import student
from stepwell.errors import DistillError
from stepwell.quantize.apply import applied
from stepwell.quantize.calibrate import laid
from stepwell.quantize.calibrate import measured as calibrated
from stepwell.quantize.compressed import to_compressed
from stepwell.quantize.divergence import Divergence
from stepwell.quantize.elsewhere import Asked, Tool, quantized
from stepwell.quantize.engine import Text
from stepwell.quantize.engine_divergence import Spoken, spoken
from stepwell.quantize.engine_divergence import ratio as ratio_of
from stepwell.quantize.network import EMBEDDING, short, swapped
from stepwell.quantize.recipe import Recipe, Rule

WRITER = Path("models/house-writer")
PYTHONS: dict[Tool, Path] = {
    "llm-compressor": Path(".venv-llmc/bin/python"),
    "autoround": Path(".venv-autoround/bin/python"),
}
KEYS: dict[Tool, str] = {"llm-compressor": "kl_vs_llmcompressor", "autoround": "kl_vs_autoround"}
READER = Path(__file__).with_name("reloaded.py")
SHARES = (1, 2, 4)
"""Ours looks at all calibration texts, at every second or at every fourth."""
RECIPE = Recipe(Rule("int4_g128", "gptq"), (Rule("F32", "round", EMBEDDING),))
NUM_CALIBRATION, NUM_TEST, ITERS = 512, 400, 200
QUICK = 16
SEED = 0


@dataclass(frozen=True)
class Arm:
    """What one of them made: linear layers by short name, and the CPU seconds that it took."""

    weights: Mapping[str, Tensor]
    cpu_s: float


def ours(model: student.Model, texts: Sequence[Text], folder: Path) -> Arm:
    """Ours, written as compressed-tensors and read again as the others are."""
    begun = process_time()
    batches = laid(texts, pad=model.words.pad)
    coded = applied(model, RECIPE, batches, calibration=calibrated(model, batches))
    cpu_s = process_time() - begun
    to_compressed(WRITER, folder, coded)
    return Arm(reloaded(PYTHONS["llm-compressor"], folder), cpu_s)


def called(share: int) -> str:
    """Ours from a share of the texts."""
    return "ours" if share == 1 else f"ours, 1/{share} texts"


def theirs(tool: Tool, texts: Sequence[Text], folder: Path, iters: int) -> Arm:
    """A library's."""
    ids = tuple((*prompt, *completion) for prompt, completion in texts)
    made = quantized(Asked(tool, "W4A16", WRITER, folder / tool, PYTHONS[tool], ids, iters=iters, device="cpu"))
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    print(f"  {tool}: {made.quantized_s:.1f} CPU s, {made.loaded_s:.1f} more to load ({versions})", flush=True)
    return Arm(reloaded(PYTHONS[tool], folder / tool), made.quantized_s)


def reloaded(python: Path, folder: Path) -> dict[str, Tensor]:
    """What a folder's layers compute with, as transformers reads them."""
    out = folder.with_suffix(".safetensors")
    subprocess.run([python.absolute(), "-I", READER, folder, out], check=True, capture_output=True)
    return {short(name): weight for name, weight in load_file(out).items()}


def ids(model: student.Model, part: str, num: int) -> list[Text]:
    """So many texts as people wrote them."""
    pairs = [(mr, text) for mr, texts in sorted(data.read(part).items()) for text in texts]
    return [(model.prompt_ids(mr), model.text_ids(text)) for mr, text in Random(SEED).sample(pairs, num)]


def moved(model: student.Model, arm: Arm, parent: Spoken) -> Divergence:
    """How far the parent is from itself with these layers."""
    with swapped(model, arm.weights):
        return parent.compared(spoken(model, parent.texts).logprobs)


def measure(*, quick: bool = False) -> dict[str, float]:
    """The ratios of those that are installed, where ours took no more time."""
    torch.set_num_threads(1)
    share = QUICK if quick else 1
    model = student.load(WRITER)
    texts = ids(model, "train", NUM_CALIBRATION // share)
    parent = spoken(model, ids(model, "test", NUM_TEST // share))
    with TemporaryDirectory() as name:
        arms = made(model, texts, Path(name), ITERS // share)
    found = {name: moved(model, arm, parent) for name, arm in arms.items()}
    for name, each in found.items():
        kl = f"{1000 * each.kl:.3f} ± {1000 * each.error:.3f}"
        print(f"  {name:<16} KL x 1000 {kl}, top-1 {100 * each.top1:.2f} %, {arms[name].cpu_s:.1f} CPU s", flush=True)
    return figures(found, arms)


def made(model: student.Model, texts: Sequence[Text], folder: Path, iters: int) -> dict[str, Arm]:
    """Ours and those that can be had; the reason where one cannot is printed."""
    arms: dict[str, Arm] = {}
    for tool in PYTHONS:
        try:
            arms[tool] = theirs(tool, texts, folder, iters)
        except DistillError as error:
            print(f"  {error}", flush=True)
    for share in SHARES if arms else ():
        arms[called(share)] = ours(model, texts[::share], folder / f"ours-{share}")
    return arms


def figures(found: Mapping[str, Divergence], arms: Mapping[str, Arm]) -> dict[str, float]:
    """Ratios at equal or less time; of a library that is faster than the quickest of ours none."""
    told = {}
    for tool, key in KEYS.items():
        quick = [name for name in map(called, SHARES) if name in arms and tool in arms]
        quick = [name for name in quick if arms[name].cpu_s <= arms[tool].cpu_s]
        if not quick:
            print(f"  {key}: not measured at equal or less time", flush=True)
            continue
        ratio, low, high = ratio_of(found[quick[0]], found[tool])
        print(f"  {key:<22} {ratio:.3f}  (95 %: {low:.3f} to {high:.3f}; {quick[0]})", flush=True)
        told[key] = ratio
    return told


if __name__ == "__main__":
    print(measure())
