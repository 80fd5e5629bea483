"""A second slot checker for E2E restaurant texts, written apart from `slots.py` and never used to filter or re-rank.

It reads the text alone, token by token, into a list of mentions (attribute, values it may stand for), and compares
that with the facts afterwards. Places are found by likeness of names, levels by the head word that an adjective
belongs to, and family friendliness by the scope of negations.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher

from msgspec import Struct


class Errors(Struct, frozen=True):
    """Attributes that the text leaves out, says differently, or says though nobody asked."""

    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    added: tuple[str, ...]


class Mention(Struct, frozen=True):
    """One attribute spoken of; `values` are the ones that the words may stand for."""

    attribute: str
    values: frozenset[str]


class Reading(Struct, frozen=True):
    """A text as plain words; `starts` marks words that were capitalised."""

    words: tuple[str, ...]
    capital: tuple[bool, ...]


def words_of(text: str) -> frozenset[str]:
    """Write a set of words as one line."""
    return frozenset(text.split())


def table(**rows: str) -> dict[str, str]:
    """Turn `value="word word"` into word -> value; an underscore in a value is a space."""
    return {word: value.replace("_", " ") for value, words in rows.items() for word in words.split()}


CUISINES = table(
    English="english british breakfast",
    Japanese="japanese sushi",
    French="french",
    Italian="italian pasta pizza spaghetti italy",
    Indian="indian curry curries india",
    Chinese="chinese china",
)
VENUES = table(pub="pub pubs bar tavern", coffee_shop="coffee cafe coffeehouse cafes", restaurant="restaurant bistro")
GENERIC = "restaurant"
"""The word for any venue: it answers eatType[restaurant], but says nothing against another type."""

LEVELS = table(
    low="low lower lowly poor poorly bad badly worst cheap cheaply lowest below terrible",
    middle="average averaged averagely moderate moderately mid medium middle mediocre decent reasonable reasonably "
    "fair fairly okay ok mild modest mixed standard normal midrange acceptable satisfactory",
    high="high highly higher highest excellent great top best well outstanding superb amazing fantastic perfect upper "
    "expensive good upscale wonderful maximum exceptional favorable positive",
)
"""Adjectives without a subject; the nearest head word says what they speak of."""
PRICE_WORDS = table(
    low="cheap cheaply inexpensive affordable affordably budget cheaper economical bargain",
    middle="midpriced",
    high="expensive pricey pricier pricy costly upscale overpriced",
)
"""Adjectives that speak of price wherever they stand."""
PRAISE = words_of("good great best excellent well amazing fantastic")
"""Said of a price, these mean that it is not high."""
PRICE_HEADS = words_of("price prices priced pricing cost costs costing value range ranges ranged end budget")
RATING_HEADS = words_of(
    "rating ratings rated rate rates review reviews reviewed customer customers score scores scored star "
    "stars quality feedback recommended regarded satisfaction reputation rank ranked"
)
SCALE: dict[str, dict[str, str]] = {
    "priceRange": {
        "cheap": "low",
        "less than £20": "low",
        "moderate": "middle",
        "£20-25": "middle",
        "high": "high",
        "more than £30": "high",
    },
    "customer rating": {
        "low": "low",
        "1 out of 5": "low",
        "average": "middle",
        "3 out of 5": "middle",
        "high": "high",
        "5 out of 5": "high",
    },
}
OPPOSITE = {
    "low": frozenset({"middle", "high"}),
    "middle": frozenset({"low", "high"}),
    "high": frozenset({"low", "middle"}),
}

NUMBERS = {
    "one": "1",
    "single": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "twenty": "20",
    "thirty": "30",
}
UNDER = words_of("less under below cheaper lower most maximum within up beneath")
OVER = words_of("more over above from least exceed exceeds exceeding starting start up upwards minimum plus higher")

STOPS = words_of(". ; , ! ? : and but with while however although though")
ENDS = words_of(". ! ?")
NEGATIONS = words_of(
    "not no non none never isn't doesn't don't aren't won't can't cannot without isnt doesnt dont arent nor neither"
)
UNWELCOME = NEGATIONS | words_of(
    "unsuitable unfriendly inappropriate avoid avoids excludes lacks prohibited forbidden banned away bad free poor"
)
FAMILY = words_of("family families kid kids child children childrens child's children's kid's families' familys")
ADULTS = words_of("adult adults")
NEARNESS = words_of("near nearby by beside close next opposite adjacent around behind across")
FILLERS = words_of("the to of a from is located and it situated very")
COMMON_NAME_WORDS = words_of("the a by of cafe")
LIKENESS = 0.8
"""How alike (0 to 1) two names must be: lets one wrong letter in seven pass."""


def errors(facts: Mapping[str, str], text: str) -> Errors:
    """Compare what a text says with the facts it was to tell."""
    reading = read(text)
    reading, found = without_places(reading, facts)
    told: dict[str, list[frozenset[str]]] = {}
    for mention in (*found, *mentions(reading)):
        told.setdefault(mention.attribute, []).append(mention.values)
    missing = tuple(key for key in facts if key not in told)
    wrong = tuple(key for key, value in facts.items() if key in told and contradicts(key, value, told[key]))
    added = tuple(key for key in told if key not in facts and told[key] != [frozenset({GENERIC})] * len(told[key]))
    return Errors(missing, wrong, added)


def contradicts(attribute: str, value: str, told: list[frozenset[str]]) -> bool:
    """Whether no mention fits the value: a vaguer word for the same level does, a more exact one does not."""
    fitting = {value, SCALE.get(attribute, {}).get(value, value)}
    if attribute == "eatType" and value != GENERIC:
        told = [values for values in told if GENERIC not in values] or told
    return not any(values & fitting for values in told)


def read(text: str) -> Reading:
    """Split a text into plain lower-case words, numbers as digits and marks on their own."""
    plain = unicodedata.normalize("NFKD", text.replace("£", " £ ").replace("\u2019", "'"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    found = re.findall(r"[A-Za-z]+(?:'[A-Za-z]+)?|\d+|[£$€/+.,;:!?]", re.sub(r"(?<=\d)[.,](?=\d)", "", plain))
    words = tuple(NUMBERS.get(word.lower(), word.lower()) for word in found)
    return Reading(words, tuple(word[0].isupper() for word in found))


def without_places(reading: Reading, facts: Mapping[str, str]) -> tuple[Reading, list[Mention]]:
    """Find the venue and its neighbour, and take their words out: a Curry Garden need not serve curry."""
    found = []
    for attribute in sorted({"name", "near"} & set(facts), key=lambda key: -len(facts[key])):
        spans = list(likenesses(reading.words, read(facts[attribute]).words))
        if spans:
            found.append(Mention(attribute, frozenset({facts[attribute]})))
        for start, end in reversed(spans):
            reading = replaced(reading, start, end, f"<{attribute}>")
    return reading, found


def replaced(reading: Reading, start: int, end: int, mark: str) -> Reading:
    """Put one mark in the place of some words."""
    return Reading(
        (*reading.words[:start], mark, *reading.words[end:]),
        (*reading.capital[:start], False, *reading.capital[end:]),
    )


def likenesses(words: tuple[str, ...], name: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Spans, in order and apart, whose letters are like the name's, articles aside; likest first among neighbours."""
    found = [likest(words[position:], name) for position in range(len(words))]
    end = 0
    for position, (likeness, length) in enumerate(found):
        if position >= end and likeness >= LIKENESS and likeness >= max(found[position : position + 4])[0]:
            end = position + length
            yield position, end


def likest(words: tuple[str, ...], name: tuple[str, ...]) -> tuple[float, int]:
    """How alike (0 to 1) a name and the first words are, and how many words are likest."""
    letters = bare(name)
    best = (0.0, 0)
    for length in range(1, min(len(name) + 1, len(words)) + 1):
        if not words[length - 1].isalnum() and "'" not in words[length - 1]:
            break
        if {words[0], words[length - 1]} & COMMON_NAME_WORDS - set(name):
            continue
        matcher = SequenceMatcher(None, bare(words[:length]), letters)
        if matcher.real_quick_ratio() >= best[0]:
            best = max(best, (matcher.ratio(), length))
    return best


def bare(words: tuple[str, ...]) -> str:
    """The letters of a name without articles and possessives."""
    named = [word.removesuffix("'s") for word in words if word not in COMMON_NAME_WORDS] or words
    return "".join(named)


def mentions(reading: Reading) -> Iterator[Mention]:
    """Everything that a text says about a venue, places aside."""
    words = reading.words
    for position, word in enumerate(words):
        yield from kind_of(words, position, word)
        yield from area_of(word)
        yield from level_of(words, position, word)
        yield from family_of(words, position, word)
        if word in NEARNESS and stranger(reading, position):
            yield Mention("near", frozenset())
    yield from prices(words)
    yield from ratings(words)


def kind_of(words: tuple[str, ...], position: int, word: str) -> Iterator[Mention]:
    """Food and type of venue."""
    after = words[position + 1 : position + 2]
    if word in {"fast", "fastfood", "burger", "burgers"} and (word != "fast" or after == ("food",)):
        yield Mention("food", frozenset({"Fast food"}))
    elif word in CUISINES:
        yield Mention("food", frozenset({CUISINES[word]}))
    if word in VENUES:
        yield Mention("eatType", frozenset({VENUES[word]}))


def area_of(word: str) -> Iterator[Mention]:
    """Riverside or city centre."""
    if word.startswith("river") or word in {"waterfront", "waterside", "thames"}:
        yield Mention("area", frozenset({"riverside"}))
    elif word in {"centre", "center", "downtown", "city", "town", "central", "centrally"}:
        yield Mention("area", frozenset({"city centre"}))


def level_of(words: tuple[str, ...], position: int, word: str) -> Iterator[Mention]:
    """An adjective of level, given to the price or the rating by the head word nearest to it."""
    attribute = "priceRange" if word in PRICE_WORDS else subject(words, position) if word in LEVELS else ""
    if attribute:
        level = PRICE_WORDS.get(word) or LEVELS[word]
        turned = denied(words, position) or (attribute == "priceRange" and word in PRAISE)
        yield Mention(attribute, OPPOSITE[level] if turned else frozenset({level}))


def subject(words: tuple[str, ...], position: int) -> str:
    """What an adjective speaks of: the first head word after it in its phrase, else the last one before it."""
    ahead = phrase(words[position + 1 : position + 6])
    behind = phrase(words[max(0, position - 6) : position][::-1])
    for word in (*ahead, *behind):
        if word in RATING_HEADS:
            return "customer rating"
        if word in PRICE_HEADS:
            return "priceRange"
    return ""


def phrase(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words up to where the phrase stops."""
    stop = next((index for index, word in enumerate(words) if word in STOPS), len(words))
    return words[:stop]


def denied(words: tuple[str, ...], position: int) -> bool:
    """Whether a negation stands before the word, in its phrase."""
    return not NEGATIONS.isdisjoint(phrase(words[max(0, position - 5) : position][::-1]))


def family_of(words: tuple[str, ...], position: int, word: str) -> Iterator[Mention]:
    """Friendly to families or not: a negation in the phrase before, or right after, turns it round."""
    if word in ADULTS:
        yield Mention("familyFriendly", frozenset({"no"}))
    elif word in FAMILY:
        after = phrase(words[position + 1 : position + 5])
        before = phrase(words[max(0, position - 8) : position][::-1])
        no = not UNWELCOME.isdisjoint(after) or not UNWELCOME.isdisjoint(before)
        yield Mention("familyFriendly", frozenset({"no" if no else "yes"}))


def stranger(reading: Reading, position: int) -> bool:
    """Whether a word of nearness is followed by a capitalised name that is not among the facts."""
    for index in range(position + 1, min(position + 5, len(reading.words))):
        if reading.words[index] not in FILLERS or (reading.capital[index] and reading.words[index] != "the"):
            return reading.capital[index] and reading.words[index] not in {
                *CUISINES,
                *VENUES,
                "river",
                "riverside",
                "city",
            }
    return False


def prices(words: tuple[str, ...]) -> Iterator[Mention]:
    """Sums of money, sentence by sentence."""
    for start, end in sentences(words):
        part = words[start:end]
        sums = {word for word in part if word in {"20", "25", "30"}}
        bounds = set(part)
        if {"20", "25"} <= sums or sums == {"25"}:
            yield Mention("priceRange", frozenset({"£20-25"}))
        elif "30" in sums:
            yield Mention(
                "priceRange", frozenset({"other"} if bounds & UNDER and not bounds & OVER else {"more than £30"})
            )
        elif "20" in sums:
            yield Mention(
                "priceRange", frozenset({"other"} if bounds & OVER and not bounds & UNDER else {"less than £20"})
            )


def sentences(words: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence."""
    start = 0
    for index, word in enumerate((*words, ".")):
        if word in ENDS:
            yield start, index
            start = index + 1


def ratings(words: tuple[str, ...]) -> Iterator[Mention]:
    """Marks out of five, and stars; the five in "one out of five" is no mark of its own."""
    for position, word in enumerate(words):
        after, before = words[position + 1 : position + 3], words[max(0, position - 4) : position]
        if word not in {"1", "2", "3", "4", "5"} or before[-1:] in {("£",), ("/",)} or before[-2:] == ("out", "of"):
            continue
        marked = after[:1] in {("/",), ("of",), ("star",), ("stars",)} or after == ("out", "of")
        if marked or not (RATING_HEADS.isdisjoint(before) or "out" in before):
            yield Mention("customer rating", frozenset({f"{word} out of 5"}))
