"""A task's own texts, laid out as token ids, and what an error in each matrix of a model costs on them.

For small errors E of a matrix's weights the KL divergence from the parent is a quadratic form, and a Kronecker product
fits it well: tr(R E C E^T) / 2, with the second moments C of what the matrix reads and R of the gradients at what it
says (K-FAC, Martens and Grosse 2015; for quantization YAQA, Tseng et al. 2025). The gradients are those of the
likelihood of tokens that the model itself draws: their second moments are the KL's own curvature (Fisher's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stepwell.errors import DistillError
from stepwell.quantize.heard import Notes, listening, slopes
from stepwell.quantize.network import EMBEDDING, HEAD, Network, matrices

MATRIX = 2
WIDE = 2048
"""Of matrices with more rows R is taken as diagonal: what falls outside is large, and brings little."""
LAST, READ = "last", "read"
"""Names beside those of weights: what the head says, and the embedding as what is read."""


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


@dataclass(frozen=True)
class Term:
    """What errors E of a matrix (rows, width) cost: tr(R E C E^T) / 2 nats a scored token."""

    rows: Tensor
    """R: (rows, rows), or (rows) where it is diagonal."""
    columns: Tensor
    """C: (width, width)."""

    @property
    def each(self) -> Tensor:
        """(rows): R's diagonal."""
        return self.rows.diagonal() if self.rows.dim() == MATRIX else self.rows

    def cost(self, error: Tensor) -> Tensor:
        """Nats a scored token for errors (rows, width)."""
        mixed = self.rows @ error if self.rows.dim() == MATRIX else self.rows[:, None] * error
        return (mixed * (error @ self.columns)).sum() / 2


@dataclass(frozen=True)
class Calibration:
    """What the matrices of a model read, and what their errors cost, by short name."""

    inputs: dict[str, Tensor]
    """(width) mean squared inputs. An embedding that is the head, too, reads as a head; one that is none, nothing."""
    terms: dict[str, tuple[Term, ...]]
    """An embedding that is the head, too, has two: as a head, and as what is read."""
    num_tokens: int
    """Scored tokens."""

    def importance(self, name: str) -> Tensor | None:
        """(width): mean squared inputs; None for an embedding that is no head."""
        return self.inputs.get(name)

    def weights(self, name: str) -> Tensor:
        """(rows, width): what the square of each weight's error costs, all others being right."""
        return torch.stack([term.each[:, None] * term.columns.diagonal() for term in self.terms[name]]).sum(0)

    def cost(self, name: str, error: Tensor) -> float:
        """The divergence, in nats a token, that errors of this matrix alone will cause."""
        return sum(float(term.cost(error)) for term in self.terms[name])


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
    """Let the texts pass, and draw what the model would say. Raises DistillError where there are none."""
    if not any(batch.num_scored for batch in batches):
        raise DistillError("there are no calibration texts: give rows with prompts and completions")
    weights = matrices(network)
    head = HEAD if HEAD in weights else EMBEDDING
    sums = Sums(head, torch.zeros(len(weights[EMBEDDING])))
    draw = torch.Generator().manual_seed(0)
    with torch.enable_grad(), listening(network) as notes:
        for batch in batches:
            sums.add(batch, passed(network, batch, notes, draw), notes.factor)
    return sums.calibration()


def passed(network: Network, batch: Tokens, notes: Notes, draw: torch.Generator) -> Pass:
    """One batch forward, and back from tokens that the model draws."""
    notes.clear()
    hidden = network.hidden(batch.ids, None, batch.real)[batch.scored]
    inputs, outputs = dict(notes.inputs), dict(notes.outputs)
    notes.clear()
    logits = network.logits(hidden)
    outputs[LAST] = next(iter(notes.outputs.values()), logits)  # a layer's, where a model bends it into logits
    said = torch.log_softmax(logits.float(), -1)
    odds = said.detach().exp()
    drawn = torch.multinomial(odds, 1, generator=draw)
    gradients = slopes(-said.gather(1, drawn).sum(), outputs)
    straight = (odds - torch.zeros_like(odds).scatter_(1, drawn, 1.0)).square().sum()
    bend = float(gradients.pop(LAST).square().sum() / straight.clamp(min=1e-30))
    return Pass(inputs, gradients, hidden.detach().float(), bend * odds * (1 - odds))


@dataclass(frozen=True)
class Pass:
    """What one batch shows."""

    inputs: dict[str, Tensor]
    gradients: dict[str, Tensor]
    hidden: Tensor
    """(scored tokens, hidden): what the head reads."""
    curvature: Tensor
    """(scored tokens, vocabulary): second derivatives of the loss by what the head says."""


@dataclass
class Sums:
    """What adds up over batches."""

    head: str
    reads: Tensor
    """How often each row of the embedding is read."""
    seen: dict[str, int] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    num_scored: int = 0

    def add(self, batch: Tokens, heard: Pass, factor: float) -> None:
        """One batch's."""
        for name, gradient in heard.gradients.items():
            slope = gradient[batch.real].float()
            if name == EMBEDDING:
                plus(self.columns, READ, factor**2 * (slope.T @ slope))
                continue
            plus(self.rows, name, slope.T @ slope if slope.shape[1] <= WIDE else slope.square().sum(0))
            self.read(name, heard.inputs[name][batch.real].float(), slope.square().sum(1))
        plus(self.rows, self.head, heard.curvature.sum(0))
        self.read(self.head, heard.hidden, heard.curvature.sum(1))
        self.reads += torch.bincount(batch.ids[batch.real], minlength=len(self.reads))
        self.num_scored += batch.num_scored

    def read(self, name: str, x: Tensor, weight: Tensor) -> None:
        """What a matrix reads (tokens, width), and how much an error there matters (tokens)."""
        self.seen[name] = self.seen.get(name, 0) + len(x)
        plus(self.squares, name, x.square().sum(0))
        plus(self.columns, name, (x * weight[:, None]).T @ x)

    def calibration(self) -> Calibration:
        """The means."""
        terms: dict[str, tuple[Term, ...]] = {name: (self.term(name),) for name in self.rows}
        read = Term(self.reads / self.num_scored, self.columns[READ] / self.reads.sum())
        terms[EMBEDDING] = (*terms.get(EMBEDDING, ()), read)
        return Calibration(
            {name: total / self.seen[name] for name, total in self.squares.items()}, terms, self.num_scored
        )

    def term(self, name: str) -> Term:
        """What a linear layer's errors cost."""
        rows = self.rows[name]
        mass = rows.trace() if rows.dim() == MATRIX else rows.sum()
        return Term(rows / self.num_scored, self.columns[name] / mass.clamp(min=1e-30))


def plus(totals: dict[str, Tensor], name: str, more: Tensor) -> None:
    """Add to a total."""
    totals[name] = totals[name] + more if name in totals else more
