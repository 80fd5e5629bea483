"""Log-probabilities that a server told beside its text, as sparse logits of the tokenizer of its model.

A server names tokens by their bytes; they are found in the vocabulary by them. A text whose tokens are not those that
the tokenizer makes of it is no use: the student would learn other places than those the odds are of.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stepwell.distill import sparse, topk
from stepwell.distill.chat import Words, words_of
from stepwell.distill.topk import TopK
from stepwell.engines.replies import Place, Said

FILE = "told.sparse"
NO_ODDS, OTHER_TOKENS = "told no log-probabilities", "its tokens are not those of the tokenizer"


class ToldLogits:
    """Collects rows, and writes them at the end."""

    def __init__(self, tokenizer: Path, out: Path, *, cover: float, least: float) -> None:
        """`cover` and `least` as in `topk.fewest`. Raises DistillError where the folder holds no tokenizer."""
        self.words, self.out = words_of(tokenizer), out
        self.cover, self.least = cover, least
        self.ids = ids_by_bytes(self.words)
        self.rows: dict[str, TopK] = {}

    def keep(self, name: str, said: Said) -> str:
        """Keep the odds of a row's text; or why there are none to keep."""
        if not said.places:
            return NO_ODDS
        ids = self.words.text_ids(said.text)
        places = [place for place in said.places if place.data in self.ids]
        if [self.ids[place.data] for place in places[: len(ids) - 1]] != ids[:-1]:
            return OTHER_TOKENS
        self.rows[name] = self.topk(ids, places[: len(ids) - 1])
        return ""

    def topk(self, ids: list[int], places: list[Place]) -> TopK:
        """The odds of each place; that the text ended where it did is all that is known of its end."""
        known = [{self.ids[place.data]: place.logprob} | self.odds(place) for place in places] + [{ids[-1]: 0.0}]
        width = max(len(each) for each in known)
        found = np.zeros((len(known), width), np.int64)
        logp = np.full((len(known), width), -np.inf, np.float32)
        for at, each in enumerate(known):
            found[at, : len(each)], logp[at, : len(each)] = list(each), list(each.values())
        return topk.fewest(np.array(ids), found, np.minimum(logp, 0), cover=self.cover, least=self.least)

    def odds(self, place: Place) -> dict[int, float]:
        """Tokens that might have stood at a place; those that the vocabulary has not count with the rest."""
        return {self.ids[each.data]: each.logprob for each in place.top_logprobs if each.data in self.ids}

    def close(self) -> None:
        """Write the file, where there is something to write."""
        if self.rows:
            size = self.words.tokenizer.get_vocab_size()
            hashed = self.words.tokenizer_hash
            sparse.write(self.out / FILE, self.rows.items(), tokenizer_hash=hashed, vocabulary=size)


def ids_by_bytes(words: Words) -> dict[bytes, int]:
    """The vocabulary by what each token's bytes are; special tokens are nobody's text."""
    letters = byte_of_letter()
    vocabulary = words.tokenizer.get_vocab(with_added_tokens=False)
    by_bytes = all(letter in letters for token in vocabulary for letter in token if not token.startswith("<"))
    special = {token.content for token in words.tokenizer.get_added_tokens_decoder().values() if token.special}
    return {
        spelled(token, letters if by_bytes else None): number
        for token, number in vocabulary.items()
        if token not in special
    }


def spelled(token: str, letters: dict[str, int] | None) -> bytes:
    """A token's bytes: byte by byte (GPT-2), or as text with a mark for a space (SentencePiece)."""
    if letters is not None and all(letter in letters for letter in token):
        return bytes(letters[letter] for letter in token)
    if len(token) == 6 and token.startswith("<0x"):  # noqa: PLR2004 - <0x0A>
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()


def byte_of_letter() -> dict[str, int]:
    """GPT-2's letters for bytes: those that can be printed stand for themselves, the others lie from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + at): byte for at, byte in enumerate(others)}
