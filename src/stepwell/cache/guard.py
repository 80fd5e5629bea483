"""The guard against false hits: what forbids an answer to one wording from being the answer to another.

Vectors hardly see a number, a name or a "not" (opposites score .83 to .99). A veto is a difference that changes what is
asked for. The closer two wordings are otherwise, the more a difference says: texts that are the same but for one place
are compared there, word by word.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from stepwell.facts.facts import Facts, plain, unsaid
from stepwell.facts.words import LANGUAGES, NEGATIONS, NEGATIVES, QUANTITIES

VALUES = ("number", "ordinal", "money", "measure", "date", "time")
"""Kinds of values of which one wording may say more than the other, but nothing else."""
VETOES = ("long", "language", *VALUES, "code", "quote", "entity", "direction", "negation", "question", "order", "swap",
          "more")  # fmt: skip

PREFIXES = ("un", "de", "dis", "in", "im", "ir", "non", "mis", "re", "anti")
ROLES = frozenset(
    {"to", "from", "before", "after", "into", "onto", "off", "over", "under", "above", "below", "against", "than"}
)
"""Prepositions that change who does what to whom, or when."""
LISTS = frozenset({"and", "or"})
SIGNS = frozenset("+*/^=<>|~×÷≤≥≠√#")  # noqa: RUF001 - signs of arithmetic and of programming
TELLING = ROLES | QUANTITIES | NEGATIONS | SIGNS
TURNED = frozenset(pair for one in ("on off", "in out", "up down") for pair in permutations(one.split()))
QUESTIONS = frozenset(
    {"who", "where", "when", "why", "how many", "how long", "how often", "how far", "how old", "how big"}
)
MAX_SWAPPED = 2
"""Words on either side that may stand for one another where all others are the same."""
MAX_MORE, MAX_CONTENT_MORE = 4, 2
"""Words, and words of content, by which a wording may say more than another that says nothing else."""
NEAR = 0.7
"""Share of common content from which on a negation or another question word turns the meaning."""
MIN_TYPO = 5
"""Letters of a word of which one may be a slip."""

Words = Sequence[str]


def vetoes(asked: Facts, kept: Facts) -> tuple[str, ...]:
    """What forbids that the answer to the kept wording answers the asked one; empty where nothing does."""
    if asked.words == kept.words and asked.whole and kept.whole:
        return ()
    found = _by_value(asked, kept)
    found += [name for name, differ in CHECKS if differ(asked, kept)]
    found += _by_place(asked, kept)
    return tuple(found)


def slot_difference(asked: Facts, kept: Facts) -> tuple[str, ...]:
    """The kinds of the values that differ where nothing else does; empty where nothing or something else differs."""
    if asked.shape != kept.shape or not (asked.whole and kept.whole):
        return ()
    pairs = zip(asked.values, kept.values, strict=True)
    return tuple(here.kind for here, there in pairs if here.norm != there.norm)


# --- values


def _by_value(asked: Facts, kept: Facts) -> list[str]:
    """Kinds of values in which the wordings contradict each other."""
    if not asked.values and not kept.values:
        return []
    here: set[tuple[str, str]] = {(value.kind, value.norm) for value in asked.values}
    there: set[tuple[str, str]] = {(value.kind, value.norm) for value in kept.values}
    only_here, only_there = here - there, there - here
    if not only_here and not only_there:
        return []
    mine, theirs = {kind for kind, _ in only_here}, {kind for kind, _ in only_there}
    found = [kind for kind in VALUES if kind in mine and kind in theirs]
    if "code" in mine or "code" in theirs:
        found.append("code")
    if unsaid("quote", asked, kept) or unsaid("quote", kept, asked):
        found.append("quote")
    if unsaid("entity", asked, kept) and unsaid("entity", kept, asked):
        found.append("entity")
    return found


# --- the whole wording


def _long(asked: Facts, kept: Facts) -> bool:
    return not (asked.whole and kept.whole)


def _language(asked: Facts, kept: Facts) -> bool:
    one, other = asked.language, kept.language
    if one == other or not one or not other:
        return False
    return not (one == "latin" and other in LANGUAGES) and not (other == "latin" and one in LANGUAGES)


def _direction(asked: Facts, kept: Facts) -> bool:
    """Opposite words, unless one is negated."""
    return not negated(asked, kept) and bool(opposites(asked, kept))


def opposites(asked: Facts, kept: Facts) -> set[str]:
    """The asked words (or their poles) that have an opposite in the kept wording."""
    here, there = asked.poles - kept.poles, kept.poles - asked.poles
    mine, theirs = asked.content - kept.content, kept.content - asked.content
    found = {pole for pole in here if ("-" if pole[0] == "+" else "+") + pole[1:] in there}
    found |= {word for word in mine if any(prefix + word in theirs for prefix in PREFIXES)}
    return found | {prefix + word for word in theirs for prefix in PREFIXES if prefix + word in mine}


def _negation(asked: Facts, kept: Facts) -> bool:
    """One is negated and the other is not, neither by "not" nor by an opposite."""
    if not negated(asked, kept) or _common(asked, kept) < NEAR or opposites(asked, kept):
        return False
    positive, other = (kept, asked) if asked.negations % 2 else (asked, kept)
    return not (positive.content - other.content) & NEGATIVES


def negated(asked: Facts, kept: Facts) -> bool:
    """Whether one of two wordings is negated."""
    return asked.negations % 2 != kept.negations % 2


def _question(asked: Facts, kept: Facts) -> bool:
    if asked.asks == kept.asks or _common(asked, kept) < NEAR:
        return False
    return asked.asks in QUESTIONS and kept.asks in QUESTIONS


def _common(asked: Facts, kept: Facts) -> float:
    either = len(asked.content | kept.content)
    return len(asked.content & kept.content) / either if either else 1.0


CHECKS = (
    ("long", _long),
    ("language", _language),
    ("direction", _direction),
    ("negation", _negation),
    ("question", _question),
)


# --- the one place


def _by_place(asked: Facts, kept: Facts) -> list[str]:
    """What the place says in which two wordings that are otherwise the same differ."""
    here, there = apart(asked.words, kept.words)
    if len(here) == len(asked.words) and len(there) == len(kept.words):
        return []
    if not here or not there:
        return ["more"] if _more(here, asked) or _more(there, kept) else []
    if sorted(here) == sorted(there):
        return ["order"] if _exchanged(here, there, asked.words) else []
    if len(here) > MAX_SWAPPED or len(there) > MAX_SWAPPED:
        return []
    turned = negated(asked, kept) and bool(opposites(asked, kept))  # not accepted, rejected
    return ["swap"] if not turned and _swapped(here, there, asked, kept) else []


def _more(more: Words, facts: Facts) -> bool:
    """Whether an addition changes what is asked for."""
    content = sum(word in facts.content for word in more)
    told = any(word in NEGATIVES or (word not in ROLES and tells(word)) for word in more)
    return content > MAX_CONTENT_MORE or len(more) > MAX_MORE or told or _names(more, facts)


def _names(more: Words, facts: Facts) -> bool:
    """Whether an addition names somebody or some place."""
    return any(value.kind == "entity" and plain(value.norm) <= set(more) for value in facts.values)


def tells(word: str) -> bool:
    """Whether a word changes the meaning although it carries little of its own."""
    return word[0] == "#" or word in TELLING


def _exchanged(here: Words, there: Words, asked: Words) -> bool:
    """Whether two parts have changed places (x to y, y to x) that are no list, and not just one noun and its verb."""
    if len(here) > 2:  # noqa: PLR2004
        turns = (at for at in range(1, len(here)) if here[at] in ROLES)
        return any([*here[at + 1 :], here[at], *here[:at]] == list(there) for at in turns)
    one, other = here
    at = next(at for at, word in enumerate(asked) if word == one and other in asked[at:])
    between = asked[at + 1 : asked.index(other, at)]
    return bool(between) and not (len(between) == 1 and between[0] in LISTS)


def _swapped(here: Words, there: Words, asked: Facts, kept: Facts) -> bool:
    """Whether words that carry meaning, or turn it, stand for one another."""
    mine = [word for word in here if word in asked.content and word not in there]
    theirs = [word for word in there if word in kept.content and word not in here]
    if mine and theirs:
        return not (len(mine) == len(theirs) and all(map(slip, mine, theirs)))
    told, meant = set(here), set(there)
    roles = bool(told & ROLES - meant) and bool(meant & ROLES - told)
    return roles or not QUANTITIES.isdisjoint(told ^ meant) or (here[0], there[0]) in TURNED


def apart(asked: Words, kept: Words) -> tuple[Words, Words]:
    """What is left of two sequences without their common beginning, end and, where equally long, common places."""
    start, least = 0, min(len(asked), len(kept))
    while start < least and asked[start] == kept[start]:
        start += 1
    end = 0
    while end < least - start and asked[-1 - end] == kept[-1 - end]:
        end += 1
    here, there = asked[start : len(asked) - end], kept[start : len(kept) - end]
    if len(here) == len(there):
        places = [place for place, word in enumerate(here) if word != there[place]]
        return [here[place] for place in places], [there[place] for place in places]
    return here, there


def slip(one: str, other: str) -> bool:
    """Whether two words are one word with one letter more, less, other, or two neighbours exchanged (Damerau 1964)."""
    if one == other:
        return True
    if min(len(one), len(other)) < MIN_TYPO or one[0] != other[0] or abs(len(one) - len(other)) > 1 or one[0] == "#":
        return False
    here, there = apart(one, other)
    return max(len(here), len(there)) <= 1 or (len(here) == 2 and list(here) == list(reversed(there)))  # noqa: PLR2004
