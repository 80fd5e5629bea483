"""An invented city: venues in the attributes of the E2E restaurant data, and the views of them that readers ask for.

Same seed, same city. No name here stands in any data set.
"""

from __future__ import annotations

from random import Random

FIRSTS = (
    *("Amber", "Black", "Blue", "Brass", "Bright", "Copper", "Crooked", "Dusty", "Early", "Gilded", "Golden", "Green"),
    *("Hidden", "Ivory", "Lazy", "Lucky", "Merry", "Painted", "Quiet", "Rusty", "Salty", "Silver", "Tall", "Velvet"),
)
SECONDS = (
    *("Acorn", "Anchor", "Badger", "Barley", "Bell", "Cedar", "Fern", "Finch", "Fox", "Goose", "Heron", "Kettle"),
    *("Lantern", "Lark", "Lily", "Magpie", "Otter", "Pear", "Sparrow", "Swan", "Thistle", "Walnut", "Willow", "Wren"),
)
EAT_TYPES = ("restaurant", "pub", "coffee shop")
FOODS = ("English", "French", "Italian", "Indian", "Chinese", "Japanese", "Fast food")
PRICES = ("cheap", "moderate", "high", "less than £20", "£20-25", "more than £30")
RATINGS = ("low", "average", "high", "1 out of 5", "3 out of 5", "5 out of 5")
AREAS = ("riverside", "city centre")

ATTRIBUTES = ("name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly")
"""In the order in which E2E writes them; all but `near`: the house writer mixes up two strange names (see its card)."""
VIEWS = (
    ("eatType", "food", "priceRange", "customer rating", "area", "familyFriendly"),
    ("eatType", "area", "familyFriendly"),
    ("eatType", "food", "priceRange", "area"),
    ("eatType", "customer rating", "familyFriendly"),
    ("food", "priceRange", "customer rating", "familyFriendly"),
    ("eatType", "food", "priceRange", "customer rating", "area"),
)
"""What different readers want to know of a venue, most wanted first; its name is always told."""


def venues(num: int, seed: int) -> list[dict[str, str]]:
    """Invent so many venues, each with a value for every attribute. Raises ValueError where names run out."""
    chance = Random(seed)  # noqa: S311 - a city, not a secret
    return [
        {
            "name": name,
            "eatType": chance.choice(EAT_TYPES),
            "food": chance.choice(FOODS),
            "priceRange": chance.choice(PRICES),
            "customer rating": chance.choice(RATINGS),
            "area": chance.choice(AREAS),
            "familyFriendly": chance.choice(("yes", "no")),
        }
        for name in chance.sample(names(), num)
    ]


def names() -> list[str]:
    """Every name that a venue of this city may have."""
    return [f"The {first} {second}" for first in FIRSTS for second in SECONDS]


def questions(num_venues: int, seed: int) -> list[str]:
    """Every view of every venue as an E2E meaning representation, those of the best-known venues first."""
    return [written(venue, view) for venue in venues(num_venues, seed) for view in VIEWS]


def written(venue: dict[str, str], view: tuple[str, ...]) -> str:
    """Write facts as E2E does: `name[The Amber Fox], food[French]`."""
    return ", ".join(f"{key}[{venue[key]}]" for key in ATTRIBUTES if key == "name" or key in view)
