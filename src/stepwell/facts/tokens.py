"""Cuts a text into words, figures, codes, quotes; linear in its length, for any Unicode."""

# ruff: noqa: RUF001 - strange letters are what is read

from __future__ import annotations

import re

from msgspec import Struct

from stepwell.facts.lexicon import Word, look_up


class Token(Struct, frozen=True, gc=False):
    """A piece of a text: text[start:end]."""

    text: str
    start: int
    end: int
    kind: str
    """word, alone, sign, figure, code, quote, date or time"""
    words: tuple[Word, ...] = ()


MARKS = "\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0dff\u200c\u200d"
ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Letters of scripts without spaces: each is a word."""
SIGNS = "$£€¥₹₽₩₺₿"
PLAIN = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
NOT_PLAIN = re.compile(r"""[^\x00-\x7f’]|[\d"`@_#$+*/^=<>%|~\\]|www|--|\s-\s|(?<!\w)'""")
TOKEN = re.compile(
    rf"""
      (?P<quote>"[^"\n]{{1,300}}"|“[^”\n]{{1,300}}”|„[^“”\n]{{1,300}}[“”]|«[^»\n]{{1,300}}»|`[^`\n]{{1,300}}`
        |(?<!\w)'[^'\n]{{1,300}}'(?!\w))
    | (?P<code>(?:https?://|www\.)[^\s<>"]{{1,300}}|(?<![\w.+-])[\w.+-]{{1,64}}@[\w-]{{1,64}}\.\w[\w.-]{{0,63}}
        |(?<!\S)--[a-zA-Z][\w-]{{1,40}}|\#[\w-]{{2,40}}
        |(?<![^\W_])(?:[A-Za-z]{{1,12}}[-_/]?(?=\w{{0,20}}\d)|\d{{1,20}}[-_]?(?=[A-Za-z_]{{1,20}}\d))[\w-]{{1,40}}
        |(?<!\w)[^\W\d_]\w{{0,30}}_\w{{1,40}})
    | (?P<date>(?<!\d)(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}
        |\d{{1,2}}[/.]\d{{1,2}}[/.]\d{{2,4}}|\d{{1,2}}/\d{{1,2}})(?!\d))
    | (?P<time>(?<!\d)\d{{1,2}}(?:[:h]\d{{2}}(?::\d{{2}})?(?:\s?[ap]\.?m\b)?|\s?[ap]\.?m\b|\s?o['’]clock))
    | (?P<figure>(?:[{SIGNS}]\s?)?(?:(?<!\w)[-−])?\d+(?:[.,'’]\d+)*(?:\s?(?:k|K|M|bn)\b|(?:st|nd|rd|th)\b)?
        (?:\s?[{SIGNS}%]|°[cCfF]?)?)
    | (?P<sign>[+*/^=<>%|~\\×÷≤≥≠√#]|(?<=\s)[-−](?=\s)|(?<=\d)[-−](?=\d))
    | (?P<alone>[{ALONE}])
    | (?P<word>[^\W\d_](?:[^\W\d_]|[{MARKS}])*(?:['’][^\W\d_]+)*)
    """,
    re.VERBOSE,
)


def tokens(text: str) -> list[Token]:
    """The tokens of a text, in order; what lies between them says nothing."""
    if NOT_PLAIN.search(text) is None:
        return [Token(m[0], m.start(), m.end(), "word", look_up(m[0])) for m in PLAIN.finditer(text)]
    found = []
    for match in TOKEN.finditer(text):
        kind = match.lastgroup or ""
        known = look_up(match[0]) if kind in {"word", "alone", "sign"} else ()
        found.append(Token(match[0], match.start(), match.end(), kind, known))
    return found
