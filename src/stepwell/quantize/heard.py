"""Listening to a model: what each linear layer reads and says, and how the loss moves with what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from stepwell.quantize.network import EMBEDDING, Network, matrices

Tell = Callable[[Tensor, Tensor], None]


class Heard(nn.Linear):
    """A linear layer that tells input and output; of a class of its own, so that nobody multiplies past it."""

    def __init__(self, layer: nn.Linear, tell: Tell) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias, self.tell = layer.weight, layer.bias, tell

    def forward(self, x: Tensor) -> Tensor:
        """The layer's own output."""
        y = super().forward(x)
        self.tell(x.detach(), y)
        return y


@dataclass
class Notes:
    """What was heard in one pass."""

    inputs: dict[str, Tensor]
    """Of each linear layer, by its weight's short name."""
    outputs: dict[str, Tensor]
    """Of each linear layer and of the embedding."""
    factor: float = 1.0
    """What the embedding multiplies its rows by."""

    def clear(self) -> None:
        """Forget all but the factor."""
        self.inputs.clear()
        self.outputs.clear()

    def note(self, name: str, x: Tensor, y: Tensor) -> None:
        """A layer has run."""
        self.inputs[name], self.outputs[name] = x, y

    def read(self, weight: Tensor, layer: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:  # noqa: ARG002
        """The embedding has been read: gradients begin here."""
        y = y.detach().requires_grad_()
        rows = weight[inputs[0]]
        self.factor = float((rows * y.detach()).sum() / rows.square().sum().clamp(min=1e-30))
        self.outputs[EMBEDDING] = y
        return y


@contextmanager
def listening(network: Network) -> Iterator[Notes]:
    """Note every linear layer that runs; meanwhile no weight asks for gradients."""
    notes = Notes({}, {})
    held = matrices(network)
    weights = {id(weight): name for name, weight in held.items()}
    asked = [weight for weight in network.module.parameters() if weight.requires_grad]
    places = list(linears(network.module))
    table = next(
        each
        for each in network.module.modules()
        if isinstance(each, nn.Embedding) and each.weight is held.get(EMBEDDING)
    )
    hook = table.register_forward_hook(partial(notes.read, table.weight))
    try:
        for weight in asked:
            weight.requires_grad_(requires_grad=False)
        for parent, child, layer in places:
            setattr(parent, child, Heard(layer, partial(notes.note, weights[id(layer.weight)])))
        yield notes
    finally:
        hook.remove()
        for parent, child, layer in places:
            setattr(parent, child, layer)
        for weight in asked:
            weight.requires_grad_()


def linears(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Every linear layer: who has it, under what name."""
    for parent in module.modules():
        for child, layer in parent.named_children():
            if isinstance(layer, nn.Linear):
                yield parent, child, layer


def slopes(loss: Tensor, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The loss's gradients at these outputs, where it hangs on them."""
    found = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
    return {name: each for name, each in zip(outputs, found, strict=True) if each is not None}
