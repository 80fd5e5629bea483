"""A task's own texts, laid out as token ids, and what they show of a model: the curvature of each matrix.

The gradients are those of the likelihood of tokens that the model itself draws: their second moments are the Fisher
information, which is the KL divergence's own curvature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from stepwell.errors import DistillError
from stepwell.quantize.curvature import MATRIX, Own, Term
from stepwell.quantize.curvature import Calibration as Calibration  # noqa: PLC0414 - what this file measures
from stepwell.quantize.heard import Notes, listening, slopes
from stepwell.quantize.network import EMBEDDING, HEAD, Network, check_numbers, matrices

WIDE = 2048
"""Of matrices with more rows R is taken as diagonal: what falls outside is large, and brings little."""
OWN_NUMBERS = 1 << 23
"""Numbers held for curvatures of single tokens: a hundred and twenty-eight of 256 x 256."""
SEEN = 1e-3
"""Curvatures of tokens' odds below it are left to the pooled ones."""
POOLED = 0.1
"""Share of the pooled curvature that is added to a token's own: texts show little of it."""
NATIVE = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - no public name
"""Whether this processor multiplies 16-bit numbers twice as quickly: what is averaged needs no more."""
Key = TypeVar("Key")
LAST = "last"
"""Beside the names of weights: what the head says."""


@dataclass(frozen=True)
class Tokens:
    """Some texts side by side, each (rows, tokens); what is padded lies behind."""

    ids: Tensor
    real: Tensor
    """bool: a token of the text."""
    scored: Tensor
    """bool: the next token is a completion's."""

    @property
    def num_scored(self) -> int:
        """Tokens that are judged."""
        return int(self.scored.sum())


def laid(texts: Sequence[tuple[list[int], list[int]]], *, pad: int, rows: int = 32) -> list[Tokens]:
    """Prompts and completions as batches of so many rows, texts of like length together.

    Raises DistillError where there is nothing to read.
    """
    if not any(completion for _, completion in texts):
        raise DistillError("there are no calibration texts: give rows with prompts and completions")
    order = sorted(texts, key=lambda text: len(text[0]) + len(text[1]))
    return [side_by_side(order[at : at + rows], pad) for at in range(0, len(order), rows)]


def side_by_side(texts: Sequence[tuple[list[int], list[int]]], pad: int) -> Tokens:
    """One batch."""
    longest = max(len(prompt) + len(completion) for prompt, completion in texts)
    ids = torch.full((len(texts), longest), pad)
    real, scored = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(texts):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor([*prompt, *completion])
        real[row, :end] = True
        scored[row, max(len(prompt) - 1, 0) : end - 1] = True
    return Tokens(ids, real, scored)


def measured(network: Network, batches: Sequence[Tokens]) -> Calibration:
    """Let the texts pass, and draw what the model would say.

    Raises DistillError where there are none, and for a model whose weights are no numbers.
    """
    if not any(batch.num_scored for batch in batches):
        raise DistillError("there are no calibration texts: give rows with prompts and completions")
    weights = matrices(network)
    if EMBEDDING not in weights:
        raise DistillError(f"the model has no {EMBEDDING}: its architecture is unknown here")
    for name, weight in weights.items():
        check_numbers(name, weight)
    vocabulary, width = weights[EMBEDDING].shape
    reads = torch.cat([batch.ids[batch.real] for batch in batches]).bincount(minlength=vocabulary)
    most = reads.topk(min(OWN_NUMBERS // width**2, vocabulary))
    sums = Sums(HEAD if HEAD in weights else EMBEDDING, reads, most.indices[most.values > 0].tolist())
    draw = torch.Generator().manual_seed(0)
    with torch.enable_grad(), listening(network) as notes:
        for batch in batches:
            sums.add(batch, passed(network, batch, notes, draw), notes.factor)
    return sums.calibration()


@dataclass(frozen=True)
class Pass:
    """What one batch shows."""

    inputs: dict[str, Tensor]
    gradients: dict[str, Tensor]
    hidden: Tensor
    """(scored tokens, hidden): what the head reads."""
    curvature: Tensor
    """(scored tokens, vocabulary): second derivatives of the loss by what the head says."""


def passed(network: Network, batch: Tokens, notes: Notes, draw: torch.Generator) -> Pass:
    """One batch forward, and back from tokens that the model draws."""
    notes.clear()
    with torch.autocast("cpu", torch.bfloat16, enabled=NATIVE):
        hidden = network.hidden(batch.ids, None, batch.real)[batch.scored].float()
    inputs, outputs = dict(notes.inputs), dict(notes.outputs)
    notes.clear()
    logits = network.logits(hidden)
    outputs[LAST] = next(iter(notes.outputs.values()), logits)  # a layer's, where a model bends it into logits
    said = torch.log_softmax(logits.float(), -1)
    odds = said.detach().exp()
    chance = torch.rand(len(odds), 1, generator=draw)
    drawn = torch.searchsorted(odds.cumsum(1), chance).clamp(max=odds.shape[1] - 1)
    gradients = slopes(-said.gather(1, drawn).sum(), outputs)
    straight = (odds - torch.zeros_like(odds).scatter_(1, drawn, 1.0)).square().sum()
    bend = float(gradients.pop(LAST).square().sum() / straight.clamp(min=1e-30))
    return Pass(inputs, gradients, hidden.detach(), bend * odds * (1 - odds))


@dataclass
class Sums:
    """What adds up over batches."""

    head: str
    reads: Tensor
    """(vocabulary): how often each row of the embedding is read, in all batches."""
    common: list[int]
    """Tokens that are read so often that each has a curvature of its own."""
    seen: dict[str, int] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    read: Tensor | None = None
    """(width, width): of gradients at the embedding."""
    own: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    """(width, width) of common tokens, as rows of the head and of the embedding."""
    num_scored: int = 0

    def add(self, batch: Tokens, heard: Pass, factor: float) -> None:
        """One batch's."""
        for name, gradient in heard.gradients.items():
            slope = gradient[batch.real].float()
            if name == EMBEDDING:
                self.add_read(batch, factor * slope)
            else:
                plus(self.rows, name, coupling(slope))
                self.add_inputs(name, heard.inputs[name][batch.real].float(), squares(slope, 1))
        plus(self.rows, self.head, heard.curvature.sum(0))
        self.add_inputs(self.head, heard.hidden, heard.curvature.sum(1))
        self.add_head(heard.hidden, heard.curvature)
        self.num_scored += batch.num_scored

    def add_inputs(self, name: str, x: Tensor, weight: Tensor) -> None:
        """What a matrix reads (tokens, width), and how much an error there matters (tokens)."""
        self.seen[name] = self.seen.get(name, 0) + len(x)
        plus(self.squares, name, squares(x, 0))
        plus(self.columns, name, (x * weight[:, None]).T @ x)

    def add_read(self, batch: Tokens, slope: Tensor) -> None:
        """Gradients at what the embedding gave; a common token's add up within a text, as its error does."""
        moments = square(slope)
        self.read = moments if self.read is None else self.read + moments
        own, ids = self.own.setdefault(EMBEDDING, {}), batch.ids[batch.real]
        text = batch.real.nonzero()[:, 0]
        for token in self.common:
            here = ids == token
            texts = slope.new_zeros(len(batch.ids), slope.shape[1]).index_add_(0, text[here], slope[here])
            plus(own, token, square(texts))

    def add_head(self, hidden: Tensor, curvature: Tensor) -> None:
        """What the head reads where common tokens are likely, but not certain."""
        own = self.own.setdefault(self.head, {})
        for token in self.common:
            weight = curvature[:, token]
            which = weight > SEEN
            plus(own, token, square(hidden[which] * weight[which, None].sqrt()))

    def calibration(self) -> Calibration:
        """The means."""
        terms: dict[str, tuple[Term, ...]] = {name: (self.term(name),) for name in self.rows}
        if self.read is not None:
            read = Term(self.reads / self.num_scored, self.read / self.reads.sum())
            terms[EMBEDDING] = (*terms.get(EMBEDDING, ()), read)
        inputs = {name: total / self.seen[name] for name, total in self.squares.items()}
        common = torch.tensor(self.common, dtype=torch.long)
        own = {name: self.owned(name, common, terms[name]) for name in self.own if self.common}
        for name in own:
            terms[name] = tuple(Term(term.rows.index_fill(0, common, 0), term.columns) for term in terms[name])
        return Calibration(inputs, terms, self.num_scored, own)

    def term(self, name: str) -> Term:
        """What a linear layer's errors cost."""
        rows = self.rows[name]
        mass = rows.trace() if rows.dim() == MATRIX else rows.sum()
        return Term(rows / self.num_scored, self.columns[name] / mass.clamp(min=1e-30))

    def owned(self, name: str, common: Tensor, terms: Sequence[Term]) -> Own:
        """The curvatures of common tokens."""
        own = torch.stack([self.own[name][int(token)] for token in common]) / self.num_scored
        pooled = sum((term.rows[common, None, None] * term.columns for term in terms), torch.zeros(()))
        return Own(common, (1 - POOLED) * own + POOLED * pooled)


def squares(x: Tensor, along: int) -> Tensor:
    """Sums of squares, without holding the squares."""
    return torch.linalg.vector_norm(x, dim=along).square()


def square(x: Tensor) -> Tensor:
    """(width, width) second moments of (tokens, width), summed."""
    return x.T @ x


def coupling(slope: Tensor) -> Tensor:
    """R's sum over gradients (tokens, rows)."""
    if slope.shape[1] > WIDE:
        return squares(slope, 0)
    return square(slope.bfloat16()).float() if NATIVE else square(slope)


def plus(totals: dict[Key, Tensor], key: Key, more: Tensor) -> None:
    """Add to a total."""
    totals[key] = totals[key] + more if key in totals else more
