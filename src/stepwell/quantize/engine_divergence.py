"""How far files have moved from their parent where it counts: of GGUF files in llama.cpp, over texts' completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stepwell.quantize import engine
from stepwell.quantize.calibrate import side_by_side
from stepwell.quantize.divergence import Divergence, diverged, error_of, said
from stepwell.quantize.engine import Text
from stepwell.quantize.network import Network

ROWS = 32
DRAWS = 2000
ENDS = (0.025, 0.975)


@dataclass(frozen=True)
class Spoken:
    """What the parent expects along some texts."""

    texts: Sequence[Text]
    logprobs: Tensor
    """(tokens, vocabulary), at every completion's token, text by text."""

    def diverges(self, file: Path) -> Divergence:
        """How far a file is from it, in the engine. Raises DistillError where the engine cannot run the file."""
        return self.compared(torch.from_numpy(engine.distributions(file, self.texts)))

    def compared(self, now: Tensor) -> Divergence:
        """How far distributions (tokens, vocabulary) are from it."""
        tokens = torch.tensor([len(completion) for _, completion in self.texts])
        rows = torch.stack([each.sum() for each in diverged(self.logprobs, now).split(tokens.tolist())])
        mean = float(rows.double().sum() / tokens.sum())
        top1 = float((now.argmax(-1) == self.logprobs.argmax(-1)).float().mean())
        return Divergence(mean, error_of(rows, tokens, mean), top1, rows, tokens)


def spoken(network: Network, texts: Sequence[Text]) -> Spoken:
    """What a model in torch expects along texts."""
    batches = [side_by_side(texts[at : at + ROWS], 0) for at in range(0, len(texts), ROWS)]
    return Spoken(texts, torch.cat([said(network, batch) for batch in batches]))


def ratio(one: Divergence, other: Divergence, *, seed: int = 0) -> tuple[float, float, float]:
    """KL of one by KL of the other on the same texts, and the ends of its 95 % interval: bootstrap over the texts."""
    mine, theirs = one.rows.double().numpy(), other.rows.double().numpy()
    picked = np.random.default_rng(seed).integers(0, len(mine), (DRAWS, len(mine)))
    low, high = np.quantile(mine[picked].sum(1) / theirs[picked].sum(1), ENDS)
    return float(mine.sum() / theirs.sum()), float(low), float(high)
