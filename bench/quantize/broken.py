"""Five ways to break a model file, of which four still load: does verification see each, and let the good one pass.

The house writer's file is written on a grid, then really written again with one thing wrong. Each file is verified
twice: against the codes it was made from, and against the folder alone. It counts as caught where both refuse it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from recipes.writer import data
from tokenizers import Tokenizer, pre_tokenizers, trainers

from stepwell.distill import student
from stepwell.quantize import export, recipe
from stepwell.quantize.apply import applied
from stepwell.quantize.architectures import config_of, order
from stepwell.quantize.verify import verified

ROOT = Path(__file__).parents[2]
WRITER = ROOT / "models" / "house-writer"
FORMAT = "Q8_0"
CUT_BYTES = 4096
Tensors = dict[str, NDArray[np.uint8]]
Break = Callable[[Tensors], Tensors]


def measure(*, quick: bool) -> dict[str, float]:
    """How many of five are caught; none where the good file is refused: then refusing says nothing."""
    torch.set_num_threads(1)
    parent = student.load(WRITER)
    rows = list(data.read("dev").items())[: 16 if quick else 64]
    texts = [(parent.prompt_ids(mr), parent.text_ids(said[0])) for mr, said in rows]
    coded = applied(parent, recipe.uniform(FORMAT, "round"), [])
    with TemporaryDirectory() as name:
        folder = Path(name)
        good = export.to_gguf(WRITER, folder / "good.gguf", coded=coded)
        same = written(good, folder / "same.gguf")  # the tool that breaks files breaks nothing by itself
        caught = {}
        for file in (good, same, *broken(good, folder)):
            by_codes = verified(file, WRITER, parent, texts, coded=coded)
            by_folder = verified(file, WRITER, parent, texts)
            caught[file.stem] = not by_codes.passed and not by_folder.passed
            why = (by_codes.complaints[:1] or ("passes",))[0], (by_folder.complaints[:1] or ("passes",))[0]
            print(f"  {file.stem:<18} by its codes: {why[0]}; by the folder: {why[1]}")
    passes = not caught.pop("good") and not caught.pop("same")
    return {"broken_caught": sum(caught.values()) if passes else 0}


def broken(good: Path, folder: Path) -> list[Path]:
    """The five files."""
    cut = folder / "truncated.gguf"
    cut.write_bytes(good.read_bytes()[:-CUT_BYTES])
    return [
        written(good, folder / "rope rows.gguf", unturned),
        written(good, folder / "wrong scale.gguf", scaled),
        written(good, folder / "swapped layers.gguf", swapped_layers),
        cut,
        written(good, folder / "wrong tokenizer.gguf", words=other_words(folder)),
    ]


def written(good: Path, out: Path, change: Break = lambda tensors: tensors, words: Path | None = None) -> Path:
    """The same file again, with tensors changed, or with the tokenizer of another."""
    reader = gguf.GGUFReader(good)
    spoken = gguf.GGUFReader(words or good)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    told = [each for each in reader.fields.values() if each.name.startswith(("general.", "llama."))]
    told += [each for each in spoken.fields.values() if each.name.startswith("tokenizer.")]
    for field in told:
        kind = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        if field.name != "general.architecture":
            writer.add_key_value(field.name, field.contents(), field.types[0], kind)
    kinds = {each.name: each.tensor_type for each in reader.tensors}
    for name, each in change({each.name: np.array(each.data) for each in reader.tensors}).items():
        writer.add_tensor(name, each, raw_dtype=kinds[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def other_words(folder: Path) -> Path:
    """The writer with a tokenizer of the same size and kind, learned from other texts: this project's own."""
    other = folder / "other"
    shutil.copytree(WRITER, other)
    known = Tokenizer.from_file(str(WRITER / "tokenizer.json"))
    special = [each.content for _, each in sorted(known.get_added_tokens_decoder().items())]
    trainer = trainers.BpeTrainer(
        vocab_size=known.get_vocab_size(),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    known.train([str(each) for each in sorted((ROOT / "docs").glob("*.md"))], trainer)
    known.save(str(other / "tokenizer.json"))
    return export.to_gguf(other, folder / "words.gguf", FORMAT)


def unturned(tensors: Tensors) -> Tensors:
    """Rows of queries and keys as Hugging Face has them."""
    config = config_of(WRITER)
    made = dict(tensors)
    for name, each in tensors.items():
        rows = order(name.replace("attn_q", "q_proj").replace("attn_k", "k_proj"), config)
        if rows is not None:
            made[name] = np.empty_like(each)
            made[name][rows] = each
    return made


def scaled(tensors: Tensors) -> Tensors:
    """One matrix with every scale doubled."""
    made = np.array(tensors["blk.1.ffn_down.weight"])
    blocks = made.reshape(-1, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[FORMAT]][1])
    blocks[:, :2] = (blocks[:, :2].copy().view(np.float16) * 2).view(np.uint8)
    return tensors | {"blk.1.ffn_down.weight": made}


def swapped_layers(tensors: Tensors) -> Tensors:
    """The first two layers in each other's place."""
    return {name: tensors[places(name)] for name in tensors}


def places(name: str) -> str:
    """`blk.0.` for `blk.1.`, and the other way round."""
    swap: Mapping[str, str] = {"blk.0.": "blk.1.", "blk.1.": "blk.0."}
    return next((to + name.removeprefix(begin) for begin, to in swap.items() if name.startswith(begin)), name)
