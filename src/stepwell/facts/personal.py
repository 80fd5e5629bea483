"""What a text must not hold to be shown to strangers: personal data and secrets, found by their form.

Rather too much than too little: whoever is wrongly suspected is only not shared. Names and addresses have no form; the
quorum stands against those. No pattern may look at a letter more than a few hundred times, whatever stands there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

LEAST_DIGITS = 7
"""A run of so many digits, with the spaces and signs that people put between them, may be anybody's number."""
CARD_DIGITS = range(12, 20)

MAIL = re.compile(
    r"[^\s@<>()\[\],;:\"]{1,64}@[^\s@<>()\[\],;:\"]{1,250}\.\w{2}|\b[\w.+-]{1,64}\s?[\[({]at[\])}]\s?\w", re.IGNORECASE
)
DIGITS = re.compile(r"(?<![\w.])[+(]{0,2}\d(?:[ \u00a0./()-]{0,2}\d){6,}")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b", re.IGNORECASE)
KEYS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|\b(?:sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[abprs]|hf|npm|pypi|AIza|AKIA|ASIA|whsec|SG)[-_.]?[\w-]{12}"
    r"|\beyJ[\w-]{8,200}\.[\w-]{8}"
    r"|\b(?:bearer|password|passwd|pwd|secret|api[_ -]?key|token)\b\s*(?:is|:|=)\s*\S{6}"
    r"|\b[0-9a-f]{32,}\b",
    re.IGNORECASE,
)
LONG_WORD = re.compile(r"[\w+/=-]{24,}")
UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
DATES = re.compile(r"(?:1\d|20)\d\d(?:\s?[-/]\s?(?:1\d|20)\d\d|-[01]\d-[0-3]\d)")


def personal(text: str) -> str:
    """What kind of personal data or secret stands in a text; empty where none was found."""
    return next((kind for kind, looks in KINDS if looks(text)), "")


def has_iban(text: str) -> bool:
    """An account by ISO 13616: country, check digits, remainder 1 modulo 97."""
    return any(is_iban(part) for match in IBAN.finditer(text) for part in prefixes(compact(match[0])))


def prefixes(letters: str) -> Iterator[str]:
    """An account and what follows it cannot be told apart by spaces: try every length there is."""
    return (letters[:length] for length in range(15, len(letters) + 1))


def is_iban(letters: str) -> bool:
    """Check one candidate."""
    moved = letters[4:] + letters[:4]
    return int("".join(str(int(each, 36)) for each in moved)) % 97 == 1


def has_card(text: str) -> bool:
    """A payment card: 12 to 19 digits whose last is Luhn's (ISO/IEC 7812)."""
    return any(is_card(compact(match[0])) for match in DIGITS.finditer(text))


def is_card(digits: str) -> bool:
    """Check one candidate."""
    if len(digits) not in CARD_DIGITS:
        return False
    doubled = (int(each) * (1 + place % 2) for place, each in enumerate(reversed(digits)))
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0  # noqa: PLR2004 - the sum of two digits


def has_number(text: str) -> bool:
    """Any long run of digits: telephones, accounts, customers; dates and spans of years are none."""
    return any(not DATES.fullmatch(match[0].strip()) for match in DIGITS.finditer(text))


def has_key(text: str) -> bool:
    """A secret by its prefix, or a long word that mixes letters and digits as no language does."""
    mixed = any(sum(char.isdigit() for char in match[0]) >= LEAST_DIGITS - 2 for match in LONG_WORD.finditer(text))
    return mixed or KEYS.search(text) is not None


def compact(text: str) -> str:
    """Only letters and digits."""
    return "".join(char for char in text if char.isascii() and char.isalnum())


KINDS: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("an e-mail address", MAIL.search),
    ("a bank account", has_iban),
    ("a payment card", has_card),
    ("a key", has_key),
    ("an identifier", UUID.search),
    ("a network address", ADDRESS.search),
    ("a telephone or account number", has_number),
)
