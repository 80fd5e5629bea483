"""How surprising a text is to a small model of words, counted from people's texts: gibberish and boilerplate stand out.

A trigram model with absolute discounting, interpolated down to a uniform distribution (Ney, Essen and Kneser 1994).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.synth.ngrams import MULTIPLIER, Hashes, Hashing, Words, mixed

DISCOUNT = 0.75
START, END = np.uint64(1), np.uint64(2)
Scores = NDArray[np.float64]


class Counts(Struct, frozen=True):
    """How often each n-gram is there (`grams`, sorted), and how often and with how many ends each context is."""

    grams: Hashes
    num: NDArray[np.int64]
    contexts: Hashes
    totals: NDArray[np.int64]
    kinds: NDArray[np.int64]


class Ngrams:
    """A model of words, made of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.hashing = Hashing()
        one, two, three = places(self.hashing.words(texts))
        nothing = np.zeros(len(three), np.uint64)
        self.orders = [counted(nothing, three), counted(two, three), counted(pair(one, two), three)]
        self.num_words = len(self.orders[0].grams) + 1
        """The words that it knows, and all others as one."""

    def perplexities(self, texts: Sequence[str]) -> Scores:
        """For each text exp of the mean surprise a word, its end included."""
        words = self.hashing.words(texts)
        one, two, three = places(words)
        contexts = (np.zeros(len(three), np.uint64), two, pair(one, two))
        chance = np.full(len(three), 1 / self.num_words)
        for counts, context in zip(self.orders, contexts, strict=True):
            chance = counts_chance(counts, context, three, chance)
        starts = words.starts[:-1] + np.arange(len(texts))
        total: Scores = np.add.reduceat(-np.log(chance), starts) if len(texts) else np.empty(0)
        return np.exp(total / (words.lengths + 1))


def places(words: Words) -> tuple[Hashes, Hashes, Hashes]:
    """Every word, and the end of every text, with the two words before it."""
    num = len(words.lengths)
    at = words.starts[1:] + np.arange(num)
    three = np.insert(words.hashes, words.starts[1:], END)
    padded = np.concatenate([[START, START], three])
    one, two = padded[: len(three)].copy(), padded[1 : len(three) + 1].copy()
    begins = at[:-1] + 1
    one[begins] = two[begins] = START
    second = begins + 1
    one[second[second < len(three)]] = START
    return one, two, three


def pair(one: Hashes, two: Hashes) -> Hashes:
    """Two words as one number."""
    return mixed(one * MULTIPLIER + two)


def counted(context: Hashes, word: Hashes) -> Counts:
    """Count each word in its context."""
    grams, first, num = np.unique(pair(context, word), return_index=True, return_counts=True)
    contexts, inverse = np.unique(context[first], return_inverse=True)
    totals = np.zeros(len(contexts), np.int64)
    np.add.at(totals, inverse, num)
    return Counts(grams, num, contexts, totals, np.bincount(inverse, minlength=len(contexts)))


def counts_chance(counts: Counts, context: Hashes, word: Hashes, lower: Scores) -> Scores:
    """The chance of each word in its context; a context that was never seen leaves it to the lower order."""
    num = looked_up(counts.grams, counts.num, pair(context, word))
    total = looked_up(counts.contexts, counts.totals, context)
    kinds = looked_up(counts.contexts, counts.kinds, context)
    seen = np.maximum(total, 1)
    own = (np.maximum(num - DISCOUNT, 0) + DISCOUNT * kinds * lower) / seen
    return np.where(total > 0, own, lower)


def looked_up(keys: Hashes, values: NDArray[np.int64], wanted: Hashes) -> NDArray[np.int64]:
    """The value of each key; 0 where it is not there."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
