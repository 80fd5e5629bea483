"""How far a quantized model has moved from its parent: the Kullback-Leibler divergence of what they say next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from stepwell.errors import DistillError
from stepwell.quantize.calibrate import Tokens
from stepwell.quantize.network import Network


@dataclass(frozen=True)
class Divergence:
    """KL(parent || model) over the scored tokens."""

    kl: float
    """Mean per token, in nats."""
    error: float
    """Standard error of that mean, texts being independent."""
    top1: float
    """Share of tokens for which both think the same token likeliest."""
    rows: Tensor
    """(texts) sums of nats, in the batches' order, to pair with another model's."""
    tokens: Tensor
    """(texts) tokens scored."""


class Reference:
    """What a parent says over texts; other weights are compared with it. It keeps (tokens, vocabulary)."""

    def __init__(self, network: Network, batches: Sequence[Tokens]) -> None:
        if not any(batch.num_scored for batch in batches):
            raise DistillError("there are no texts to compare models on: give rows with prompts and completions")
        self.batches = batches
        self.said = [said(network, batch) for batch in batches]

    @torch.no_grad()
    def of(self, network: Network) -> Divergence:
        """Compare a model: the parent's own network with other weights, or another one with the same tokens."""
        sums, counts, same = [], [], 0
        for batch, parent in zip(self.batches, self.said, strict=True):
            now = said(network, batch)
            nats = torch.zeros(batch.ids.shape)
            nats[batch.scored] = diverged(parent, now)
            sums.append(nats.sum(1))
            counts.append(batch.scored.sum(1))
            same += int((parent.argmax(-1) == now.argmax(-1)).sum())
        rows, tokens = torch.cat(sums), torch.cat(counts)
        mean = float(rows.double().sum() / tokens.sum())
        return Divergence(mean, error_of(rows, tokens, mean), same / int(tokens.sum()), rows, tokens)


@torch.no_grad()
def said(network: Network, batch: Tokens) -> Tensor:
    """(scored tokens, vocabulary) log-probabilities."""
    hidden = network.hidden(batch.ids, None, batch.real)
    return functional.log_softmax(network.logits(hidden[batch.scored]).float(), -1)


def diverged(parent: Tensor, now: Tensor) -> Tensor:
    """(tokens) KL of log-probabilities (tokens, vocabulary)."""
    return functional.kl_div(now, parent, reduction="none", log_target=True).sum(-1)


def error_of(rows: Tensor, tokens: Tensor, mean: float) -> float:
    """Standard error of a ratio of sums over independent texts; infinite for a single one."""
    num = len(rows)
    if num == 1:
        return float("inf")
    spread = (rows.double() - mean * tokens).square().sum() * num / (num - 1)
    return float(spread.sqrt() / tokens.sum())
