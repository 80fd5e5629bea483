"""A model of 25 M shape with random weights in every engine's form: `python -m bench.quantize.engines_build FOLDER`.

Weights do not matter for speed; the shape does: 512 wide, 8 layers, 8 heads on 4 keys, 8,192 words, 32 M numbers.
"""

from __future__ import annotations

import random
import string
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stepwell.quantize.export import to_gguf

WORDS, FORMATS = 8192, ("Q8_0", "Q4_0")


def build(folder: Path) -> None:
    """Write `hf`, `ct2`, `ort` and a GGUF file of each format into a folder; a peer that fails is left out."""
    torch.manual_seed(0)
    hf = folder / "hf"
    tokenizer().save_pretrained(hf)
    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=WORDS,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(hf)
    for kind in FORMATS:
        to_gguf(hf, folder / f"{kind}.gguf", kind)
    with suppress(Exception):
        from ctranslate2.converters import TransformersConverter  # noqa: PLC0415 - a peer that may be missing

        TransformersConverter(str(hf)).convert(str(folder / "ct2"), quantization="int8")
    command = ["-m", "onnxruntime_genai.models.builder", "-m", hf, "-o", folder / "ort", "-p", "int4", "-e", "cpu"]
    made = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    if made.returncode:
        print(made.stderr[-500:], file=sys.stderr)


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE learned from made-up words."""
    chance = random.Random(0)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(3, 9))) for _ in range(20_000)]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=WORDS, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet)
    learned.train_from_iterator((" ".join(words[at : at + 50]) for at in range(0, len(words), 50)), trainer)
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=learned, **ends)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
