"""What to ask a teacher: value = frequency x expected failure x saving / price, and a random slice beside it.

An answer teaches its neighbours, too: the failing traffic near a prompt that nothing taught so far is near to is what
asking it may mend (facility location; greedy is within 1 - 1/e of the best, Nemhauser, Wolsey and Fisher 1978). What is
chosen by value says nothing about all traffic; a slice drawn by chance, each prompt with a known probability, does
(Horvitz and Thompson 1952; Saerndal's difference estimator keeps it unbiased and makes it narrower).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.quality import logistic

Array = NDArray[np.float64]
Vectors = NDArray[np.float32]
Places = NDArray[np.int64]

SHARPNESS = 2.0
"""How fast what is learned fades with distance: exp(-SHARPNESS * (1 - cosine))."""
CHUNK = 256
LEAST, LEAST_SPREAD = 1e-4, 0.1
CHANCE = 1.96


class Choice(Struct, frozen=True, eq=False):
    """Prompts to ask, by place: those of value first, then the random slice."""

    places: Places
    probability: Array
    """With which each came to be chosen: 1 for those of value."""
    num_by_value: int


class Estimate(Struct, frozen=True):
    """A share of all traffic, with its standard error."""

    mean: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 %."""
        return self.mean - CHANCE * self.error, self.mean + CHANCE * self.error


def values(frequency: Array, failure: Array, saving_usd: Array | float, price_usd: Array | float) -> Array:
    """What asking each prompt is worth for each USD: the traffic that would fail, times what serving it saves."""
    worth: Array = frequency * failure * saving_usd / np.maximum(price_usd, 1e-12)
    return worth


def expected_failure(confidence: Array, seen: Array, failed: Array) -> Array:
    """How likely a student fails, from its confidence (0 to 1) and how it failed where it was `seen` to be so sure."""
    rows = np.stack([np.ones(len(seen)), -odds_of(seen)], axis=1)
    believed = np.array([0.0, 1.0])  # what it says itself, as firmly as a few answers would
    level, slope = logistic.fit(rows, failed, np.ones(len(seen)), believed, np.array([1.0, 4.0]))
    return logistic.chances(level - slope * odds_of(confidence))


def odds_of(chance: Array) -> Array:
    """Log odds."""
    bounded = np.clip(chance, LEAST, 1 - LEAST)
    odds: Array = np.log(bounded / (1 - bounded))
    return odds


def choose(
    value: Array,
    chance: Array,
    num: int,
    *,
    random_share: float,
    seed: int,
    vectors: Vectors | None = None,
    taught: Places | None = None,
) -> Choice:
    """`num` prompts: by value (with `vectors`: by what they cover), and a random slice of the rest.

    The slice is drawn with probabilities in proportion to `chance`, above 0 wherever there is traffic: the frequency,
    or `narrow` where a guess is at hand. What is `taught` already is not chosen.
    """
    taught = np.empty(0, np.int64) if taught is None else taught
    num = min(num, len(value) - len(taught))
    num_random = round(num * random_share)
    num_by_value = num - num_random
    places = best(value, num_by_value, taught) if vectors is None else covering(vectors, value, num_by_value, taught)
    rest = np.setdiff1d(np.arange(len(value)), np.concatenate([places, taught]))
    share = inclusion(chance[rest], num_random)
    drawn = systematic(share, np.random.default_rng(seed).random())
    return Choice(
        np.concatenate([places, rest[drawn]]), np.concatenate([np.ones(len(places)), share[drawn]]), len(places)
    )


def narrow(frequency: Array, failure: Array) -> Array:
    """Chances that make the estimate of all failures narrow (Neyman 1934): more where it is less clear who fails."""
    return frequency * np.maximum(np.sqrt(failure * (1 - failure)), LEAST_SPREAD)


def best(value: Array, num: int, taught: Places) -> Places:
    """The most valuable, one by one."""
    order = np.argsort(-value, kind="stable")
    return order[~np.isin(order, taught)][:num]


def covering(vectors: Vectors, value: Array, num: int, taught: Places | None = None) -> Places:
    """Prompts whose neighbourhoods hold the most value that nothing `taught` is near to, greedily.

    `vectors` are of length 1, (prompts, dimensions); memory is for one column of likenesses a step, not for all.
    """
    covered = np.zeros(len(vectors), np.float32)
    taught = np.empty(0, np.int64) if taught is None else taught
    for place in taught:
        np.maximum(covered, likeness(vectors, int(place)), out=covered)
    worth = value.astype(np.float32)
    heap = [(-gain, place, 0) for place, gain in enumerate(gains(vectors, covered, worth))]
    gone, chosen = set(taught.tolist()), list[int]()
    heapify(heap)
    while heap and len(chosen) < num:
        _, place, known = heappop(heap)
        if place in gone:
            continue
        near = likeness(vectors, place)
        if known == len(chosen):  # nothing was chosen since its gain was found: no other gains more
            chosen.append(place)
            gone.add(place)
            np.maximum(covered, near, out=covered)
        else:
            heappush(heap, (-float(np.maximum(near - covered, 0) @ worth), place, len(chosen)))
    return np.array(chosen, np.int64)


def gains(vectors: Vectors, covered: Vectors, worth: Vectors) -> list[float]:
    """What each prompt alone would cover."""
    found: list[float] = []
    for start in range(0, len(vectors), CHUNK):
        near = np.exp(SHARPNESS * (vectors[start : start + CHUNK] @ vectors.T - 1))
        found += (np.maximum(near - covered, 0) @ worth).tolist()
    return found


def likeness(vectors: Vectors, place: int) -> Vectors:
    """How near every prompt is to one, 0 to 1."""
    near: Vectors = np.exp(SHARPNESS * (vectors @ vectors[place] - 1))
    return near


# --- the random slice


def inclusion(size: Array, num: int) -> Array:
    """Probabilities in proportion to `size` that add up to `num`, none above 1."""
    chance = np.zeros(len(size))
    sure = np.zeros(len(size), bool)
    num = min(num, int(np.count_nonzero(size > 0)))
    while True:
        left = np.where(sure, 0.0, size)
        chance = np.where(sure, 1.0, left * (num - sure.sum()) / max(left.sum(), 1e-300))
        over = (chance > 1) & ~sure
        if not over.any():
            return np.minimum(chance, 1.0)
        sure |= over


def systematic(chance: Array, start: float) -> Places:
    """A sample in which each is with exactly its `chance`, of the size that they add up to (Madow 1949)."""
    ends = np.round(np.cumsum(chance), 9)
    begins = np.concatenate([[0.0], ends[:-1]])
    return np.flatnonzero(np.ceil(ends - start) - np.ceil(begins - start) > 0)


def estimate(
    right: Array, frequency: Array, choice: Choice, *, total: float, guess: Array | None = None, guess_mean: float = 0.0
) -> Estimate:
    """The share of all traffic (`total` requests) that is right, from the chosen prompts alone; unbiased.

    `right` [chosen] is 0 to 1 and `frequency` [chosen] their requests. `guess` [chosen] was made beforehand, for all
    traffic `guess_mean`: where it is good the estimate is narrow, and it never biases it.
    """
    off = frequency * (right - (0.0 if guess is None else guess)) / choice.probability
    spread = (1 - choice.probability) * off**2
    return Estimate(guess_mean + float(off.sum()) / total, float(np.sqrt(spread.sum())) / total)
