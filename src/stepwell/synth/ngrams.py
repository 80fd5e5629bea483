"""Texts as arrays of hashed words, and their n-grams as 64-bit numbers: what duplicates and leaks are found by."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no bit of a word is lost when it is shifted through an n-gram (Knuth's golden ratio)."""
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Letters of scripts that put no space between words: each counts as a word."""
words_of = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+").findall


class Words(Struct, frozen=True):
    """The words of texts, one behind the other: text i has `hashes[starts[i]:starts[i + 1]]`."""

    hashes: Hashes
    starts: Places

    @property
    def lengths(self) -> Places:
        """Words of each text."""
        return np.diff(self.starts)


class Grams(Struct, frozen=True):
    """The n-grams of texts in the same order; a text shorter than n has none, or one of all its words."""

    hashes: Hashes
    starts: Places


class Hashing:
    """Remembers the hash of each word it has met."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def words(self, texts: Iterable[str]) -> Words:
        """The words of texts: case, accents, punctuation and white space do not count."""
        known = self.known
        numbers: list[int] = []
        starts = [0]
        for text in texts:
            words = split(text)
            try:
                numbers += [known[word] for word in words]
            except KeyError:
                numbers += [self.number(word) for word in words]
            starts.append(len(numbers))
        return Words(np.array(numbers, np.uint64), np.array(starts, np.int64))

    def number(self, word: str) -> int:
        """64 bits of a word, the same in every process."""
        if word not in self.known:
            bare = plain(word).encode("utf-8", "surrogatepass")
            self.known[word] = int.from_bytes(blake2b(bare, digest_size=8).digest())
        return self.known[word]


def split(text: str) -> list[str]:
    """The words of a text in lower case."""
    return words_of((text if text.isascii() else unicodedata.normalize("NFKC", text)).lower())


def plain(text: str) -> str:
    """Lower case without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def grams(words: Words, n: int, *, whole: bool = True) -> Grams:
    """Every n words in a row; with `whole`, all words of a text that has fewer (and a 0 for one that has none)."""
    lengths = words.lengths
    full = np.maximum(lengths - n + 1, 0)
    counts = np.where(full > 0, full, int(whole))
    starts = np.concatenate([[0], np.cumsum(counts)])
    texts = np.repeat(np.arange(len(lengths)), counts)
    first = words.starts[texts] + np.arange(starts[-1]) - starts[texts]
    padded = np.concatenate([words.hashes, np.zeros(n, np.uint64)])
    hashes = np.zeros(starts[-1], np.uint64)
    ends = words.starts[texts + 1]
    for place in range(n):
        at = first + place
        hashes = hashes * MULTIPLIER + np.where(at < ends, padded[at], np.uint64(0))
    return Grams(mixed(hashes), starts)


def mixed(hashes: Hashes) -> Hashes:
    """Spread every bit over all (the finaliser of SplitMix64, Steele et al. 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def hits(words: Words, n: int, wanted: Hashes) -> Places:
    """For each text the place of its first n-gram that is among the sorted `wanted`; -1 where none is."""
    found = grams(words, n, whole=False)
    first = np.full(len(words.lengths), -1, np.int64)
    if len(wanted) and len(found.hashes):
        at = np.minimum(np.searchsorted(wanted, found.hashes), len(wanted) - 1)
        texts = np.repeat(np.arange(len(words.lengths)), np.diff(found.starts))
        there = np.flatnonzero(wanted[at] == found.hashes)[::-1]  # the first is written last
        first[texts[there]] = there - found.starts[texts[there]]
    return first
