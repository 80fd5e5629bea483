"""Values and gradients in closed form are those of autograd on the formulas as papers write them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stepwell.distill import losses
from stepwell.distill.losses import Sparse, Spec, told
from stepwell.distill.sparse import sampled, top

TOKENS, WORDS, WIDTH = 40, 60, 16
CHANCE = torch.Generator().manual_seed(0)
LOGITS, TEACHER = (torch.randn(TOKENS, WORDS, generator=CHANCE).double() * 3 for _ in range(2))
TARGETS = torch.randint(0, WORDS, (TOKENS,), generator=CHANCE)


def kl(a: Tensor, b: Tensor) -> Tensor:
    return (a * (a / b).log()).sum(-1)


FORMULAS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "fkl": lambda q, p, _: kl(p, q),
    "rkl": lambda q, p, _: kl(q, p),
    "jsd": lambda q, p, b: b * kl(p, b * p + (1 - b) * q) + (1 - b) * kl(q, b * p + (1 - b) * q),
    "skew": lambda q, p, a: kl(p, a * p + (1 - a) * q),
}


def reference(spec: Spec, logits: Tensor) -> Tensor:
    plain = nn.functional.cross_entropy(logits, TARGETS, label_smoothing=spec.smoothing, reduction="none")
    if spec.name == "ce":
        return plain
    q, p = (torch.softmax(x / spec.temperature, -1) for x in (logits, TEACHER))
    return (1 - spec.alpha) * plain + spec.alpha * spec.temperature**2 * FORMULAS[spec.name](q, p, spec.number)


def agrees(found: losses.Told, values: Tensor, logits: Tensor) -> None:
    (slope,) = torch.autograd.grad(values.sum(), logits)
    torch.testing.assert_close(found[0].double(), values.detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found[1].double(), slope, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 0.7])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("loss", [("ce", 0.0), ("fkl", 0.0), ("rkl", 0.0), ("jsd", 0.3), ("skew", 0.1)])
def test_a_loss_is_its_formula(loss: tuple[str, float], temperature: float, alpha: float) -> None:
    spec = Spec(*loss, alpha=alpha, temperature=temperature, smoothing=0.1)
    logits = LOGITS.clone().requires_grad_()
    found = told(logits.detach().clone(), TARGETS, spec, None if loss[0] == "ce" else TEACHER)
    if loss[0] == "ce":
        spec = Spec("ce", smoothing=0.1)
    agrees(found, reference(spec, logits), logits)


def stored(kind: str, num: int) -> Sparse:
    logp = torch.log_softmax(TEACHER, -1).float().numpy()
    kept = (
        top(TARGETS.numpy(), logp, cover=0.9, most=num)
        if kind == "topk+rest"
        else sampled(TARGETS.numpy(), logp, num=num, seed=0)
    )
    known = torch.arange(TOKENS) % 3 > 0
    p = torch.from_numpy(np.exp(kept.logp)).double() * known[:, None]
    return Sparse(torch.from_numpy(kept.ids), p, torch.from_numpy(np.exp(kept.rest_logp)).double() * known, known)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["topk+rest", "sampled"])
def test_a_loss_on_stored_probabilities_is_its_formula(kind: str, smoothing: float) -> None:
    held, alpha = stored(kind, 5), 0.8
    logits = LOGITS.clone().requires_grad_()
    q = torch.softmax(logits, -1)
    there = q.gather(1, held.ids)
    values = (torch.special.xlogy(held.p, held.p) - torch.special.xlogy(held.p, there)).sum(-1)
    if kind == "topk+rest":
        left = 1 - (there * (held.p > 0)).sum(-1)
        values = values + torch.special.xlogy(held.rest, held.rest) - torch.special.xlogy(held.rest, left)
    plain = nn.functional.cross_entropy(logits, TARGETS, label_smoothing=smoothing, reduction="none")
    share = alpha * held.known
    spec = Spec(kind, alpha=alpha, smoothing=smoothing)
    agrees(told(logits.detach().clone(), TARGETS, spec, held), (1 - share) * plain + share * values, logits)


def test_all_tokens_stored_are_the_whole_divergence() -> None:
    p = torch.softmax(TEACHER, -1)
    ids = torch.arange(WORDS).expand(TOKENS, WORDS)
    held = Sparse(ids, p, torch.zeros(TOKENS).double(), torch.ones(TOKENS, dtype=torch.bool))
    whole = told(LOGITS.clone(), TARGETS, Spec("fkl", alpha=0.9), TEACHER)
    for name in ("topk+rest", "sampled"):
        values, slope = told(LOGITS.clone(), TARGETS, Spec(name, alpha=0.9), held)
        torch.testing.assert_close(slope, whole[1], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(values, whole[0], atol=1e-5, rtol=1e-5)


def test_drawn_probabilities_teach_the_whole_on_average() -> None:
    logp = torch.log_softmax(TEACHER, -1).float().numpy()
    slopes = torch.zeros(TOKENS, WORDS, dtype=torch.float64)
    for seed in range(300):
        kept = sampled(TARGETS.numpy(), logp, num=12, seed=seed)
        known = torch.ones(TOKENS, dtype=torch.bool)
        p = torch.from_numpy(np.exp(kept.logp)).double()
        held = Sparse(torch.from_numpy(kept.ids), p, torch.zeros(TOKENS).double(), known)
        slopes += told(LOGITS.clone(), TARGETS, Spec("sampled"), held)[1] / 300
    assert (slopes - told(LOGITS.clone(), TARGETS, Spec("fkl"), TEACHER)[1]).abs().max() < 0.05


@pytest.mark.parametrize("size", [1, 7 * WORDS, 1 << 20])
def test_slices_change_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "SLICE_VALUES", size)
    torch.manual_seed(0)
    head, body = nn.Linear(WIDTH, WORDS).double(), nn.Linear(WIDTH, WIDTH).double()
    x, weights = torch.randn(TOKENS, WIDTH).double(), torch.rand(TOKENS).double()
    expected = (reference(Spec("rkl", alpha=0.5), head(body(x))) * weights).sum()
    expected.backward()
    slopes = [weight.grad.clone() for weight in (*head.parameters(), *body.parameters())]
    head.zero_grad()
    body.zero_grad()
    spec = Spec("rkl", alpha=0.5)
    total = losses.taught(head, body(x), TARGETS, weights, spec, teacher=lambda where: TEACHER[where])
    assert float(total) == pytest.approx(expected.item(), rel=1e-5)
    for slope, weight in zip(slopes, (*head.parameters(), *body.parameters()), strict=True):
        torch.testing.assert_close(weight.grad, slope, atol=1e-5, rtol=1e-4)


def test_a_teacher_with_more_rows_than_tokens_is_cut() -> None:
    wide = torch.cat([TEACHER, torch.full((TOKENS, 4), 9.0)], 1)
    for found, expected in zip(
        told(LOGITS.clone(), TARGETS, Spec("fkl"), wide),
        told(LOGITS.clone(), TARGETS, Spec("fkl"), TEACHER),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
    values, slope = told(torch.cat([LOGITS, LOGITS[:, :4]], 1), TARGETS, Spec("fkl"), TEACHER)
    assert slope.shape == (TOKENS, WORDS + 4)
    assert float(slope[:, WORDS:].abs().max()) == 0
    assert bool((values >= 0).all())


@pytest.mark.parametrize("name", ["fkl", "rkl", "jsd", "skew"])
def test_extreme_logits_stay_finite(name: str) -> None:
    logits, teacher = torch.tensor([[200.0, -200.0, 0.0]]), torch.tensor([[-200.0, 200.0, 0.0]])
    values, slope = told(logits, torch.tensor([0]), Spec(name, 0.5, alpha=0.5), teacher)
    assert bool(values.isfinite().all())
    assert bool(slope.isfinite().all())
