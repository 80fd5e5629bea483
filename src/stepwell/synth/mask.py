"""Personal data and secrets become typed placeholders: <EMAIL_1>; the same value, the same placeholder, within one row.

What has a form is found by it: addresses of mail and network, telephones and accounts, cards (Luhn), IBANs (ISO 13616),
keys, links that carry keys. What has none (names, streets, what somebody says of himself) is not: docs/fine-tuning.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from stepwell.facts.personal import DATES, DIGITS, LONG_WORD, UUID, compact, is_card, is_iban

EMAIL = re.compile(
    r"[^\s@<>()\[\],;:\"'`]{1,64}@[^\s@<>()\[\],;:\"'`/?]{1,250}\.\w{2,63}"
    r"|\b[\w.+-]{1,64}\s?[\[({]at[\])}]\s?[\w-]{1,63}(?:(?:\.|\s?[\[({]dot[\])}]\s?)[\w-]{1,63}){0,4}",
    re.IGNORECASE,
)
URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://[^\s<>\"'`]{1,2000}", re.IGNORECASE)
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b", re.IGNORECASE)
PEM = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[^-]|-(?!----)){0,8000}(?:-----END [A-Z ]{0,30}KEY-----)?")
KEY = re.compile(
    r"\b(?:sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[abprs]|hf|npm|pypi|AIza|AKIA|ASIA|whsec|SG)[-_.]?[\w-]{12,300}"
    r"|\beyJ[\w-]{8,4000}\.[\w-]{8,4000}(?:\.[\w-]{1,4000})?"
    r"|\b[0-9a-f]{32,512}\b",
    re.IGNORECASE,
)
TOLD_SECRET = re.compile(
    r"\b(?:bearer|password|passwd|pwd|secret|api[_ -]?key|token)\b\"?\s*(?P<sign>is\b|:|=|)\s*[\"']?"
    r"(?P<value>[^\s\"'<>]{6,300})",
    re.IGNORECASE,
)
ADDRESS = re.compile(
    r"(?<![\w.:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f.]{0,15}|(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])", re.IGNORECASE
)
SECRET_NAMES = re.compile(r"token|key|sig|auth|code|pass|pwd|secret|session|credential|jwt", re.IGNORECASE)
LEAST_MIXED = 5
"""A long word with so many digits is no word."""
ENDS = ".,;:!?)]}"
"""What closes a sentence closes a link, too."""


class Found(NamedTuple):
    """Something personal in a text."""

    start: int
    end: int
    kind: str
    value: str
    """The same for two ways to write the same."""


Looks = Callable[[str], Iterator[Found]]
"""Finds one kind in a piece of text."""


def masked(texts: Sequence[str]) -> list[str]:
    """The texts of one row with placeholders in place of what is personal."""
    whole = "\n".join(texts)
    names: dict[tuple[str, str], str] = {}
    taken: dict[str, int] = {}

    def name(found: Found) -> str:
        known = names.get((found.kind, found.value))
        while known is None:
            number = taken[found.kind] = taken.get(found.kind, 0) + 1
            if (told := f"<{found.kind}_{number}>") not in whole:  # somebody may have written just that
                known = names[found.kind, found.value] = told
        return known

    return [replaced(text, name) for text in texts]


def replaced(text: str, name: Callable[[Found], str]) -> str:
    """One text, masked: each kind is looked for in what the kinds before have left."""
    plain, names = [text], [""]
    """Pieces of the text, each with the placeholder behind it."""
    for looks in KINDS:
        parts = [part for piece, behind in zip(plain, names, strict=True) for part in cut(piece, behind, looks, name)]
        plain, names = [piece for piece, _ in parts], [behind for _, behind in parts]
    return "".join(piece + behind for piece, behind in zip(plain, names, strict=True))


def cut(piece: str, behind: str, looks: Looks, name: Callable[[Found], str]) -> Iterator[tuple[str, str]]:
    """A piece of plain text, cut at what is found in it; of two that overlap, at the first."""
    at = 0
    for found in sorted(looks(piece)):
        if found.start >= at:
            yield piece[at : found.start], name(found)
            at = found.end
    yield piece[at:], behind


def links(text: str) -> Iterator[Found]:
    """Links that carry a key: in the place of a user, in a parameter, or as a word of the path that is none."""
    for match in URL.finditer(text):
        url = match[0].rstrip(ENDS)
        if carries_key(url):
            yield Found(match.start(), match.start() + len(url), "URL", url)


def carries_key(url: str) -> bool:
    """Whether a link gives more than a page; one that cannot be read counts as one that does."""
    try:
        parts = urlsplit(url)
        given = parse_qsl(f"{parts.query}&{parts.fragment}", keep_blank_values=True)
    except ValueError:
        return True
    named = any(SECRET_NAMES.search(name) for name, _ in given)
    return "@" in parts.netloc or named or mixed(f"{parts.path} {parts.query} {parts.fragment}")


def mixed(text: str) -> bool:
    """Whether a long word mixes letters and digits as no language does."""
    return any(sum(char.isdigit() for char in match[0]) >= LEAST_MIXED for match in LONG_WORD.finditer(text))


def emails(text: str) -> Iterator[Found]:
    """Addresses of mail, also with (at)."""
    for match in EMAIL.finditer(text):
        yield Found(*match.span(), "EMAIL", match[0].casefold())


def keys(text: str) -> Iterator[Found]:
    """Keys by their prefix or form, what is called a secret, and long words that are none."""
    for pattern in (PEM, KEY):
        for match in pattern.finditer(text):
            yield Found(*match.span(), "KEY", match[0])
    for match in TOLD_SECRET.finditer(text):
        value = match["value"].rstrip(ENDS)
        if is_told(match["sign"], value):
            yield Found(match.start("value"), match.start("value") + len(value), "KEY", value)
    for match in LONG_WORD.finditer(text):
        if sum(char.isdigit() for char in match[0]) >= LEAST_MIXED:
            yield Found(*match.span(), "KEY", match[0])


def is_told(sign: str, value: str) -> bool:
    """Whether what stands behind a word such as password is one: `policy` is not, `is required` neither."""
    if sign in {":", "="}:
        return bool(value)
    kinds = (str.islower, str.isupper, str.isdigit, lambda char: not char.isalnum())
    mixture = sum(any(map(kind, value)) for kind in kinds)
    return any(map(str.isdigit, value)) or (sign.lower() == "is" and mixture > 1)


def ibans(text: str) -> Iterator[Found]:
    """Bank accounts; the longest beginning of what may be one, that is one."""
    for match in IBAN.finditer(text):
        for end in range(len(match[0]), 14, -1):
            letters = compact(match[0][:end]).upper()
            if match[0][end - 1].isalnum() and len(letters) > 14 and is_iban(letters):  # noqa: PLR2004 - the shortest
                yield Found(match.start(), match.start() + end, "IBAN", letters)
                break


def identifiers(text: str) -> Iterator[Found]:
    """UUIDs."""
    for match in UUID.finditer(text):
        yield Found(*match.span(), "ID", match[0].lower())


def addresses(text: str) -> Iterator[Found]:
    """Network addresses of both kinds."""
    for match in ADDRESS.finditer(text):
        written = match[0].rstrip(".")
        try:
            value = str(ip_address(written))
        except ValueError:
            continue
        yield Found(match.start(), match.start() + len(written), "IP", value)


def numbers(text: str) -> Iterator[Found]:
    """Cards, telephones, and any other long run of digits; dates and spans of years are none."""
    for match in DIGITS.finditer(text):
        start, written = match.start(), match[0]
        if date := DATES.match(written):
            start, written = start + date.end(), written[date.end() :]
        digits = "".join(filter(str.isdigit, written))
        if len(digits) >= 7:  # noqa: PLR2004 - facts.personal.LEAST_DIGITS
            lead = len(written) - len(written.lstrip(" \u00a0./-"))
            yield Found(start + lead, match.end(), kind_of(written[lead:], digits), digits)


def kind_of(written: str, digits: str) -> str:
    """What a run of digits is, by how people write it."""
    if is_card(digits):
        return "CARD"
    return "PHONE" if written[0] in "+(0" or not written.isdigit() else "NUMBER"


KINDS: tuple[Looks, ...] = (links, emails, ibans, identifiers, keys, addresses, numbers)
