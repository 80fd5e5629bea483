"""Tokenizers in the file: llama.cpp cuts every text into the tokens that the tokenizers library cuts it into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_folders import write_folder
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from stepwell.errors import DistillError
from stepwell.quantize.engine import Job, run
from stepwell.quantize.export import to_gguf
from stepwell.quantize.words import SPLITS

TEXTS = [
    "name[The Mill], food[French], area[riverside]",
    "The Mill serves French food by the river, doesn't it? It's cheap: £20, or 1,234.50 in 2026!",
    "Blue Spice is a cheap coffee shop near Burger King, with an average rating.",
    "  two  spaces,\ttabs\n\nand lines \r\n of  all kinds   ",
    "naïve café, Straße, 日本語のテキスト, русский текст, 👩‍💻🎉 ½ ² ॐ",
    "def f(x):\n    return x**2  # IDs like A1B2-c3",
    "<s> is no word, <sep> is one",
    "",
]
SPECIAL = ["<pad>", "<s>", "</s>", "<sep>"]


def byte_level(kind: str) -> Tokenizer:
    words = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt-2")
    pattern = next((each for each, name in SPLITS.items() if name == kind), None)
    cut: list[Any] = [level]
    if pattern:
        cut = [pre_tokenizers.Split(Regex(pattern), "isolated"), level]
    elif kind == "refact":
        cut = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    words.pre_tokenizer = pre_tokenizers.Sequence(cut) if len(cut) > 1 else level
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator(TEXTS, trainer)
    return words


def pieces(*, prepend: bool) -> Tokenizer:
    """As transformers turns a SentencePiece model into: every way to a piece is a merge, by the piece's score."""
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizers.Replace(" ", "▁")
    first = ["<pad>", "<s>", "</s>", "<unk>", *(f"<0x{at:02X}>" for at in range(256))]
    learner.train_from_iterator(
        TEXTS[:4], trainers.BpeTrainer(vocab_size=480, special_tokens=first, show_progress=False)
    )
    vocab = learner.get_vocab()
    merges = [
        (piece[:at], piece[at:])
        for piece in sorted(vocab, key=lambda piece: vocab[piece])
        for at in range(1, len(piece))
        if piece not in first and piece[:at] in vocab and piece[at:] in vocab
    ]
    words = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prepend else replace
    words.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    words.add_special_tokens(first[:4])
    words.add_tokens([AddedToken("\n\n\n", normalized=False), AddedToken("<tool>", normalized=False)])
    return words


def file_of(words: Tokenizer, folder: Path) -> Path:
    return to_gguf(write_folder(folder / "model", words), folder / "model.gguf", "F32")


def same(words: Tokenizer, file: Path, texts: list[str]) -> None:
    told, _ = run(Job(str(file), strings=tuple(texts)))
    for text, tokens in zip(texts, told.tokens, strict=True):
        assert list(tokens) == words.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("kind", ["gpt-2", "llama-bpe", "qwen2", "refact"])
def test_bytes_are_cut_alike(tmp_path: Path, kind: str) -> None:
    words = byte_level(kind)
    same(words, file_of(words, tmp_path), TEXTS)


@pytest.mark.parametrize("prepend", [False, True])
def test_pieces_are_cut_alike(tmp_path: Path, *, prepend: bool) -> None:
    words = pieces(prepend=prepend)
    same(words, file_of(words, tmp_path), [*TEXTS, "\n\n\n\n<tool> a<tool>b", "thethethe  mill"])


@given(st.lists(st.text(max_size=40), min_size=40, max_size=40))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_cut_alike(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    for words in (byte_level("gpt-2"), pieces(prepend=False)):
        same(words, file_of(words, tmp_path_factory.mktemp("words")), texts)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("pre_tokenizer", {"type": "Whitespace"}, "does not know"),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}, "does not know"),
        ("model", {"type": "Unigram", "vocab": []}, "no BPE"),
        ("model", {"type": "BPE", "vocab": {}}, "merges"),
        ("added_tokens", [{"id": 100_000, "content": "<far>", "special": False}], "the token 100000"),
        ("normalizer", {"type": "Lowercase"}, "changes texts before it cuts them"),
    ],
)
def test_what_the_engine_would_cut_otherwise_is_refused(tmp_path: Path, part: str, change: Any, said: str) -> None:
    folder = write_folder(tmp_path / "model", byte_level("gpt-2"))
    held = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(held | {part: change}))
    with pytest.raises(DistillError, match=said):
        to_gguf(folder, tmp_path / "model.gguf", "F32")


@pytest.mark.parametrize(
    ("config", "adds", "begins"),
    [
        ({}, None, True),
        ({"add_bos_token": False}, "<s>", False),
        ({"add_bos_token": True}, None, True),
        ({}, "<s>", True),
        ({}, "", False),
    ],
)
def test_texts_begin_as_the_tokenizer_begins_them(
    tmp_path: Path, config: dict[str, bool], adds: str | None, *, begins: bool
) -> None:
    words = byte_level("gpt-2")
    if adds is not None:
        words.post_processor = processors.Sequence(
            [processors.ByteLevel(), processors.TemplateProcessing(f"{adds} $A".strip(), None, [("<s>", 1)])]
        )
    folder = write_folder(tmp_path / "model", words)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    fields = gguf.GGUFReader(to_gguf(folder, tmp_path / "model.gguf", "F32")).fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is begins


def test_special_tokens_without_a_row_are_left_out(tmp_path: Path) -> None:
    words = byte_level("gpt-2")
    folder = write_folder(tmp_path / "model", words)
    held = json.loads((folder / "tokenizer.json").read_text())
    held["added_tokens"].append({"id": 500, "content": "<picture>", "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(held))
    same(words, to_gguf(folder, tmp_path / "model.gguf", "F32"), TEXTS)
