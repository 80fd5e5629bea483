"""A model that learns or teaches: a Hugging Face folder, run by the plain Llama here or by transformers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from stepwell.distill import llama, lora
from stepwell.distill.chat import Words, read_json, words_of
from stepwell.distill.plan import StudentSection as StudentSection  # noqa: PLC0414 - the section of this file
from stepwell.errors import DistillError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)

ADAPTER = "adapter"
"""Folder of the adapters alone, beside the weights that have them merged."""


@dataclass
class Model:
    """Weights and words. `module` is a Llama, or a Foreign around a model of transformers."""

    module: nn.Module
    words: Words
    folder: Path
    """Where tokenizer and configuration came from."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self.words.tokenizer

    @property
    def tokenizer_hash(self) -> str:
        """sha256 of tokenizer.json, hex."""
        return self.words.tokenizer_hash

    @property
    def packs(self) -> bool:
        """Whether several texts may lie behind one copy of their prompt."""
        return isinstance(self.module, llama.Llama)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def context(self) -> int:
        """Tokens that fit; 0 where nothing says so."""
        return self.module.shape.context if self.packs else int(self.module.context)

    def prompt_ids(self, text: str) -> list[int]:
        """The chat template around the text, as token ids."""
        return self.words.prompt_ids(text)

    def text_ids(self, text: str) -> list[int]:
        """The text and its end, as token ids."""
        return self.words.text_ids(text)

    def hidden(self, ids: Tensor, places: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Token ids (batch, tokens) to hidden states; places and mask as in Llama.forward."""
        return self.module(ids, places, mask)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states to logits."""
        return self.module.logits(hidden)


def load(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """Read a Hugging Face folder. Raises DistillError."""
    config = read_json(folder / "config.json")
    if not config:
        raise DistillError("is no model: there is no config.json in it", file=str(folder))
    words = words_of(folder)
    module = read_llama(folder, config) if llama.runs(config) else read_foreign(folder)
    return Model(module.to(device=device, dtype=dtype).eval(), words, folder)


def native(device: torch.device) -> torch.dtype:
    """The shortest numbers that a machine multiplies natively: bfloat16 where it can."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32  # noqa: SLF001 - no public name


def read_llama(folder: Path, config: Mapping[str, Any]) -> llama.Llama:
    """The plain Llama with the folder's weights, one file or several. Raises DistillError."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DistillError("holds no weights: there is no *.safetensors in it", file=str(folder))
    try:
        weights = {name: weight for file in files for name, weight in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise DistillError(f"the weights cannot be read: {error}", file=str(folder)) from error
    module = llama.Llama(llama.shape_of(config))
    named = {name.removeprefix("model."): weight.float() for name, weight in weights.items() if "rotary" not in name}
    if module.shape.tied:
        named.pop("lm_head.weight", None)
    try:
        module.load_state_dict(named)
    except RuntimeError as error:
        raise DistillError(f"the weights do not fit config.json: {error}", file=str(folder)) from error
    return module


def read_foreign(folder: Path) -> nn.Module:
    """Any other architecture, by transformers. Raises DistillError."""
    try:
        from stepwell.distill.foreign import Foreign  # noqa: PLC0415 - transformers, 4 s of CPU, only where needed
    except ImportError as error:
        what = "this architecture needs transformers: pip install 'stepwell[train,transformers]'"
        raise DistillError(what, file=str(folder)) from error
    return Foreign.read(folder)


def create(section: StudentSection, tokenizer_folder: Path, seed: int = 0) -> Model:
    """A student to train: the folder it begins with, or a new Llama with small random weights. Raises DistillError."""
    torch.manual_seed(seed)
    if section.folder:
        model = load(Path(section.folder))
    else:
        words = words_of(tokenizer_folder)
        if section.hidden % section.heads or section.heads % (section.kv_heads or 1):
            raise DistillError("hidden must be a multiple of heads, and heads of kv_heads: change [student]")
        shape = llama.Shape(
            vocabulary=words.tokenizer.get_vocab_size(),
            hidden=section.hidden,
            inner=section.inner,
            layers=section.layers,
            heads=section.heads,
            context=section.context,
            kv_heads=section.kv_heads,
            tied=section.tied,
        )
        model = Model(llama.Llama(shape), words, tokenizer_folder)
    if section.lora:
        lora.adapt(model.module, section.lora, section.lora_scale)
    return model


def save(model: Model, folder: Path, provenance: Mapping[str, Any], *, dtype: torch.dtype = torch.float32) -> Path:
    """Write a Hugging Face folder and its provenance.json; whole or not at all."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (model.folder / name).exists():
            shutil.copyfile(model.folder / name, new / name)
    if isinstance(model.module, llama.Llama):
        write_llama(model, new, dtype)
    else:
        model.module.write(new, dtype)
        lora.write_adapter(model.module.model, new / ADAPTER, "", str(model.folder))
    write_json(new / "provenance.json", {**provenance, "tokenizer_sha256": model.tokenizer_hash})
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)
    return folder


def write_llama(model: Model, folder: Path, dtype: torch.dtype) -> None:
    """config.json and model.safetensors of a plain Llama."""
    words = model.words
    said = {
        name: words.tokenizer.token_to_id(words.specials.get(f"{name}_token", "")) for name in ("bos", "eos", "pad")
    }
    ids = {f"{name}_token_id": id_ for name, id_ in said.items() if id_ is not None}
    config = {**llama.config_of(model.module.shape), "eos_token_id": words.end, **ids}
    write_json(folder / "config.json", {**config, "torch_dtype": str(dtype).removeprefix("torch.")})
    weights = {
        name if name.startswith("lm_head") else f"model.{name}": weight.detach().to("cpu", dtype).contiguous()
        for name, weight in lora.plain_state(model.module).items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    lora.write_adapter(model.module, folder / ADAPTER, "model.", str(model.folder))


def fingerprint(folder: Path) -> str:
    """sha256 of a folder's weights, hex: the revision of a teacher."""
    total = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            total.update(hashlib.file_digest(opened, "sha256").digest())
    return total.hexdigest()


def same_words(a: Model, b: Model) -> bool:
    """Whether two models have the same tokens with the same ids."""
    return a.tokenizer_hash == b.tokenizer_hash or a.tokenizer.get_vocab() == b.tokenizer.get_vocab()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON for people and programs."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
