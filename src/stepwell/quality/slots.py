"""The slot checker of the E2E restaurant schema: which facts a sentence leaves out, gets wrong or makes up.

Patterns, attribute by attribute, on a text whose names are masked first. Verbal and numeric levels count as the same
("less than £20" may be said as "cheap", "5 out of 5" as "five stars"), as in the schema's published evaluations.
"Restaurant" is the schema's general word for a place and never counts as added.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

from msgspec import Struct

ATTRIBUTES = ("name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near")
LEVELS = {
    "cheap": "low",
    "less than £20": "low",
    "moderate": "middle",
    "£20-25": "middle",
    "high": "high",
    "more than £30": "high",
    "low": "low",
    "average": "middle",
    "1 out of 5": "low",
    "3 out of 5": "middle",
    "5 out of 5": "high",
}
FOODS = ("chinese", "english", "fast food", "french", "indian", "italian", "japanese")

LEVEL_WORDS = {
    **dict.fromkeys(("low", "lower", "lowest", "lowly"), "low"),
    **dict.fromkeys(
        ("average", "averagely", "moderate", "moderately", "medium", "middle", "mid", "mediocre"), "middle"
    ),
    **dict.fromkeys(("high", "higher", "highest", "highly"), "high"),
}
BEFORE, AFTER = 5, 3
"""Words before and after a level word in which its noun may stand."""
PRICE_WORD = r"\b(?:pric|cost|rang)\w*"
RATING_WORD = (
    r"\b(?:rat(?:ed|ing|ings|es?)|review\w*|scor\w*|recommend\w*|rank\w*|satisf\w*|reput\w*|customers?|stars?)\b"
)

PRICE_SIGNS = {
    "low": r"\bcheap|\binexpensive|\baffordab|\bbudget|\b(?:less|lower|cheaper) than (?:£ ?)?(?:20|twenty)"
    r"|\b(?:under|below|up to|within|beneath|not exceed\w*|not more than|no more than) (?:£ ?)?(?:20|twenty)"
    r"|\breasonabl|\b(?:£ ?)20 (?:or less|and under)|\blow[ -]cost|\bunder £",
    "middle": r"(?:£ ?)?\b20(?: pounds)?(?: ?- ?| to | and | through )(?:£ ?)?25|\breasonabl|\bmid[ -]?rang|\btwenty to twenty"
    r"|\bfair(?:ly)?[ -]pric|\bdecent(?:ly)? pric|\bmid[ -]?pric",
    "high": r"(?<!in)(?<!not )\bexpensive|\bpric(?:e)?y\b|\b(?:more|higher|greater) than (?:£ ?)?(?:30|thirty)"
    r"|\b(?:over|above|exceed\w*|upwards? of|at least|starting (?:at|from)|start (?:at|from)) (?:£ ?)?(?:30|thirty)"
    r"|\b(?:£ ?)30 (?:or more|and up|plus)|£ ?30 ?\+|\bhigh[ -]end|\bupscale|\bcostly",
}
RATING_SIGNS = {
    "low": r"\b(?:1|one)(?: ?- ?| )?star|\b(?:1|one) ?(?:out of|-out-of-|/|of) ?(?:a possible )?(?:5|five)|\bpoor|\bbad\b|\bbadly|\bterribl"
    r"|\b(?:not|n't) (?:very )?(?:well|highly)|\bunsatisf|\b(?:rating|rated|rates?)(?: of| is| at| as| it| an?)* (?:1|one)\b",
    "middle": r"\b(?:3|three)(?: ?- ?| )?stars?|\b(?:3|three) ?(?:out of|-out-of-|/|of) ?(?:a possible )?(?:5|five)|\bdecent(?!ly pric| pric)"
    r"|\b(?:rating|rated|rates?)(?: of| is| at| as| it| an?)* (?:3|three)\b|\bfair (?:customer )?rat|\bok(?:ay)? rat",
    "high": r"\b(?:5|five)(?: ?- ?| )?stars?|\b(?:5|five) ?(?:out of|-out-of-|/|of) ?(?:a possible )?(?:5|five)|\bexcellent|\bgreat (?:customer )?(?:rat|rev)"
    r"|\b(?:well|top|best)[ -](?:rated|reviewed|liked)|\bgood (?:customer )?(?:rat|rev)|\bperfect|\boutstanding"
    r"|\b(?:rating|rated|rates?)(?: of| is| at| as| it| an?)* (?:5|five)\b|\bfantastic|\bgreat\b",
}
FAMILY = r"famil(?:y|ies)|kids?|child|children|childs|adults?|toddlers?|youngsters?|all ages"
NOT = r"\b(?:no|not|non|never|isn't|isnt|aren't|doesn't|doesnt|don't|without|unsuitable|unfriendly|discourag\w*|inappropriate|neither|nor|avoid\w*|lacks?|free)\b|n't\b|\bnon"


class Errors(Struct, frozen=True):
    """Attributes that a text leaves out, says differently, or says though nobody asked."""

    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    added: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.missing) + len(self.wrong) + len(self.added)


def facts_of(mr: str) -> dict[str, str]:
    """Read `name[The Eagle], food[French]` into attribute and value. Raises ValueError where nothing can be read."""
    facts = {name.strip(): value.strip() for name, value in re.findall(r"([^,\[\]]+)\[([^\]]*)\]", mr)}
    if not facts:
        raise ValueError(f"no facts in {mr[:60]!r}; write them as name[The Eagle], food[French]")
    return facts


def errors(facts: Mapping[str, str], text: str) -> Errors:
    """Compare what a text says with the facts it was to say."""
    said = mentions(facts, text)
    missing = tuple(name for name in facts if not said.get(name, {"?"}))
    wrong = tuple(name for name, value in facts.items() if said.get(name) and level(value) not in said[name])
    added = tuple(name for name, values in said.items() if name not in facts and values - {"restaurant"})
    return Errors(missing, wrong, added)


def error_rate(pairs: Iterable[tuple[Mapping[str, str], str]]) -> float:
    """SER = (missing + wrong + added) / slots of the inputs."""
    num_errors = num_slots = 0
    for facts, text in pairs:
        num_errors += len(errors(facts, text))
        num_slots += len(facts)
    return num_errors / num_slots if num_slots else 0.0


def mentions(facts: Mapping[str, str], text: str) -> dict[str, set[str]]:
    """For each attribute the values that the text may be read to say; empty where it says nothing of it."""
    masked, found = mask(facts, text)
    plain = folded(masked)
    said = {
        "eatType": eat_types(plain),
        "food": {food for food in FOODS if re.search(rf"\b{food.replace(' ', '[ -]?')}", plain)}
        | ({"english"} if re.search(r"\bbritish\b", plain) else set()),
        "priceRange": levels(plain, PRICE_SIGNS, PRICE_WORD),
        "customer rating": levels(plain, RATING_SIGNS, RATING_WORD),
        "area": areas(plain),
        "familyFriendly": family(plain),
        "name": found["name"],
        "near": found["near"],
    }
    if "near" not in facts and re.search(r"\b(?:near|close to|next to|beside|opposite) (?:the )?[A-Z]", masked):
        said["near"] = {"somewhere"}
    return said


def level(value: str) -> str:
    """The word by which `mentions` knows a value."""
    return LEVELS.get(value, folded(value))


def mask(facts: Mapping[str, str], text: str) -> tuple[str, dict[str, set[str]]]:
    """Take the proper names out of the text; say which of them were there."""
    found: dict[str, set[str]] = {"name": set(), "near": set()}
    names = sorted(((name, facts[name]) for name in found if facts.get(name)), key=lambda pair: -len(pair[1]))
    for name, value in names:
        pattern = spelled(value)
        if pattern.search(folded(text)):
            found[name] = {folded(value)}
    for _, value in names:
        text = cut(text, spelled(value))
    return text, found


def cut(text: str, pattern: re.Pattern[str]) -> str:
    """Replace what a pattern finds in the folded text, which has the same length as the text itself."""
    for match in reversed(list(pattern.finditer(folded(text)))):
        text = f"{text[: match.start()]}_{text[match.end() :]}"
    return text


def spelled(value: str) -> re.Pattern[str]:
    """How a name may be written: case, accents, a leading article and spaces do not matter."""
    bare = re.sub(r"^the ", "", folded(value))
    return re.compile(r"\b(?:the )?" + r"[\s-]+".join(map(re.escape, bare.split())) + r"(?!\w)")


def folded(text: str) -> str:
    """Lower case without accents, letter by letter, so that places stay where they are."""
    return "".join((unicodedata.normalize("NFD", letter)[0]).lower()[:1] or letter for letter in text)


def eat_types(plain: str) -> set[str]:
    """Kinds of place that are named."""
    signs = {
        "coffee shop": r"\bcoffee|\bcafe\b|\bcafes\b",
        "pub": r"\bpubs?\b|\bpublic house|\btavern|\bbar\b",
        "restaurant": r"\brestaurant|\brestraunt|\brestaraunt|\bdiner\b|\beatery",
    }
    return {kind for kind, sign in signs.items() if re.search(sign, plain)}


def areas(plain: str) -> set[str]:
    """Parts of the city that are named."""
    said = set()
    if re.search(r"\briver|\bwaterside|\bwater'?s edge|\bwaterfront", plain):
        said.add("riverside")
    if re.search(r"\bcity|\bcent(?:re|er|ral)\b|\bdowntown|\btown\b", plain):
        said.add("city centre")
    return said


def levels(plain: str, signs: Mapping[str, str], noun: str) -> set[str]:
    """Levels said by a sign of their own, or by a word such as "high" that stands close to `noun`."""
    said = {name for name, sign in signs.items() if re.search(sign, plain)}
    for clause in re.split(r"[.;!?,]|\band\b|\bbut\b|\bwith\b", plain):
        words = re.findall(r"\w+", clause)
        for place, word in enumerate(words):
            around = " ".join(words[max(0, place - BEFORE) : place + AFTER + 1])
            if word in LEVEL_WORDS and re.search(noun, around):
                said.add(LEVEL_WORDS[word])
    return said


def family(plain: str) -> set[str]:
    """Whether families are welcome: `yes` or `no` for each clause that speaks of them."""
    said = set()
    for clause in re.split(r"[.;!?]|,? but |, ", plain):
        for match in re.finditer(rf"\b(?:{FAMILY})", clause):
            around = clause[max(0, match.start() - 45) : match.end() + 30]
            only_adults = "adult" in match[0] and not re.search(r"child|kid|famil", clause)
            said.add("no" if only_adults or re.search(NOT, around) else "yes")
    return said
