"""What a round learns from: repaired answers, more of them by swapping values, and old skills so that none is lost.

Replay as in LAB (Sudalairaj et al. 2024, arXiv 2403.01081). A swap costs no call: another prompt's value takes the
place of one that stands in the text letter by letter, and the verifier has the last word.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from stepwell.distill.data import Example
from stepwell.quality.verify import Verify, bracketed

Values = Mapping[str, Sequence[str]]
"""The values that each slot may take."""
SWAPPED = 0.6
"""How likely each value is swapped."""
UNSAID = {"yes", "no", "true", "false"}
"""Values that say whether, not what: where they stand in a text they mean something else."""
VOWELS = frozenset("aeiou")


def values_of(prompts: Iterable[str]) -> Values:
    """The values that stand in prompts, by slot."""
    found: dict[str, set[str]] = {}
    for prompt in prompts:
        for name, value in bracketed(prompt).items():
            found.setdefault(name, set()).add(value)
    return {name: sorted(values) for name, values in found.items()}


def swapped(example: Example, values: Values, verify: Verify, chance: random.Random) -> Example | None:
    """The same example about something else; None where no value could be swapped, or the verifier says no."""
    facts = bracketed(example.prompt)
    prompt, text = example.prompt, example.completion
    for name, value in facts.items():
        other = chance.choice(values.get(name) or [value])
        if chance.random() < SWAPPED and other not in facts.values() and fits(value, other, text):
            prompt = prompt.replace(f"{name}[{value}]", f"{name}[{other}]")
            text = text.replace(value, other)
    right = prompt != example.prompt and not verify(prompt, text)
    return example._replace(prompt=prompt, completion=text, id="") if right else None


def fits(value: str, other: str, text: str) -> bool:
    """Whether a value stands in the text once, as words of its own, and another may stand there (a pub, an inn)."""
    alone = len(re.findall(rf"(?<!\w){re.escape(value)}(?!\w)", text)) == text.count(value) == 1
    same_article = (value[:1].lower() in VOWELS) == (other[:1].lower() in VOWELS)
    return alone and same_article and other not in text and not {value.lower(), other.lower()} & UNSAID


def swaps(row: Example, num: int, values: Values, verify: Verify, chance: random.Random) -> Iterator[Example]:
    """What comes of so many tries to swap values of a row."""
    for _ in range(num):
        made = swapped(row, values, verify, chance)
        if made is not None:
            yield made


def mixed(new: Sequence[Example], old: Sequence[Example], share_old: float, chance: random.Random) -> list[Example]:
    """New rows and so many old ones that they are `share_old` of all; old ones repeat only where they are too few."""
    wanted = round(len(new) * share_old / (1 - share_old)) if old else 0
    whole, part = divmod(wanted, len(old)) if old else (0, 0)
    return [*new, *(row for _ in range(whole) for row in old), *chance.sample(list(old), part)]
