"""The city's questions in people's own words: what they want to know of a venue, said in many ways.

The guide's own reader (`wanted`) knows nothing of these wordings: it goes by a few key words and the venue's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

from stepwell.demo.city import written
from stepwell.demo.traffic import NUM_READERS, READER_EXPONENT, SHARE_STREAMED, TENANTS, VENUE_EXPONENT, Ask, zipf

WANTS: dict[str, tuple[str, ...]] = {
    "all": ("eatType", "food", "priceRange", "customer rating", "area", "familyFriendly"),
    "food": ("eatType", "food"),
    "price": ("eatType", "priceRange"),
    "rating": ("eatType", "customer rating"),
    "area": ("eatType", "area"),
    "family": ("eatType", "familyFriendly"),
}
"""What one may want to know, most wanted first, and the facts that say it."""
SAID: dict[str, tuple[str, ...]] = {
    "all": (
        "What is {} like?",
        "Tell me about {}",
        "Can you describe {}?",
        "I'd like to know more about {}",
        "Give me an overview of {}",
        "What should I know about {} before I go?",
        "Any information on {}?",
        "What sort of place is {}?",
    ),
    "food": (
        "What food does {} serve?",
        "What can I eat at {}?",
        "Which cuisine is on the menu at {}?",
        "What kind of dishes do they have at {}?",
        "What does the kitchen of {} cook?",
        "I'm hungry, what do they serve at {}?",
        "What type of food is served at {}?",
        "What's the cuisine at {}?",
    ),
    "price": (
        "How expensive is {}?",
        "What are the prices like at {}?",
        "Is {} cheap or expensive?",
        "How much does a meal at {} cost?",
        "What is the price range of {}?",
        "Will {} be easy on my wallet?",
        "Can I afford {}?",
        "What would I pay at {}?",
    ),
    "rating": (
        "How is {} rated?",
        "What do customers think of {}?",
        "Does {} have good reviews?",
        "What is the customer rating of {}?",
        "Do people like {}?",
        "How many points do guests give {}?",
        "What's the score of {} with its customers?",
        "Is {} well reviewed?",
    ),
    "area": (
        "Where is {}?",
        "Which part of town is {} in?",
        "How do I find {}, what area is it in?",
        "What is the location of {}?",
        "Where can I find {}?",
        "In which area does {} lie?",
        "Whereabouts is {}?",
        "Where in the city is {} located?",
    ),
    "family": (
        "Can I bring my children to {}?",
        "Is {} family friendly?",
        "Are kids welcome at {}?",
        "Is {} a good place for families?",
        "Would {} suit a family with small children?",
        "We have two kids, is {} alright for them?",
        "Do they welcome families at {}?",
        "Is {} suitable for children?",
    ),
}
OPENERS = ("", "", "", "Hi! ", "Hello, ", "Quick question: ", "Good morning. ", "Sorry to bother you. ")
CLOSERS = ("", "", "", " Thanks!", " Thank you very much", " Cheers", " Please let me know.")
KEY_WORDS: dict[str, str] = {
    "family": r"famil|child|kids",
    "price": r"expensive|cheap|price|cost|wallet|afford|pay",
    "rating": r"rated|rating|review|think of|people like|points|score",
    "food": r"food|eat at|cuisine|dish|cook|serve|menu",
    "area": r"where|area|location|located|part of town",
}


def questions(venues: Sequence[Mapping[str, str]], num: int, seed: int) -> list[Ask]:
    """So many questions: known venues are asked about more often (Zipf), each in words of the reader's own."""
    chance = Random(seed)  # noqa: S311 - traffic, not a secret
    about = chance.choices([venue["name"] for venue in venues], cum_weights=zipf(len(venues), VENUE_EXPONENT), k=num)
    want = chance.choices(list(WANTS), cum_weights=zipf(len(WANTS), 1.0), k=num)
    readers = chance.choices(range(NUM_READERS), cum_weights=zipf(NUM_READERS, READER_EXPONENT), k=num)
    by = chance.choices(list(TENANTS), list(TENANTS.values()), k=num)
    return [
        Ask(said(name, kind, chance), tenant, f"reader-{reader}", chance.random() < SHARE_STREAMED)
        for name, kind, tenant, reader in zip(about, want, by, readers, strict=True)
    ]


def said(name: str, kind: str, chance: Random) -> str:
    """One wording of a question."""
    return chance.choice(OPENERS) + chance.choice(SAID[kind]).format(name) + chance.choice(CLOSERS)


def wanted(text: str, venues: Mapping[str, Mapping[str, str]]) -> str | None:
    """The facts a question asks for, in E2E's writing; None where it names no venue of this city."""
    named = re.search(r"The [A-Z][a-z]+ [A-Z][a-z]+", text)
    venue = venues.get(named[0]) if named else None
    if venue is None or named is None:
        return None
    rest = text.replace(named[0], "").lower()
    kind = next((kind for kind, words in KEY_WORDS.items() if re.search(words, rest)), "all")
    return written(dict(venue), WANTS[kind])
