"""The writer's tokenizer: byte-level BPE, so that any name can be written; trained on the training texts alone."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from recipes.writer import data

PAD, BOS, EOS = 0, 1, 3
SPECIAL = ["<pad>", "<s>", "<sep>", "</s>"]
VOCABULARY = 2048
CHAT_TEMPLATE = (
    "{%- set last = namespace(text='') -%}"
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
    "{%- if message['content'] is string -%}{%- set last.text = message['content'] -%}"
    "{%- else -%}{%- set last.text = message['content'][0]['text'] -%}{%- endif -%}"
    "{%- endif -%}{%- endfor -%}"
    "{{ bos_token }}{{ last.text }}<sep>"
)
"""The last user message, as <s> facts <sep>."""


def trained(pairs: Sequence[data.Pair], seed: int = 0) -> Tokenizer:
    """Learn the merges from facts and texts, some of them about invented places."""
    chance = random.Random(seed)
    seen = data.epoch(data.grouped(list(pairs)), chance, share_renamed=0.3)
    return learned((line for group in seen for text in group.texts for line in (group.mr, text)), VOCABULARY)


def learned(lines: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn so many tokens from lines of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """The tokenizer's half of a Hugging Face folder, chat template and end token among it."""
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "additional_special_tokens": ["<sep>"]}
    ends = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "do_sample": False, "max_length": context}
    said = {
        **named,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    files = {"special_tokens_map.json": named, "generation_config.json": ends, "tokenizer_config.json": said}
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def pieces(tokenizer: Tokenizer) -> list[str]:
    """The tokens that are nothing but letters, in lower case: what any word is made of."""
    words = (token.removeprefix("Ġ").lower() for token in tokenizer.get_vocab())
    return sorted({word for word in words if word.isascii() and word.isalpha() and len(word) <= 5})
