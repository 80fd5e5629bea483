"""Texts that are no answer: a model's refusal, or another language than the one asked for."""

from __future__ import annotations

import re

from stepwell.facts.facts import facts
from stepwell.facts.script import script
from stepwell.facts.words import LANGUAGES

MAX_CHARS = 240
"""A refusal says so at its beginning."""
CANNOT = r"(?:can't|cannot|can not|won't|will not|am unable|am not able|must decline)"
DO = r"(?:help|assist|comply|provide|answer|fulfil|do that|create|generate|write|share|support|engage|continue|discuss)"
REFUSALS = (
    rf"i'm (?:very |so |really )?sorry\b.{{0,80}}?\bi {CANNOT}\b",
    r"i'm (?:very |so |really )?sorry\b.{0,80}?\bi'm (?:unable|not able)\b",
    rf"(?:i apologi[sz]e|sorry|unfortunately)\b.{{0,80}}?\bi {CANNOT}\b",
    rf"i {CANNOT}(?: to)? {DO}\b",
    r"i'm (?:unable|not able) to\b",
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
    """The language or script of a text that is surely not `wanted` (a code such as "en", or a script); else ""."""
    found = facts(text).language
    own = "latin" if wanted in LANGUAGES else wanted
    if found in LANGUAGES:
        return "" if found == wanted or (wanted not in LANGUAGES and script(text) == wanted) else found
    return "" if found in {"", own} else found
