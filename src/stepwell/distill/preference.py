"""Learning to prefer: the repaired answer gains on the wrong one, as far as the student was before allows.

DPO (Rafailov et al. 2023, arXiv 2305.18290): -log sigmoid(b ((log q(c) - log q0(c)) - (log q(r) - log q0(r)))), with
the cross-entropy of the chosen answer beside it (RPO, Pang et al. 2024, arXiv 2404.19733), so that it does not grow
less likely together with the other. q0 is computed once: no second model is held.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stepwell.distill.batch import Row, Text, laid_out
from stepwell.distill.lessons import Pair
from stepwell.distill.student import Model

BATCH = 16
"""Pairs a step."""
RATE = 1e-4


def prefer(
    model: Model,
    pairs: Sequence[Pair],
    steps: int,
    *,
    beta: float = 0.1,
    rate: float = RATE,
    seed: int = 0,
    watch: Callable[[int, float], Any] = lambda _step, _loss: None,
) -> None:
    """Train in place, the rate falling to nothing; `watch` is told each step and its loss."""
    rows = [(row_of(model, pair.prompt, pair.chosen), row_of(model, pair.prompt, pair.rejected)) for pair in pairs]
    model.module.train()
    with torch.no_grad():
        before = torch.cat([gains(model, rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)])
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=rate, weight_decay=0.0)
    chance = random.Random(seed)  # noqa: S311 - no secret
    for step in range(steps):
        drawn = chance.sample(range(len(rows)), min(BATCH, len(rows)))
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        chosen, rejected = log_likelihoods(model, [rows[at] for at in drawn])
        gain = (chosen - rejected) - before[drawn]
        likely = sum(len(rows[at][0].texts[0].ids) for at in drawn)
        loss = -functional.logsigmoid(beta * gain).mean() - chosen.sum() / likely
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        optimizer.step()
        watch(step + 1, loss.item())
    model.module.eval()


def row_of(model: Model, prompt: str, text: str) -> Row:
    """One answer behind its prompt."""
    return Row(model.prompt_ids(prompt), (Text(model.text_ids(text), 1.0, ""),), prompt)


def gains(model: Model, pairs: Sequence[tuple[Row, Row]]) -> Tensor:
    """By how much the chosen answers are likelier than the others, as logarithms (pairs)."""
    chosen, rejected = log_likelihoods(model, pairs)
    return chosen - rejected


def log_likelihoods(model: Model, pairs: Sequence[tuple[Row, Row]]) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of the chosen and of the rejected answers (pairs), summed over their tokens."""
    rows = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    batch = laid_out(rows, packs=model.packs, pad=model.words.pad).to(model.device)
    hidden = model.hidden(batch.ids, batch.places, batch.mask)
    logp = functional.log_softmax(model.logits(hidden.flatten(0, 1)[batch.sources]).float(), -1)
    said = logp.gather(1, batch.targets[:, None])[:, 0]
    owner = torch.repeat_interleave(
        torch.arange(len(rows), device=model.device),
        torch.tensor([len(row.texts[0].ids) for row in rows], device=model.device),
    )
    summed = torch.zeros(len(rows), device=model.device).index_add(0, owner, said)
    return summed[: len(pairs)], summed[len(pairs) :]
