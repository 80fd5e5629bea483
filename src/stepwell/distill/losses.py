"""What a student is told at each token: a value, and its gradient by the logits in closed form.

`taught` cuts a batch into slices of tokens, so that (slice, vocabulary) stays small however long the texts and however
large the vocabulary: the probabilities of teacher and student for a whole batch never exist at once, neither forward
nor backward. q is the student's distribution, p the teacher's.

- ce: cross-entropy on the text. fkl: KL(p||q). rkl: KL(q||p).
- jsd:b: b KL(p||m) + (1-b) KL(q||m), m = b p + (1-b) q (Agarwal et al. 2024, GKD).
- skew:a: KL(p || a p + (1-a) q) (Ko et al. 2024, DistiLLM).
- topk+rest: KL over the likeliest tokens and one bucket for all others. sampled: -sum of drawn shares x log q
  (Anshumann et al. 2025): in expectation fkl.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SLICE_VALUES = 1 << 20
"""Logits of a slice: they stay in a core's cache, and memory does not grow with the vocabulary."""
SMALL = 1e-7
"""The least mass that is divided by."""

Told = tuple[Tensor, Tensor]
"""Values (n) and their gradients by the logits (n, vocabulary)."""


@dataclass(frozen=True)
class Spec:
    """Which divergence, and how it is mixed with the cross-entropy."""

    name: str = "ce"
    number: float = 0.0
    alpha: float = 1.0
    temperature: float = 1.0
    smoothing: float = 0.0


@dataclass(frozen=True)
class Sparse:
    """Stored probabilities of n places: ids and p (n, k), mass of the rest (n), and where anything is known (n)."""

    ids: Tensor
    p: Tensor
    rest: Tensor
    known: Tensor

    def part(self, where: slice) -> Sparse:
        """Some of the places."""
        return Sparse(self.ids[where], self.p[where], self.rest[where], self.known[where])


def taught(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    weights: Tensor,
    spec: Spec,
    *,
    teacher: Callable[[slice], Tensor] | Sparse | None = None,
) -> Tensor:
    """Sum of the weighted values; gradients go into the head's weights and back through `hidden` (n, hidden).

    `teacher` gives the logits of some of the n places, or holds stored ones. `weights` (n) have their divisor in them.
    """
    total = torch.zeros((), device=hidden.device)
    gradients = []
    size = max(1, SLICE_VALUES // width_of(head, hidden))
    for start in range(0, len(hidden), size):
        where = slice(start, start + size)
        leaf = hidden[where].detach().requires_grad_()
        logits = head(leaf)
        known = teacher(where) if callable(teacher) else None if teacher is None else teacher.part(where)
        values, gradient = told(logits.detach().float(), targets[where], spec, known)
        total += (values * weights[where]).sum()
        logits.backward(gradient.mul_(weights[where][:, None]).to(logits.dtype))
        gradients.append(leaf.grad)
    hidden.backward(torch.cat(gradients))
    return total


def width_of(head: Callable[[Tensor], Tensor], hidden: Tensor) -> int:
    """How many logits the head makes a token."""
    with torch.no_grad():
        return int(head(hidden[:1].detach()).shape[-1])


@torch.no_grad()
def told(logits: Tensor, targets: Tensor, spec: Spec, teacher: Tensor | Sparse | None) -> Told:
    """Cross-entropy on the targets (n), mixed with a divergence where a teacher is given. `logits` may be used up."""
    if teacher is None:
        return cross_entropy(logits, targets, spec.smoothing)
    if isinstance(teacher, Sparse):
        return sparse(logits, targets, spec, teacher)
    return dense(logits, targets, spec, teacher)


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float) -> Told:
    """-log q(target); smoothed, the target is a little of every token."""
    logq = functional.log_softmax(logits, -1)
    values = -logq.gather(1, targets[:, None])[:, 0]
    if smoothing:
        values = (1 - smoothing) * values - smoothing * logq.mean(-1)
    gradient = logq.exp_()
    if smoothing:
        gradient -= smoothing / gradient.shape[1]
    gradient.scatter_add_(1, targets[:, None], torch.full_like(values, smoothing - 1)[:, None])
    return values, gradient


def dense(logits: Tensor, targets: Tensor, spec: Spec, teacher: Tensor) -> Told:
    """Divergence from all of the teacher's logits, at a temperature (Hinton et al. 2015: times its square)."""
    num = min(logits.shape[1], teacher.shape[1])  # one tokenizer, rows padded differently
    heat = spec.temperature
    logq = functional.log_softmax(logits[:, :num] / heat, -1)
    logp = functional.log_softmax(teacher[:, :num].float() / heat, -1)
    values, gradient = DIVERGENCES[spec.name](logq, logp, spec.number)
    values, gradient = values.mul_(heat * heat * spec.alpha), gradient.mul_(heat * spec.alpha)
    if num < logits.shape[1]:
        gradient = functional.pad(gradient, (0, logits.shape[1] - num))
    if spec.alpha == 1:
        return values, gradient
    plain, slope = cross_entropy(logits, targets, spec.smoothing)
    return values.add_(plain, alpha=1 - spec.alpha), gradient.add_(slope, alpha=1 - spec.alpha)


def forward_kl(logq: Tensor, logp: Tensor, _: float) -> Told:
    """KL(p||q); its gradient is q - p."""
    p = logp.exp()
    return (p * (logp - logq)).sum(-1), logq.exp() - p


def reverse_kl(logq: Tensor, logp: Tensor, _: float) -> Told:
    """KL(q||p)."""
    q = logq.exp()
    apart = logq - logp
    values = (q * apart).sum(-1)
    return values, q.mul_(apart.sub_(values[:, None]))


def jensen_shannon(logq: Tensor, logp: Tensor, beta: float) -> Told:
    """Generalized Jensen-Shannon divergence; between forward (towards 0, scaled) and reverse KL (towards 1)."""
    p, q = logp.exp(), logq.exp()
    logm = p.mul(beta).add_(q, alpha=1 - beta).clamp_min_(torch.finfo(q.dtype).tiny).log_()
    apart = logq - logm
    mixed = (q * apart).sum(-1)
    values = beta * (p * (logp - logm)).sum(-1) + (1 - beta) * mixed
    return values, q.mul_(apart.sub_(mixed[:, None])).mul_(1 - beta)


def skew_kl(logq: Tensor, logp: Tensor, alpha: float) -> Told:
    """KL(p || alpha p + (1-alpha) q)."""
    p, q = logp.exp(), logq.exp()
    m = p.mul(alpha).add_(q, alpha=1 - alpha).clamp_min_(torch.finfo(q.dtype).tiny)
    values = (p * (logp - m.log())).sum(-1)
    slope = p.div_(m).mul_(-(1 - alpha))
    mean = (q * slope).sum(-1, keepdim=True)
    return values, q.mul_(slope.sub_(mean))


DIVERGENCES = {"fkl": forward_kl, "rkl": reverse_kl, "jsd": jensen_shannon, "skew": skew_kl}


def sparse(logits: Tensor, targets: Tensor, spec: Spec, teacher: Sparse) -> Told:
    """Divergence from stored probabilities; where none are known, the cross-entropy alone.

    With P the stored mass and Q the student's mass on the same tokens, the gradient of topk+rest is
    q_i - p_i on them and q_j (1 - (1-P) / (1-Q)) on all others: one softmax, then a few numbers a row.
    """
    share = teacher.known.to(logits.dtype) * spec.alpha
    logq = functional.log_softmax(logits, -1)
    plain = -logq.gather(1, targets[:, None])[:, 0]
    if spec.smoothing:
        plain = (1 - spec.smoothing) * plain - spec.smoothing * logq.mean(-1)
    there = logq.gather(1, teacher.ids)
    values = torch.special.xlogy(teacher.p, teacher.p).sum(-1) - (teacher.p * there).sum(-1)
    gradient = logq.exp_()
    if spec.name == "topk+rest":
        own = there.exp() * (teacher.p > 0)
        left = (1 - own.sum(-1)).clamp_min(SMALL)
        values += torch.special.xlogy(teacher.rest, teacher.rest) - teacher.rest * left.log()
        ratio = share * teacher.rest / left
        gradient *= (1 - ratio)[:, None]
        gradient.scatter_add_(1, teacher.ids, own * ratio[:, None] - share[:, None] * teacher.p)
    else:
        gradient.scatter_add_(1, teacher.ids, -share[:, None] * teacher.p)
    if spec.smoothing:
        gradient -= ((1 - share) * spec.smoothing / gradient.shape[1])[:, None]
    gradient.scatter_add_(1, targets[:, None], ((share - 1) * (1 - spec.smoothing))[:, None])
    return (1 - share) * plain + share * values, gradient
