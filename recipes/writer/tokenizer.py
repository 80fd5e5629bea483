"""The writer's tokenizer: byte-level BPE, so that any name can be written; trained on the training texts alone."""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from recipes.writer import data

PAD, BOS, SEP, EOS = 0, 1, 2, 3
SPECIAL = ["<pad>", "<s>", "<sep>", "</s>"]
VOCABULARY = 2048


def trained(pairs: list[data.Pair], seed: int = 0) -> Tokenizer:
    """Learn the merges from facts and texts, some of them about invented places."""
    chance = random.Random(seed)
    seen = data.epoch(data.grouped(pairs), chance, share_renamed=0.3)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        (line for group in seen for text in group.texts for line in (group.mr, text)), trainer
    )
    return tokenizer


def prompt_ids(tokenizer: Tokenizer, mr: str) -> list[int]:
    """The prompt as the chat template writes it: <s> facts <sep>."""
    return [BOS, *tokenizer.encode(mr, add_special_tokens=False).ids, SEP]


def text_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The text to be learned: text </s>."""
    return [*tokenizer.encode(text, add_special_tokens=False).ids, EOS]


def load(folder: Path) -> Tokenizer:
    """Read tokenizer.json."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def pieces(tokenizer: Tokenizer) -> list[str]:
    """The tokens that are nothing but letters, in lower case: what any word is made of."""
    words = (token.removeprefix("Ġ").lower() for token in tokenizer.get_vocab())
    return sorted({word for word in words if word.isascii() and word.isalpha() and len(word) <= 5})
