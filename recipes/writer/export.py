"""Write a checkpoint as it ships: `python -m recipes.writer.export RUN models/house-writer`.

A Hugging Face folder with bfloat16 weights, and one GGUF file in Q8_0 for the embedded engine.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from recipes.writer import tokenizer
from recipes.writer.model import Shape, Writer
from stepwell.quantize.export import to_gguf

NAME = "house-writer"
CHAT_TEMPLATE = (
    "{%- set last = namespace(text='') -%}"
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
    "{%- if message['content'] is string -%}{%- set last.text = message['content'] -%}"
    "{%- else -%}{%- set last.text = message['content'][0]['text'] -%}{%- endif -%}"
    "{%- endif -%}{%- endfor -%}"
    "{{ bos_token }}{{ last.text }}<sep>"
)


def loaded(run: Path) -> tuple[Writer, tokenizer.Tokenizer]:
    """The best checkpoint of a run and its tokenizer."""
    held = torch.load(run / "best.pt", weights_only=True)
    model = Writer(Shape(**held["shape"]))
    model.load_state_dict(held["model"])
    return model.eval(), tokenizer.load(run)


def from_folder(folder: Path) -> tuple[Writer, tokenizer.Tokenizer]:
    """The model that a Hugging Face folder holds."""
    config = json.loads((folder / "config.json").read_text())
    shape = Shape(
        vocabulary=config["vocab_size"],
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        context=config["max_position_embeddings"],
    )
    weights = load_file(folder / "model.safetensors")
    model = Writer(shape)
    model.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in weights.items()})
    return model.eval(), tokenizer.load(folder)


def write_folder(model: Writer, run: Path, out: Path) -> None:
    """The Hugging Face folder: what `AutoModelForCausalLM` and `AutoTokenizer` read."""
    out.mkdir(parents=True, exist_ok=True)
    shape = model.shape
    weights = {f"model.{name}": weight.to(torch.bfloat16).contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(run / "tokenizer.json", out / "tokenizer.json")
    write_json(out / "config.json", config_of(shape))
    ends: dict[str, Any] = {"bos_token_id": tokenizer.BOS, "eos_token_id": tokenizer.EOS, "pad_token_id": tokenizer.PAD}
    write_json(out / "generation_config.json", {**ends, "do_sample": False, "max_length": shape.context})
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "additional_special_tokens": ["<sep>"]}
    write_json(out / "special_tokens_map.json", named)
    write_json(
        out / "tokenizer_config.json",
        {
            **named,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": shape.context,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def config_of(shape: Shape) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.hidden // shape.heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": tokenizer.BOS,
        "eos_token_id": tokenizer.EOS,
        "pad_token_id": tokenizer.PAD,
        "torch_dtype": "bfloat16",
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON for people and programs."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    model, _ = loaded(given.run)
    write_folder(model, given.run, given.out)
    to_gguf(given.out, given.out / f"{NAME}.Q8_0.gguf", name=NAME)
    print(f"{sum(file.stat().st_size for file in given.out.iterdir()) / 1e6:.1f} MB in {given.out}")


if __name__ == "__main__":
    main()
