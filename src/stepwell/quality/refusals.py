"""Texts that are no answer: a model's refusal, or another language than the one asked for."""

from __future__ import annotations

import re

from stepwell.facts.facts import facts
from stepwell.facts.script import script
from stepwell.facts.words import LANGUAGES

MAX_CHARS = 240
"""A refusal says so at its beginning."""
MIN_WORDS = 2
"""Different function words that make a language certain."""
CANNOT = r"(?:can't|cannot|can not|won't|will not|am unable|am not able|must decline)"
DO = (
    r"(?:help(?! but)|assist|comply|provide|answer|fulfil|create|generate|write|support|engage|continue|discuss|respond"
    r"|(?:do|process) (?:that|this) request)"
)
"""What models refuse to do. What an assistant cannot do in the world (book, find, pay) is an answer."""
REFUSALS = (
    rf"(?:i'm (?:very |so |really )?sorry|i apologi[sz]e|sorry|unfortunately)\b.{{0,80}}?\bi {CANNOT}(?: to)? {DO}\b",
    rf"(?:i'm (?:very |so |really )?sorry\b.{{0,80}}?\b)?i'm (?:unable|not able) to {DO}\b",
    rf"i {CANNOT}(?: to)? {DO}\b",
    r"as an? (?:ai|large language model|language model|artificial intelligence|assistant)\b",
    r"es tut mir leid\b.{0,80}?\bkann\b",
    r"ich kann (?:dir|ihnen|dabei|das|diese\w*)\b.{0,60}?\bnicht\b",
    r"(?:je suis )?désolée?\b.{0,80}?\bne (?:peux|puis)\b",
    r"je ne (?:peux|puis) pas\b",
    r"lo siento\b.{0,80}?\bno puedo\b",
    r"no puedo (?:ayudar|proporcionar|responder|cumplir)\b",
)
begins_as_one = re.compile(rf"\W*(?:{'|'.join(REFUSALS)})", re.IGNORECASE | re.DOTALL).match


def is_refusal(text: str) -> bool:
    """Whether a text begins as models refuse, in English, German, French or Spanish."""
    return begins_as_one(text[:MAX_CHARS].replace("\u2019", "'")) is not None


def other_language(text: str, wanted: str) -> str:
    """The language or script of a text that is surely not `wanted` (a code such as "en", or a script); else "".

    A language must show more of its function words than the one that is wanted: "as well as" makes no Portuguese.
    """
    found = facts(text).language
    if found not in LANGUAGES:
        return "" if found in {"", "latin" if wanted in LANGUAGES else wanted} else found
    if wanted not in LANGUAGES:
        return "" if script(text) == wanted else found
    words = {
        word.lower() for place, word in enumerate(text.split()) if not place or word.islower()
    }  # names are no words
    own, other = (len(words & set(LANGUAGES[name].split())) for name in (wanted, found))
    return found if found != wanted and other > own and other >= MIN_WORDS else ""
