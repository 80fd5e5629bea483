"""Run a model from one of its layers on: what lies before is not changed, so it is not computed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from stepwell.quantize.network import HEAD, Network, short

LAYERS = "layers."


class Passed(nn.Module):
    """A layer whose work is not needed: its input goes through."""

    def forward(self, x: Any, *_: Any, **__: Any) -> Any:  # noqa: ANN401, D102 - whatever a layer takes
        return x


class Remembered(nn.Module):
    """A layer that says again what it said, pass by pass."""

    def __init__(self, said: list[Any]) -> None:
        super().__init__()
        self.said, self.at = said, 0

    def forward(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401, D102
        self.at += 1
        return self.said[(self.at - 1) % len(self.said)]


class Past:
    """What every layer says, once, while a model reads some batches.

    Keeps (layers, tokens, hidden) in memory. The batches that follow have to be the same ones, in the same order.
    """

    def __init__(self, network: Network) -> None:
        self.layers = layers(network.module)
        self.said: list[list[Any]] = [[] for _ in self.layers or ()]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Remember what layers say from here on, afresh."""
        self.said = [[] for _ in self.layers or ()]
        hooks = [
            layer.register_forward_hook(lambda _, __, said, at=at: self.said[at].append(said))
            for at, layer in enumerate(self.layers or ())
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def from_layer_of(self, name: str) -> Iterator[None]:
        """Run the layer of this weight and those behind it; the ones before say what they said."""
        if self.layers is None:
            yield
            return
        first = len(self.layers) if name == HEAD else layer_of(name)
        if not first:
            yield
            return
        own = list(self.layers)[:first]
        try:
            for at in range(first - 1):
                self.layers[at] = Passed()
            self.layers[first - 1] = Remembered(self.said[first - 1])
            yield
        finally:
            for at, layer in enumerate(own):
                self.layers[at] = layer


def layers(module: nn.Module) -> nn.ModuleList | None:
    """The list of a model's layers; None where it has no such list."""
    for name, each in module.named_modules():
        if isinstance(each, nn.ModuleList) and f"{short(name)}." == LAYERS:
            return each
    return None


def layer_of(name: str) -> int:
    """The number of a weight's layer, by its short name; 0 for what lies before or around the layers."""
    if not name.startswith(LAYERS):
        return 0
    return int(name.removeprefix(LAYERS).split(".")[0])
