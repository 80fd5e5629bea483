"""Which script a text is written in, by its first letters."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

NUM_LETTERS = 200
STARTS = (0x0, 0x370, 0x400, 0x530, 0x590, 0x600, 0x780, 0x900, 0xE00, 0xE80, 0x1000, 0x10A0, 0x1100, 0x1200, 0x1E00,
          0x1F00, 0x2000, 0x3040, 0x3100, 0x3400, 0xA000, 0xAC00, 0xD7B0, 0xF900, 0xFB00)  # fmt: skip
NAMES = ("latin", "greek", "cyrillic", "armenian", "hebrew", "arabic", "other", "indic", "thai", "other", "burmese",
         "georgian", "hangul", "other", "latin", "greek", "other", "kana", "other", "han", "other", "hangul", "other",
         "han", "other")  # fmt: skip


def script(text: str) -> str:
    """The script of most letters; "" for a text without letters. Kana makes a text Japanese, whatever else is there."""
    if text.isascii():
        return "latin" if any(map(str.isalpha, text)) else ""
    letters = [one for one in text[: 4 * NUM_LETTERS] if one.isalpha()][:NUM_LETTERS]
    count = Counter(NAMES[bisect_right(STARTS, ord(one)) - 1] for one in letters)
    if count["kana"]:
        return "kana"
    return max(count, key=lambda name: (count[name], name), default="")
