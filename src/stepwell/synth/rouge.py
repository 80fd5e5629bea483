"""ROUGE-L (Lin 2004): how much of two texts is the same words in the same order. Its F1, as self-instruct uses it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stepwell.synth.ngrams import split


def common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, 64 words and more a step (Hyyrö 2004, bit-parallel)."""
    places: dict[str, int] = {}
    for at, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << at
    rest = all_ = (1 << len(one)) - 1
    for word in other:
        both = rest & places.get(word, 0)
        rest = ((rest + both) | (rest - both)) & all_
    return len(one) - rest.bit_count()


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """F1 of the longest common subsequence, 0 to 1."""
    return 2 * common(one, other) / (len(one) + len(other)) if one or other else 1.0


class Novelty:
    """Prompts so far; a new one is taken where it is unlike all of them."""

    def __init__(self, below: float, prompts: Iterable[str]) -> None:
        self.below = below
        self.seen = [split(prompt) for prompt in prompts]

    def likeness(self, prompt: str) -> float:
        """ROUGE-L to the likest prompt so far; 0 to 1."""
        words = split(prompt)
        near = 0.0
        for seen in self.seen:
            if 2 * min(len(seen), len(words)) > near * (len(seen) + len(words)):  # else it cannot be likelier
                near = max(near, rouge_l(words, seen))
        return near

    def take(self, prompt: str) -> float:
        """The likeness of a prompt, which counts as seen from now on where it is new enough."""
        near = self.likeness(prompt)
        if near < self.below:
            self.seen.append(split(prompt))
        return near
