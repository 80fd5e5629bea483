"""Low-rank adapters (Hu et al. 2021): the weights stay, and a narrow pair of matrices beside each of them learns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from stepwell.errors import DistillError


class Adapted(nn.Module):
    """A linear layer and its adapter: base(x) + scale * up(down(x)); at first the adapter adds nothing."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        narrow = functional.linear(functional.linear(x, self.down), self.up)
        return self.base(x) + self.scale * narrow

    def merged(self) -> Tensor:
        """The one matrix that does the same."""
        return self.base.weight + self.scale * (self.up @ self.down)


def adapt(module: nn.Module, rank: int, scale: float) -> None:
    """Put an adapter beside every linear layer but the head; nothing else learns. Raises DistillError."""
    module.requires_grad_(requires_grad=False)
    found = [
        (owner, name, layer)
        for owner in module.modules()
        for name, layer in owner.named_children()
        if isinstance(layer, nn.Linear) and name != "lm_head"
    ]
    if not found:
        raise DistillError("the model has no linear layers to put adapters beside: set lora = 0 under [student]")
    for owner, name, layer in found:
        setattr(owner, name, Adapted(layer, rank, scale))


def adapters(module: nn.Module) -> Iterator[tuple[str, Adapted]]:
    """The adapted layers by name."""
    for name, layer in module.named_modules():
        if isinstance(layer, Adapted):
            yield name, layer


@torch.no_grad()
def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with adapters merged into their weights: as if there were none."""
    state = dict(module.state_dict())
    for name, layer in list(adapters(module)):
        for part in ("base.weight", "down", "up"):
            del state[f"{name}.{part}"]
        state[f"{name}.weight"] = layer.merged()
        if f"{name}.base.bias" in state:
            state[f"{name}.bias"] = state.pop(f"{name}.base.bias")
    return state


def write_adapter(module: nn.Module, folder: Path, prefix: str, base: str) -> None:
    """The adapters alone, as peft reads them; `prefix` stands before a layer's name in transformers' model."""
    layers = dict(adapters(module))
    if not layers:
        return
    folder.mkdir(parents=True)
    weights = {}
    for name, layer in layers.items():
        path = f"base_model.model.{prefix}{name}"
        weights[f"{path}.lora_A.weight"] = layer.down.detach().float().cpu().contiguous()
        weights[f"{path}.lora_B.weight"] = layer.up.detach().float().cpu().contiguous()
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    first = next(iter(layers.values()))
    said: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": len(first.down),
        "lora_alpha": first.scale * len(first.down),
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
