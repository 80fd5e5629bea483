"""A Hugging Face tokenizer in the form that llama.cpp reads: tokens, merges or scores, special ids, the chat template.

Two kinds are exported, which is what the exported architectures have: byte-level BPE (GPT-2's and its heirs), and
SentencePiece's BPE with bytes to fall back on (Gemma's, Llama 2's).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from stepwell.errors import DistillError
from stepwell.quantize.weights import told

SPACE = "▁"
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST: "llama-bpe",
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST: "qwen2",
}
"""Patterns that cut a text before BPE, and llama.cpp's names of them."""


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any]) -> None:
    """Everything about tokens. Raises DistillError for a tokenizer that llama.cpp would read otherwise."""
    held = told(folder / "tokenizer.json")
    model = held.get("model") or {}
    try:
        if model["type"] != "BPE":
            raise DistillError(f"is {model['type']}, no BPE; only BPE is exported", file=str(folder / "tokenizer.json"))
        names = {at: token for token, at in model["vocab"].items()}
        added = {each["id"]: each for each in held.get("added_tokens", ()) if placed(each, config["vocab_size"])}
        names |= {at: each["content"] for at, each in added.items()}
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        (add_pieces if model.get("byte_fallback") else add_bytes)(writer, held, names, merges)
    except (KeyError, TypeError, AttributeError) as error:
        raise DistillError(f"lacks or misstates {error}", file=str(folder / "tokenizer.json")) from error
    if max(names, default=-1) >= config["vocab_size"]:
        what = f"has the token {max(names)}, and the embedding only {config['vocab_size']} rows"
        raise DistillError(what, file=str(folder / "tokenizer.json"))
    rows = range(config["vocab_size"])  # little data makes few merges: the rest of the rows stand for nothing
    writer.add_token_list([names.get(at, f"<unused{at}>") for at in rows])
    writer.add_token_types([type_of(at, names, added, model) for at in rows])
    add_ends(writer, folder, config, held)


def placed(added: Mapping[str, Any], rows: int) -> bool:
    """Whether an added token has its row; special ones without, as Gemma's for pictures, are never read as text."""
    return added["id"] < rows or not added.get("special")


def add_bytes(writer: gguf.GGUFWriter, held: Mapping[str, Any], _names: Mapping[int, str], merges: list[str]) -> None:
    """Byte-level BPE: bytes as letters, cut by a pattern that llama.cpp knows by name."""
    normal = (held.get("normalizer") or {}).get("type", "NFC")
    if normal != "NFC":  # llama.cpp leaves texts as they are: the same, for texts in NFC, as nearly all are
        raise DistillError(f"tokenizer.json changes texts before it cuts them ({normal}), which llama.cpp does not")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_of(held.get("pre_tokenizer") or {}))
    writer.add_token_merges(merges)


def split_of(cut: Mapping[str, Any]) -> str:
    """llama.cpp's name of the way a text is cut before BPE. Raises DistillError for one that it has not."""
    steps = parts(cut)
    patterns = [each["pattern"]["Regex"] for each in steps if "Regex" in each.get("pattern", {})]
    kinds = [each.get("type") for each in steps]
    spaced = any(each.get("add_prefix_space") for each in steps)
    match kinds:
        case ["ByteLevel"] if steps[0].get("use_regex", True) and not spaced:
            return "gpt-2"
        case ["Digits", "ByteLevel"] if steps[0].get("individual_digits") and not spaced:
            return "refact"
        case ["Split", "ByteLevel"] if patterns and patterns[0] in SPLITS and not spaced:
            return SPLITS[patterns[0]]
    raise DistillError(f"tokenizer.json cuts texts in a way that llama.cpp does not know: {kinds} {patterns}")


def add_pieces(writer: gguf.GGUFWriter, held: Mapping[str, Any], names: Mapping[int, str], merges: list[str]) -> None:
    """SentencePiece's BPE: llama.cpp merges by the score of what comes out, so a piece's score is its merge's rank."""
    normal = str(held.get("normalizer"))
    if SPACE not in normal:
        raise DistillError(f"tokenizer.json has byte_fallback, but does not write spaces as {SPACE}")
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    last = len(merges)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_add_space_prefix("Prepend" in normal)
    writer.add_token_scores([-float(ranks.get(names.get(at, ""), last)) for at in range(max(names) + 1)])


def type_of(
    at: int, names: Mapping[int, str], added: Mapping[int, Mapping[str, Any]], model: Mapping[str, Any]
) -> gguf.TokenType:
    """What a token is to llama.cpp."""
    if at not in names:
        return gguf.TokenType.UNUSED
    if model.get("byte_fallback") and BYTE.fullmatch(names[at]):
        return gguf.TokenType.BYTE
    if model.get("byte_fallback") and names[at] == model.get("unk_token"):
        return gguf.TokenType.UNKNOWN
    if at in added:
        return gguf.TokenType.CONTROL if added[at].get("special") else gguf.TokenType.USER_DEFINED
    return gguf.TokenType.NORMAL


def begins(folder: Path, config: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    """Whether a text begins with its own token: as tokenizer_config.json says, else as tokenizer.json does it."""
    own = folder / "tokenizer_config.json"
    said = told(own).get("add_bos_token") if own.is_file() else None
    if isinstance(said, bool):
        return said
    adds = [each for each in parts(held.get("post_processor")) if each.get("type") == "TemplateProcessing"]
    first = [each["single"][0] for each in adds if each.get("single")]
    return any("SpecialToken" in each for each in first) if adds else config.get("bos_token_id") is not None


def parts(held: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """A step of a tokenizer, or the steps of a sequence."""
    return list((held or {}).get("processors") or (held or {}).get("pretokenizers") or [held or {}])


def add_ends(writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    """The tokens that begin, end and pad a text, and the chat template."""
    ends = config.get("eos_token_id")
    end = ends[0] if isinstance(ends, list) else ends
    for value, add in (
        (config.get("bos_token_id"), writer.add_bos_token_id),
        (end, writer.add_eos_token_id),
        (config.get("pad_token_id"), writer.add_pad_token_id),
    ):
        if value is not None:
            add(value)
    writer.add_add_bos_token(begins(folder, config, held))
    writer.add_add_eos_token(False)  # noqa: FBT003 - the package's own signature
    template = template_of(folder)
    if template:
        writer.add_chat_template(template)


def template_of(folder: Path) -> str:
    """The chat template, in its own file or in tokenizer_config.json; empty where there is none."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    template = told(config).get("chat_template", "") if config.is_file() else ""
    return template if isinstance(template, str) else ""
