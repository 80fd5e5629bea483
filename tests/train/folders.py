"""Tiny models with random weights, written as Hugging Face folders by transformers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<pad>", "<s>", "<sep>", "</s>"]
TEXTS = [
    "name[The Mill], food[French], area[riverside]",
    "The Mill serves French food by the river.",
    "Blue Spice is a cheap coffee shop near Burger King, with an average rating.",
]
CHAT = "{{ bos_token }}{{ messages[-1]['content'] }}<sep>"
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"tie_word_embeddings": True},
    "granite": {"embedding_multiplier": 2.0, "logits_scaling": 3.0, "residual_multiplier": 0.5},
    "gemma3_text": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": {"sliding_window": 16, "final_logit_softcapping": 5.0},
}


def tokenizer(num: int = 300, texts: list[str] = TEXTS) -> Tokenizer:
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=num, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(texts, trainer)
    return words


def write_words(folder: Path, num: int = 300, chat: str = CHAT, texts: list[str] = TEXTS) -> Path:
    """The tokenizer's half of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(num, texts).save(str(folder / "tokenizer.json"))
    said = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": chat}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def write_model(folder: Path, kind: str = "llama", seed: int = 0, rows: int = 0, **sizes: Any) -> Path:
    """A whole folder of one architecture; `rows` of the embedding, where more than the tokenizer has tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - seconds, and not for all who make words

    write_words(folder)
    num = rows or tokenizer().get_vocab_size()
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, vocab_size=num, **SIZES | KINDS[kind] | sizes)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # wide enough that a mistake shows
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    return folder
