"""What a teacher thinks of every place of a text, cut down to the likeliest tokens or to drawn ones.

The rest of the mass stays in one bucket: the likeliest tokens without it would be a biased teacher. Drawn ids with
their shares are unbiased (Anshumann et al., Sparse Logit Sampling, arXiv 2503.16870).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.integer[Any]]

MOST_K = 254


class TopK(Struct, frozen=True, eq=False):
    """A text's tokens [T] and, for each place, what the teacher expected there in front of it, likeliest first.

    `ids` and `logp` are [T, k]; places that need fewer than k are padded with id 0 and logp -inf: mask them.
    `rest_logp` [T] is the log-probability of all other tokens together (-inf: none, as always where sampled).
    """

    token_ids: Ints
    ids: Ints
    logp: Floats
    rest_logp: Floats


def top(token_ids: Ints, logp: Floats, *, cover: float = 0.99, most: int = 16, least: float = 0.0) -> TopK:
    """The fewest tokens of each place that hold `cover` of its mass, at most `most`; `logp` is [T, vocabulary].

    Tokens less likely than `least` are left to the rest, too: what label smoothing spreads over all of them is told by
    one number as well as by many.
    """
    most = min(most, logp.shape[1], MOST_K)
    ids = np.argpartition(-logp, most - 1, axis=1)[:, :most] if most < logp.shape[1] else np.argsort(-logp, axis=1)
    return fewest(token_ids, ids, np.take_along_axis(logp, ids, axis=1), cover=cover, least=least)


def fewest(token_ids: Ints, ids: Ints, logp: Floats, *, cover: float, least: float = 0.0) -> TopK:
    """Of the tokens that are known, [T, k], the fewest that hold `cover` of a place's mass; -inf is none."""
    order = np.argsort(-logp, axis=1, kind="stable")
    ids, kept = np.take_along_axis(ids, order, axis=1), np.take_along_axis(logp, order, axis=1)
    mass = np.cumsum(np.exp(kept, dtype=np.float64), axis=1)
    wanted = (mass[:, :-1] < cover) & (kept[:, 1:] >= np.log(max(least, 1e-30)))
    used = np.concatenate([np.ones((len(kept), 1), bool), wanted], axis=1) & np.isfinite(kept)
    with np.errstate(divide="ignore"):
        rest = np.log(np.maximum(0.0, 1.0 - np.where(used, np.exp(kept, dtype=np.float64), 0.0).sum(axis=1)))
    width = int(used.sum(axis=1).max(initial=1))
    kept = np.where(used, kept, -np.inf).astype(np.float32)[:, :width]
    return TopK(np.asarray(token_ids), np.where(used, ids, 0)[:, :width], kept, rest.astype(np.float32))


def sampled(token_ids: Ints, logp: Floats, *, num: int, seed: int) -> TopK:
    """`num` ids drawn for each place with their shares: in expectation the teacher's whole distribution."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(np.exp(logp, dtype=np.float64), axis=1)
    drawn = rng.random((len(logp), num)) * edges[:, -1:]
    found = [np.unique(np.searchsorted(*each, side="right"), return_counts=True) for each in zip(edges, drawn)]  # noqa: B905
    width = max((len(ids) for ids, _ in found), default=1)
    ids, shares = np.zeros((len(found), width), np.int64), np.full((len(found), width), -np.inf, np.float32)
    for place, (each, counts) in enumerate(found):
        order = np.argsort(-counts, kind="stable")
        ids[place, : len(each)] = each[order]
        shares[place, : len(each)] = np.log(counts[order] / num)
    return TopK(np.asarray(token_ids), ids, shares, np.full(len(found), -np.inf, np.float32))
