"""How alike messages are: near-duplicates are refused, and a set of variants has a diversity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

from stepwell.templates.mf2 import Message

TOO_ALIKE = 0.85
"""Share of common word pairs from which on two messages are the same to a reader."""
NUM_WORDS = 2

Shingles = frozenset[tuple[str, ...]]


def shingles(message: Message) -> Shingles:
    """Neighbouring words of every text of a message, blanks by their slots (w-shingling, Broder 1997)."""
    found: set[tuple[str, ...]] = set()
    for variant in message.variants:
        text = "".join(part.lower() if isinstance(part, str) else f" ${part.slot} " for part in variant.pattern)
        words = ["^", *re.findall(r"\$?[\w']+", text), "$"]
        found.update(tuple(words[at : at + NUM_WORDS]) for at in range(len(words) - NUM_WORDS + 1))
    return frozenset(found)


def alike(first: Shingles, second: Shingles) -> float:
    """Jaccard similarity, 0 to 1."""
    return len(first & second) / len(first | second) if first | second else 1.0


def diversity(messages: Sequence[Message]) -> float:
    """Mean dissimilarity of all pairs, 0 to 1; of fewer than two messages 0."""
    pairs = list(combinations(map(shingles, messages), 2))
    return sum(1 - alike(*pair) for pair in pairs) / len(pairs) if pairs else 0.0
