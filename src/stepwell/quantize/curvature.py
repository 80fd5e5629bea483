"""What errors in a matrix cost: the curvature of the KL divergence from the parent, as the calibration texts show it.

For small errors E the divergence is a quadratic form, and a Kronecker product fits it well: tr(R E C E^T) / 2 with the
second moments C of what the matrix reads and R of the gradients at what it says (K-FAC, Martens and Grosse 2015; for
quantization YAQA, Tseng et al. 2025).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

MATRIX = 2


@dataclass(frozen=True)
class Term:
    """Errors E (rows, width) cost tr(R E C E^T) / 2 nats a scored token."""

    rows: Tensor
    """R: (rows, rows), or (rows) where it is diagonal."""
    columns: Tensor
    """C: (width, width)."""

    @property
    def coupled(self) -> bool:
        """Whether an error in one row can make good for one in another."""
        return bool(self.rows.dim() == MATRIX)

    @property
    def each(self) -> Tensor:
        """(rows): R's diagonal."""
        return self.rows.diagonal() if self.coupled else self.rows

    def cost(self, error: Tensor) -> Tensor:
        """Nats a scored token for errors (rows, width)."""
        mixed = self.rows @ error if self.coupled else self.rows[:, None] * error
        return (mixed * (error @ self.columns)).sum() / 2


@dataclass(frozen=True)
class Own:
    """Rows that have a C of their own, their R being 1: the commonest tokens', each in its own surroundings."""

    rows: Tensor
    """(num) whole numbers."""
    columns: Tensor
    """(num, width, width)."""

    def cost(self, error: Tensor) -> Tensor:
        """Nats a scored token for errors (rows, width) of the whole matrix."""
        chosen = error[self.rows]
        return (chosen * torch.einsum("rw,rwv->rv", chosen, self.columns)).sum() / 2


@dataclass(frozen=True)
class Calibration:
    """What the matrices of a model read, and what their errors cost, by short name."""

    inputs: dict[str, Tensor]
    """(width) mean squared inputs. An embedding that is the head, too, reads as a head; one that is none, nothing."""
    terms: dict[str, tuple[Term, ...]]
    """An embedding that is the head, too, has two: as a head, and as what is read."""
    num_tokens: int
    """Scored tokens."""
    own: dict[str, Own] = field(default_factory=dict)
    """Of embedding and head; those rows' R in the terms is 0."""

    def importance(self, name: str) -> Tensor | None:
        """(width): mean squared inputs; None for an embedding that is no head."""
        return self.inputs.get(name)

    def weights(self, name: str) -> Tensor:
        """(rows, width): what the square of each weight's error costs, all others being right."""
        total = torch.stack([term.each[:, None] * term.columns.diagonal() for term in self.terms[name]]).sum(0)
        if name in self.own:
            total[self.own[name].rows] = self.own[name].columns.diagonal(dim1=1, dim2=2)
        return total

    def cost(self, name: str, error: Tensor) -> float:
        """The divergence, in nats a token, that errors (rows, width) of this matrix alone will cause."""
        pooled = sum(float(term.cost(error)) for term in self.terms[name])
        return pooled + (float(self.own[name].cost(error)) if name in self.own else 0.0)
