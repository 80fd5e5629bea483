"""A task's own texts, laid out as token ids, and what every matrix of a model reads while they pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from stepwell.errors import DistillError
from stepwell.quantize.network import EMBEDDING, HEAD, Network, matrices


@dataclass(frozen=True)
class Tokens:
    """Some texts side by side, each (rows, tokens); what is padded lies behind."""

    ids: Tensor
    real: Tensor
    """bool: a token of the text."""
    scored: Tensor
    """bool: the next token is a completion's."""

    @property
    def num_scored(self) -> int:
        """Tokens that are judged."""
        return int(self.scored.sum())


@dataclass(frozen=True)
class Calibration:
    """What the matrices of a model read, by short name. An embedding that is the head, too, reads as a head."""

    inputs: dict[str, Tensor]
    """(width, width) float32: the second moments of the inputs, X^T X / tokens."""
    reads: Tensor
    """(vocabulary) float32: the share of tokens that read each row of the embedding."""
    num_tokens: int

    def importance(self, name: str) -> Tensor | None:
        """(width): mean squared inputs; None for an embedding that is no head."""
        moments = self.inputs.get(name)
        return None if moments is None else moments.diagonal()


def laid(texts: Sequence[tuple[list[int], list[int]]], *, pad: int, rows: int = 32) -> list[Tokens]:
    """Prompts and completions as batches of so many rows, texts of like length together.

    Raises DistillError where there is nothing to read.
    """
    if not any(completion for _, completion in texts):
        raise DistillError("there are no calibration texts: give rows with prompts and completions")
    order = sorted(texts, key=lambda text: len(text[0]) + len(text[1]))
    return [side_by_side(order[at : at + rows], pad) for at in range(0, len(order), rows)]


def side_by_side(texts: Sequence[tuple[list[int], list[int]]], pad: int) -> Tokens:
    """One batch."""
    longest = max(len(prompt) + len(completion) for prompt, completion in texts)
    ids = torch.full((len(texts), longest), pad)
    real, scored = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(texts):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor([*prompt, *completion])
        real[row, :end] = True
        scored[row, max(len(prompt) - 1, 0) : end - 1] = True
    return Tokens(ids, real, scored)


class Heard(nn.Linear):
    """A linear layer that tells what it reads; of a class of its own, so that nobody multiplies past it."""

    def __init__(self, layer: nn.Linear, tell: Callable[[Tensor], None]) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias, self.tell = layer.weight, layer.bias, tell

    def forward(self, x: Tensor) -> Tensor:
        """The layer's own output."""
        self.tell(x)
        return super().forward(x)


@contextmanager
def heard(network: Network, tell: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Tell the short name and the input of every linear layer that runs."""
    names = {id(weight): name for name, weight in matrices(network).items()}
    places = [
        (parent, child, layer)
        for parent in network.module.modules()
        for child, layer in parent.named_children()
        if isinstance(layer, nn.Linear) and id(layer.weight) in names
    ]
    try:
        for parent, child, layer in places:
            name = names[id(layer.weight)]
            setattr(parent, child, Heard(layer, partial(tell, name)))
        yield
    finally:
        for parent, child, layer in places:
            setattr(parent, child, layer)


@torch.no_grad()
def measured(network: Network, batches: Sequence[Tokens]) -> Calibration:
    """Let the texts pass, and sum up what every matrix reads. Raises DistillError where there are none."""
    if not batches:
        raise DistillError("there are no calibration texts: give rows with prompts and completions")
    weights = matrices(network)
    sums = Sums({})
    reads = torch.zeros(len(weights[EMBEDDING]))
    head = HEAD if HEAD in weights else EMBEDDING
    for batch in batches:
        with heard(network, partial(sums.add, batch.real, head)):
            hidden = network.hidden(batch.ids, None, batch.real)
        sums.add(batch.scored, "", head, hidden)
        reads += torch.bincount(batch.ids[batch.real], minlength=len(reads))
    num = int(reads.sum())
    scored = sum(batch.num_scored for batch in batches)
    inputs = {name: total / (scored if name == head else num) for name, total in sums.totals.items()}
    return Calibration(inputs, reads / num, num)


@dataclass
class Sums:
    """Second moments of inputs, as they add up."""

    totals: dict[str, Tensor]

    def add(self, which: Tensor, but: str, name: str, x: Tensor) -> None:
        """Add inputs (rows, tokens, width) where `which` (rows, tokens) is true, of all matrices but one."""
        if name != but:
            chosen = x[which].float()
            self.totals[name] = self.totals.get(name, 0) + chosen.T @ chosen
