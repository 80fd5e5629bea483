"""Greedy answers of a Writer, in batches of prompts of equal length."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from recipes.writer.model import Writer
from recipes.writer.tokenizer import EOS, PAD, Tokenizer, prompt_ids

LONGEST = 110
BATCH = 64


@torch.no_grad()
def greedy(model: Writer, words: Tokenizer, mrs: list[str]) -> list[str]:
    """The most likely continuation of each meaning representation, token by token."""
    model.eval()
    by_length: dict[int, list[int]] = defaultdict(list)
    prompts = [prompt_ids(words, mr) for mr in mrs]
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    said = [""] * len(mrs)
    for indices in by_length.values():
        for start in range(0, len(indices), BATCH):
            part = indices[start : start + BATCH]
            for index, ids in zip(part, continued(model, [prompts[index] for index in part]), strict=True):
                said[index] = words.decode(ids).strip()
    return said


def continued(model: Writer, prompts: list[list[int]]) -> list[list[int]]:
    """Continue prompts of equal length until each has said </s>."""
    device = model.embed_tokens.weight.device
    ids = torch.tensor(prompts, device=device)
    length = ids.shape[1]
    open_ = torch.ones(len(prompts), dtype=torch.bool, device=device)
    for _ in range(LONGEST):
        logits: Tensor = model.logits(model(ids)[:, -1])
        following = torch.where(open_, logits.argmax(-1), PAD)
        ids = torch.cat([ids, following[:, None]], 1)
        open_ &= following != EOS
        if not bool(open_.any()):
            break
    return [[token for token in row if token not in (PAD, EOS)] for row in ids[:, length:].tolist()]
