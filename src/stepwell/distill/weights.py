"""Two forms of the weights that learn: as they are kept (float32) and as they are computed with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Transform = Callable[[str, Tensor], Tensor]
"""Name and weight -> weight as computed with; gradients flow back through it (quantization-aware training).

One with a `name` is known by it: a run goes on with no other.
"""


class Weights:
    """Masters in float32, and the module's own parameters, which follow them in another precision or transformed."""

    def __init__(self, module: nn.Module, dtype: torch.dtype, transform: Transform | None = None) -> None:
        self.module, self.dtype, self.transform = module, dtype, transform
        named = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.computed: dict[str, nn.Parameter] = named
        self.apart = dtype != torch.float32 or transform is not None
        self.masters: dict[str, Tensor] = (
            {name: weight.detach().float().clone() for name, weight in named.items()} if self.apart else dict(named)
        )
        self.frozen = lossy(module, dtype)
        self.transforms = transform is not None
        self.made: dict[str, tuple[Tensor, Tensor]] = {}
        module.zero_grad(set_to_none=True)
        module.to(dtype)
        self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """Computed weights from the masters; what was transformed is kept until its gradients come back."""
        self.made = {}
        for name, weight in self.computed.items() if self.apart else ():
            made = self.masters[name].detach()
            if self.transform is not None and self.transforms:
                leaf = made.requires_grad_()
                with torch.enable_grad():
                    made = self.transform(name, leaf)
                self.made[name] = leaf, made
            weight.copy_(made)

    def begin(self, *, transforms: bool) -> None:
        """From now on compute with transformed weights, or with plain ones."""
        if transforms != self.transforms:
            self.transforms = transforms
            self.follow()

    def collect(self) -> None:
        """Gradients of what was computed with become the masters' own."""
        for name, weight in self.computed.items() if self.apart else ():
            gradient = torch.zeros_like(self.masters[name]) if weight.grad is None else weight.grad.float()
            weight.grad = None
            if name in self.made:
                leaf, made = self.made.pop(name)
                made.backward(gradient)
                gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            self.masters[name].grad = gradient
        for weight in () if self.apart else self.masters.values():
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad

    @contextmanager
    def shown(self, values: Mapping[str, Tensor], *, transformed: bool) -> Iterator[None]:
        """The module in float32 with these values in place of its own, as they are or as they are computed with."""
        held = None if self.apart else {name: weight.detach().clone() for name, weight in self.masters.items()}
        self.module.float()
        with torch.no_grad():
            for name, weight in self.module.named_parameters():
                if name in values:
                    use = self.transform if transformed else None
                    weight.copy_(values[name] if use is None else use(name, values[name]))
                elif name in self.frozen:
                    weight.copy_(self.frozen[name])
        try:
            yield
        finally:
            self.module.to(self.dtype)
            with torch.no_grad():
                for name, value in (held or {}).items():
                    self.masters[name].copy_(value)
            self.follow()

    @torch.no_grad()
    def leave(self) -> None:
        """The module as it came, in float32, with the masters' values and no gradients."""
        self.module.float()
        for name, weight in self.module.named_parameters():
            weight.grad = None
            if self.apart and name in self.masters:
                weight.copy_(self.masters[name])
            elif name in self.frozen:
                weight.copy_(self.frozen[name])


def lossy(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights that do not learn and would lose digits in another precision, kept to be saved as they came."""
    still = {name: weight for name, weight in module.named_parameters() if not weight.requires_grad}
    return {
        name: weight.detach().clone() for name, weight in still.items() if not torch.equal(weight.to(dtype), weight)
    }


def optimizers_of(
    masters: Mapping[str, Tensor], rate: float, decay: float, *, muon: bool = False
) -> list[torch.optim.Optimizer]:
    """AdamW; norms and biases are not decayed. With `muon`, matrices but embeddings and head move by Muon.

    Muon (Jordan et al. 2024) with steps as large as AdamW's (Liu et al. 2025), so that one rate fits both.
    """
    turned = [weight for name, weight in masters.items() if muon and is_map(name, weight)]
    others = [weight for name, weight in masters.items() if not muon or not is_map(name, weight)]
    groups = [
        {"params": [weight for weight in others if weight.dim() > 1], "weight_decay": decay},
        {"params": [weight for weight in others if weight.dim() <= 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, betas=(0.9, 0.98), fused=True)
    if not turned:
        return [adam]
    return [torch.optim.Muon(turned, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"), adam]


def is_map(name: str, weight: Tensor) -> bool:
    """Whether a weight is a matrix from directions to directions; rows of embeddings and head are tokens."""
    return weight.dim() == len(("out", "in")) and "embed" not in name and "lm_head" not in name


def rate_at(step: int, *, steps: int, rate: float, warm_steps: int, fall_share: float) -> float:
    """Warm up, stay, and fall along a half cosine to a fiftieth (warmup-stable-decay, Hu et al. 2024)."""
    if step < warm_steps:
        return rate * (step + 1) / warm_steps
    start = max(warm_steps, steps * (1 - fall_share))
    if step < start or start >= steps:
        return rate
    done = min(1.0, (step - start) / (steps - start))
    return rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
