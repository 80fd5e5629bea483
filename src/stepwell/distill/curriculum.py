"""What to practise next: prompts of the kinds that the student fails at, and a random slice for an unbiased estimate.

Difficulty as in TAPIR (Yue et al. 2024, arXiv 2405.13448), but measured by the verifier instead of a judge. What a
prompt is about is read from the prompt itself: its slots, its values, and how many there are.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from stepwell.quality.verify import bracketed


class Tally(Struct, frozen=True):
    """How often prompts with each trait were tried, and failed."""

    tried: Counter[str]
    failed: Counter[str]

    def odds(self, trait: str) -> float:
        """Failures to successes, drawn towards one to one where little is known (Laplace)."""
        return (self.failed[trait] + 1) / (self.tried[trait] - self.failed[trait] + 1)

    def difficulty(self, prompt: str) -> float:
        """The odds of the hardest of a prompt's traits."""
        return max(map(self.odds, traits(prompt)))


def tally(tries: Iterable[tuple[str, bool]]) -> Tally:
    """Count (prompt, whether it failed)."""
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for prompt, wrong in tries:
        found = traits(prompt)
        tried.update(found)
        failed.update(found if wrong else ())
    return Tally(tried, failed)


def traits(prompt: str) -> list[str]:
    """What a prompt is about: each slot, each slot with its value, the number of slots; else its number of words."""
    facts = bracketed(prompt)
    if not facts:
        return [f"{len(prompt.split()).bit_length()} bits of words"]
    return [*facts, *(f"{name}[{value}]" for name, value in facts.items()), f"{len(facts)} slots"]


def drawn(pool: Sequence[str], known: Tally, num: int, *, share_random: float, chance: random.Random) -> list[str]:
    """`num` prompts of the pool without repetition: a random share, the others the likelier the harder they are."""
    order = list(dict.fromkeys(pool))
    chance.shuffle(order)
    num = min(num, len(order))
    num_random = round(num * share_random)
    # weighted without replacement: Efraimidis and Spirakis 2006
    rest = sorted(order[num_random:], key=lambda prompt: -(chance.random() ** (1 / known.difficulty(prompt))))
    return order[:num_random] + rest[: num - num_random]
