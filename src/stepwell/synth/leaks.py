"""Rows that hold something of an evaluation set: the row, its prompt or facts, or n words in a row of its texts.

The n-gram rule is that of GPT-3's data (Brown et al. 2020, appendix C), 13 words; case, accents, punctuation and white
space do not count. A held-out text of fewer words counts as a whole, where it has at least 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct

from stepwell.synth.ngrams import Hashes, Hashing, Words, grams, hits, split
from stepwell.synth.slots import facts_key

Pair = tuple[str, str]
"""Prompt and completion."""
NUM_WORDS, LEAST_WORDS = 13, 8
MANY = 5
"""Fewer texts than this show no form."""
MAX_SHOWN = 60


class Leak(Struct, frozen=True):
    """What of a held-out set a row holds, and the words that say so."""

    kind: Literal["row", "facts", "prompt", "words"]
    what: str


def leaks(
    rows: Sequence[Pair], held_out: Iterable[Pair], *, n: int = NUM_WORDS, least: int = LEAST_WORDS
) -> dict[int, Leak]:
    """The rows that hold something of `held_out`: the same row, its prompt or facts, or n of its words in a row."""
    held = list(held_out)
    same = {normal(pair) for pair in held}
    facts = {key for prompt, _ in held if (key := facts_key(prompt))}
    prompts = {prompt for prompt, _ in same}
    words = phrases(rows, held, n, min(n, least))
    found: dict[int, Leak] = {}
    for at, (prompt, completion) in enumerate(rows):
        if normal((prompt, completion)) in same:
            found[at] = Leak("row", f"a held-out row: {prompt[:MAX_SHOWN]}")
        elif (key := facts_key(prompt)) and key in facts:
            found[at] = Leak("facts", f"the facts of a held-out prompt: {prompt[:MAX_SHOWN]}")
        elif normal((prompt, ""))[0] in prompts:
            found[at] = Leak("prompt", f"a held-out prompt: {prompt[:MAX_SHOWN]}")
        elif at in words:
            found[at] = Leak("words", f"words of a held-out text: {words[at]}")
    return found


def phrases(rows: Sequence[Pair], held: Sequence[Pair], n: int, least: int) -> Mapping[int, str]:
    """The rows with n words in a row of a held-out text, and these words. A prompt of facts is no text."""
    hashing = Hashing()
    prompts = hashing.words({prompt for prompt, _ in held if not facts_key(prompt)})
    completions = hashing.words({completion for _, completion in held})
    texts = [text for pair in rows for text in pair]
    mine = hashing.words(texts)
    found: dict[int, str] = {}
    for length in range(n, least - 1, -1):
        wanted = np.union1d(own(prompts, length, n), own(completions, length, n))
        first = hits(mine, length, wanted)
        for at in np.flatnonzero(first >= 0).tolist():
            found.setdefault(at // 2, " ".join(split(texts[at])[first[at] : first[at] + length]))
    return found


def own(held: Words, length: int, n: int) -> Hashes:
    """What counts as a leak: n words in a row, and, for a smaller length, the whole of a text of this length.

    Words that more than half of the texts share are their form, not their content.
    """
    if length < n:
        alone = np.flatnonzero(held.lengths == length)
        places = held.starts[alone][:, None] + np.arange(length)
        held = Words(held.hashes[places].ravel(), np.arange(len(alone) + 1) * length)
    found = grams(held, length, whole=False)
    texts = np.repeat(np.arange(len(held.lengths)), np.diff(found.starts))
    order = np.lexsort((texts, found.hashes))
    again = (np.diff(found.hashes[order]) == 0) & (np.diff(texts[order]) == 0)
    hashes, counts = np.unique(np.delete(found.hashes[order], np.flatnonzero(again)), return_counts=True)
    return hashes[counts <= max(MANY, len(held.lengths) / 2)]


def normal(pair: Pair) -> Pair:
    """A row but for case and white space."""
    prompt, completion = (" ".join(text.casefold().split()) for text in pair)
    return prompt, completion
