"""What a text says that an answer may hang on: values, negation, direction, question word, language; read once.

What no list knows (other languages, names) is kept as it stands, so that two texts can still be compared word by word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct

from stepwell.facts.lexicon import Word, look_up
from stepwell.facts.meanings import PARTICLE_VERBS, PARTICLES
from stepwell.facts.script import script
from stepwell.facts.tokens import Token, tokens
from stepwell.facts.values import Value, values
from stepwell.facts.words import HOW, UNKNOWING

MAX_CHARS = 4_000
"""Of a longer text only this much is read, and it is marked as not whole."""
PARTICLE_REACH = 4
"""Words that may stand between a verb and its particle: "switch the light in the hall off" has four."""
MAX_QUOTED = 50
"""Words of a quote that are read."""
WORDED = frozenset({"entity", "quote"})
SURE = 2
"""Function words that make a language certain."""


class Facts(Struct, frozen=True):
    """What was read from one text."""

    whole: bool
    """False where the text was too long to be read to its end."""
    language: str
    """A language where function words tell it, else a script."""
    words: tuple[str, ...]
    """What is said, in order, in the form in which equal things are equal: values as `#kind:norm`, no fillers."""
    content: frozenset[str]
    """The words among them that carry meaning, and the values."""
    shape: tuple[str, ...]
    """The same as `words`, with the kinds of the values in their places: equal where only values differ."""
    values: tuple[Value, ...]
    negations: int
    """What turns the meaning: "not", "never"; not the "not" of "I do not know why"."""
    poles: frozenset[str]
    """Directions: `+7` and `-7` are opposite words of one pair."""
    asks: str
    """The question word; "" where there is none."""


def facts(text: str) -> Facts:
    """Read a text. Any text will do, the work is bounded, and nothing is raised."""
    read = text[:MAX_CHARS]
    found = tokens(read)
    typed = tuple(values(read, found))
    words, shape, content = _said(found, typed)
    known = [word for token in found for word in token.words]
    return Facts(
        whole=len(text) <= MAX_CHARS,
        language=_language(Counter(word.language for word in known if word.language)) or script(read),
        words=words,
        content=content,
        shape=shape,
        values=typed,
        negations=_negations(known),
        poles=_poles(found),
        asks=_asks(found),
    )


def _said(found: Sequence[Token], typed: Sequence[Value]) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    """Words, shape and content. Names and quotes count as words, too: not everybody marks them."""
    words: list[str] = []
    shape: list[str] = []
    content: list[str] = []
    starts = {value.start: value for value in typed}
    inside, covered, as_words = 0, 0, False
    for token in found:
        value = starts.get(token.start)
        if value is not None:
            covered, as_words = value.end, value.kind in WORDED
            shape.append(f"#{value.kind}")
            if not as_words:
                words.append(f"#{value.kind}:{value.norm}")
                content.append(words[-1])
        inside = token.start < covered
        if inside and not as_words:
            continue
        for word in token.words or _quoted(token):
            if word.stem in UNKNOWING and words[-1:] == ["not"]:
                words.pop()
                shape.pop()
            if word.meaning:
                words.append(word.meaning)
                if not inside:
                    shape.append(word.meaning)
                if not word.stops:
                    content.append(word.meaning)
    return tuple(words), tuple(shape), frozenset(content)


def _quoted(token: Token) -> Iterator[Word]:
    """The words of a quote."""
    return (word for part in token.text[1:-1].split()[:MAX_QUOTED] for word in look_up(part.strip(".,;:!?")))


def _negations(known: Sequence[Word]) -> int:
    following = (*known[1:], None)
    return sum(
        word.negates and not (after and after.stem in UNKNOWING) for word, after in zip(known, following, strict=False)
    )


def _poles(found: Sequence[Token]) -> frozenset[str]:
    poles: list[str] = []
    verb = -PARTICLE_REACH - 1
    for place, token in enumerate(found):
        for word in token.words:
            if word.stem in PARTICLE_VERBS:
                verb = place
            if word.poles and (word.stem not in PARTICLES or place - verb <= PARTICLE_REACH):
                poles += word.poles
    return frozenset(poles)


def _asks(found: Sequence[Token]) -> str:
    for place, token in enumerate(found):
        for word in token.words:
            if word.asks:
                following = found[place + 1].text.lower() if place + 1 < len(found) else ""
                if word.asks == "how":
                    return HOW.get(following, "how")
                return "when" if word.asks in {"what", "which"} and following == "time" else word.asks
    return ""


def _language(count: Counter[str]) -> str:
    """The language with at least two function words of its own, and twice as many as any other."""
    top = count.most_common(2)
    if not top or top[0][1] < SURE or (len(top) > 1 and top[1][1] * 2 > top[0][1]):
        return ""
    return top[0][0]


def plain(norm: str) -> frozenset[str]:
    """A value's words, as `Facts.words` has them."""
    return frozenset(word.meaning for part in norm.split() for word in look_up(part) if word.meaning)


def unsaid(kind: str, one: Facts, other: Facts) -> bool:
    """Whether a value of a kind in one text does not appear in the other, not even as plain words."""
    said = frozenset(other.words)
    return any(value.kind == kind and not plain(value.norm) <= said for value in one.values)
