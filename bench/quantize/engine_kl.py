"""KL to the fp32 parent where it counts: of a GGUF file in llama.cpp, over the completions of held-out texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepwell.quantize import engine
from stepwell.quantize.calibrate import side_by_side
from stepwell.quantize.divergence import Divergence, diverged, error_of, said
from stepwell.quantize.network import Network

Ids = tuple[list[int], list[int]]
"""Token ids of a prompt and of its completion."""
ROWS = 32


@dataclass(frozen=True)
class Parent:
    """What the unquantized model says over some texts."""

    texts: Sequence[Ids]
    said: Tensor
    """(tokens, vocabulary) log-probabilities at every completion's token, text by text."""

    @property
    def num_tokens(self) -> Tensor:
        """(texts) tokens of each completion."""
        return torch.tensor([len(completion) for _, completion in self.texts])


def parent(network: Network, texts: Sequence[Ids]) -> Parent:
    """The parent's distributions, by torch in 32 bits."""
    batches = [side_by_side(texts[at : at + ROWS], 0) for at in range(0, len(texts), ROWS)]
    return Parent(texts, torch.cat([said(network, batch) for batch in batches]))


def diverges(file: Path, of: Parent) -> Divergence:
    """How far a file in the engine is from the parent. Raises DistillError where the engine cannot run it."""
    return compared(torch.from_numpy(engine.distributions(file, of.texts)), of)


def compared(now: Tensor, of: Parent) -> Divergence:
    """How far distributions (tokens, vocabulary) are from the parent's."""
    tokens = of.num_tokens
    rows = torch.stack([each.sum() for each in diverged(of.said, now).split(tokens.tolist())])
    mean = float(rows.double().sum() / tokens.sum())
    top1 = float((now.argmax(-1) == of.said.argmax(-1)).float().mean())
    return Divergence(mean, error_of(rows, tokens, mean), top1, rows, tokens)


def ratio(ours: Divergence, theirs: Divergence, *, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """KL of one to KL of the other, and the ends of its 95 % interval: bootstrap over the texts, which are paired."""
    mine, wanted = ours.rows.double().numpy(), theirs.rows.double().numpy()
    chance = np.random.default_rng(seed)
    picked = chance.integers(0, len(mine), (draws, len(mine)))
    drawn = mine[picked].sum(1) / wanted[picked].sum(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(mine.sum() / wanted.sum()), float(low), float(high)


def told(found: Mapping[str, Divergence], sizes: Mapping[str, int]) -> str:
    """A table: bytes, KL with its standard error, top-1 agreement."""
    lines = [f"{'file':<34} {'bytes':>10} {'KL x 1000':>18} {'top-1 %':>8}"]
    for name, each in found.items():
        kl = f"{1000 * each.kl:.3f} ± {1000 * each.error:.3f}"
        lines.append(f"{name:<34} {sizes[name]:>10,} {kl:>18} {100 * each.top1:>8.2f}")
    return "\n".join(lines)
