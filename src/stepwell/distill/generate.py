"""Texts of a model: batches of prompts with their keys and values kept, each prompt read once for all its texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stepwell.distill.student import Model
from stepwell.errors import DistillError

COMPACT = 0.75
"""When no more than this share of the rows still writes, the others are left out."""


def generate(
    model: Model,
    prompts: Sequence[str],
    *,
    num: int = 1,
    temperature: float = 0.0,
    max_tokens: int = 96,
    seed: int = 0,
    batch: int = 128,
    watch: Callable[[int], Any] | None = None,
) -> list[list[str]]:
    """`num` texts a prompt, the likeliest where the temperature is 0; `watch` is told how many prompts are done."""
    written = generate_ids(
        model,
        [model.prompt_ids(prompt) for prompt in prompts],
        num=num,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        batch=batch,
        watch=watch,
    )
    return [[model.words.text(ids) for ids in texts] for texts in written]


def generate_ids(
    model: Model,
    prompts: Sequence[list[int]],
    *,
    num: int = 1,
    temperature: float = 0.0,
    max_tokens: int = 96,
    seed: int = 0,
    batch: int = 128,
    watch: Callable[[int], Any] | None = None,
) -> list[list[list[int]]]:
    """Token ids in, token ids out; a text that came to its end has the end token last."""
    training = model.module.training
    model.module.eval()
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    texts: list[list[list[int]]] = [[] for _ in prompts]
    size = max(1, batch // num)
    for start in range(0, len(order), size):
        part = order[start : start + size]
        chance = torch.rand(len(part) * num, max_tokens, generator=torch.Generator().manual_seed(seed + start))
        said = continued(model, [prompts[index] for index in part], num, temperature, chance.to(model.device))
        for at, index in enumerate(part):
            texts[index] = said[at * num : (at + 1) * num]
        if watch is not None:
            watch(len(part))
    model.module.train(training)
    return texts


@torch.no_grad()
def continued(
    model: Model, prompts: Sequence[list[int]], num: int, temperature: float, chance: Tensor
) -> list[list[int]]:
    """Continue prompts, each `num` times; `chance` (rows, tokens) decides what is drawn."""
    longest, most = max(map(len, prompts)), chance.shape[1]
    if model.context and longest >= model.context:
        raise DistillError(f"a prompt of {longest} tokens leaves no room in a context of {model.context}")
    most = min(most, model.context - longest) if model.context else most
    ids, real = left_padded(prompts, model.words.pad, model.device)
    places = (real.cumsum(1) - 1).clamp_min(0)
    cache = model.module.cache(len(prompts), longest + most)
    even = len(set(map(len, prompts))) == 1
    hidden = model.module(ids, None if even else places, None if even else real, cache=cache)[:, -1]
    place = places[:, -1:].repeat_interleave(num, 0)
    real, hidden = real.repeat_interleave(num, 0), hidden.repeat_interleave(num, 0)
    if num > 1:
        cache.repeat(num)
    ends = torch.tensor(sorted(model.words.ends), device=model.device)
    said = torch.full((len(hidden), most), -1, device=model.device)
    rows, open_ = torch.arange(len(hidden), device=model.device), torch.ones_like(place[:, 0], dtype=torch.bool)
    for step in range(most):
        token = picked(model.logits(hidden), temperature, chance[rows, step])
        said[rows[open_], step] = token[open_]
        open_ &= ~torch.isin(token, ends)
        num_open = int(open_.sum())
        if not num_open or step + 1 == most:
            break
        if num_open <= COMPACT * len(rows):
            kept = open_.nonzero()[:, 0]
            rows, token, place, real, open_ = rows[kept], token[kept], place[kept], real[kept], open_[kept]
            cache.keep(kept)
        place = place + 1
        real = functional.pad(real, (0, 1), value=True)
        hidden = model.module(token[:, None], place, None if even else real, cache=cache)[:, -1]
    return [row[: row.index(-1)] if -1 in row else row for row in said.tolist()]


def left_padded(prompts: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts that all end in the last column, and which of the tokens are real."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    ahead = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
    return ids, torch.arange(longest, device=device) >= ahead[:, None]


def picked(logits: Tensor, temperature: float, chance: Tensor) -> Tensor:
    """The likeliest token of each row, or one drawn at a temperature by a number in [0, 1) a row."""
    if not temperature:
        return logits.argmax(-1)
    shares = functional.softmax(logits.float() / temperature, -1).cumsum(-1)
    aim = chance[:, None] * shares[:, -1:]
    return torch.searchsorted(shares, aim, right=True)[:, 0].clamp_max(logits.shape[-1] - 1)
