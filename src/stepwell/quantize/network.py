"""A model as this room sees it: matrices by name, hidden states and logits. `distill.student.Model` is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from stepwell.errors import DistillError

EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"
MATRIX = 2


class Network(Protocol):
    """What can be quantized."""

    @property
    def module(self) -> nn.Module:
        """The weights."""

    def hidden(self, ids: Tensor, places: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Token ids (batch, tokens) to hidden states; mask (batch, tokens) says which tokens are real."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (tokens, hidden) to logits (tokens, vocabulary)."""


def short(name: str) -> str:
    """A weight's one name, whatever the class or file around it calls it: `layers.0.self_attn.q_proj.weight`."""
    while name.startswith("model."):
        name = name.removeprefix("model.")
    return name


def matrices(network: Network) -> dict[str, nn.Parameter]:
    """The weights that are quantized, by short name: every matrix, a tied embedding once, as the embedding."""
    return {short(name): each for name, each in network.module.named_parameters() if each.dim() == MATRIX}


@contextmanager
def swapped(network: Network, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The network with these weights (short names) in place of its own."""
    own = matrices(network)
    held = {name: own[name].detach().clone() for name in weights}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                own[name].copy_(weight)
        yield
    finally:
        with torch.no_grad():
            for name, weight in held.items():
                own[name].copy_(weight)


def check_numbers(name: str, weight: Tensor) -> None:
    """Raise DistillError for a weight that holds NaN or infinity."""
    if not torch.isfinite(weight).all():
        raise DistillError(f"{name} holds NaN or infinite weights: the model is damaged, train or fetch it again")
