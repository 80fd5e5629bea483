"""How well a model foretells texts that it does not learn from."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from stepwell.distill import batch, losses
from stepwell.distill.data import Example
from stepwell.distill.student import Model

BATCH_TOKENS = 8192


@torch.no_grad()
def mean_loss(model: Model, examples: Sequence[Example]) -> float:
    """Mean cross-entropy of a token of the texts, ends included, in nats."""
    chance = random.Random(0)  # noqa: S311 - an order, and no secret
    rows = batch.rows_of(batch.groups_of(model, examples), 1, chance)
    total = 0.0
    for part in batch.in_batches(rows, BATCH_TOKENS, chance):
        laid = batch.laid_out(part, packs=model.packs, pad=model.words.pad).to(model.device)
        hidden = model.hidden(laid.ids, laid.places, laid.mask).flatten(0, 1)[laid.sources]
        values, _ = losses.cross_entropy(model.logits(hidden).float(), laid.targets, 0.0)
        total += float((values * laid.weights).sum())
    return total / batch.weight_of(rows)
