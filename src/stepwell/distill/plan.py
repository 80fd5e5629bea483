"""`[student]` and `[train]` of a recipe: what is trained, and how. Free of torch, so that a recipe is read anywhere."""

from __future__ import annotations

from typing import Literal

from stepwell.errors import ConfigError
from stepwell.toml import Section

DIVERGENCES = ("fkl", "rkl", "jsd", "skew")
"""Losses that need all probabilities of a teacher at hand."""
SPARSE = ("topk+rest", "sampled")
"""Losses on a teacher's stored probabilities."""
WITH_NUMBER = {"jsd": 0.5, "skew": 0.1}
"""Losses with a number after a colon, and the number where none is said."""


class StudentSection(Section, frozen=True):
    """`[student]`: a Hugging Face folder to begin with, or the sizes of a new Llama."""

    folder: str = ""
    tokenizer: str = ""
    """Folder whose tokenizer and chat template a new student takes; empty: the teacher's."""
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 1
    inner: int = 160
    context: int = 512
    tied: bool = True
    lora: int = 0
    """Rank of the adapters that are trained in place of the weights; 0: the weights themselves."""
    lora_scale: float = 2.0
    """The adapters' part is multiplied by this (peft: lora_alpha / r)."""


class Plan(Section, frozen=True):
    """`[train]`: how a student learns. Settings are chosen on a dev set, never on a test set."""

    data: str = ""
    """Rows to learn from: .jsonl, .parquet, or a folder of shards."""
    dev: str = ""
    """Rows to measure on."""
    steps: int = 1_000
    batch_tokens: int = 4_096
    """Tokens of a batch as laid out, prompts and padding among them; over all processes together."""
    together: int = 4
    """At most so many texts of the same prompt lie behind one copy of it."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: matrices move by orthogonal steps; fewer steps to the same loss for models trained from nothing."""
    rate: float = 2e-3
    warm_steps: int = 100
    fall_share: float = 0.5
    """The last share of the steps, in which the rate falls along a half cosine to a fiftieth."""
    decay: float = 0.05
    clip: float = 1.0
    dropout: float = 0.0
    smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    average: float = 0.999
    """How much of the running average of the weights a step keeps; 0: no average."""
    loss: str = "ce"
    """ce | seq | fkl | rkl | jsd:BETA | skew:ALPHA | topk+rest | sampled."""
    alpha: float = 0.9
    """Share of the divergence beside the cross-entropy."""
    temperature: float = 1.0
    on_policy: float = 0.0
    """Share of the batches whose texts the student writes itself, for the teacher to judge."""
    sample_temperature: float = 1.0
    max_tokens: int = 96
    """Longest text that is written while training."""
    fallback: Literal["", "text"] = ""
    """What to do where teacher and student have different tokenizers: fail, or learn from the teacher's texts."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them (gradient checkpointing)."""
    seed: int = 0
    save_every: int = 200
    measure_every: int = 0
    """Steps between measurements on the dev set; 0: as often as saving."""
    patience: int = 0
    """Stop after so many measurements without a better one; 0: never."""
    metric: str = "-loss"
    """Which of the dev measurements decides; a minus before it where less is better."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        parsed(self.loss)
        for name in ("steps", "batch_tokens", "together", "save_every", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError("must be at least 1", field=f"train.{name}")
        for name in ("alpha", "on_policy", "fall_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError("must lie between 0 and 1", field=f"train.{name}")
        for name in ("dropout", "average", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError("must be at least 0 and below 1", field=f"train.{name}")
        if min(self.rate, self.temperature, self.sample_temperature, self.clip) <= 0:
            raise ConfigError("rate, temperature, sample_temperature and clip must be above 0", field="train")


def parsed(loss: str) -> tuple[str, float]:
    """The name and number of a loss: `jsd:0.5` -> ("jsd", 0.5). Raises ConfigError."""
    name, _, number = loss.partition(":")
    known = ("ce", "seq", *DIVERGENCES, *SPARSE)
    if name not in known or (number and name not in WITH_NUMBER):
        raise ConfigError(f"unknown loss {loss!r}; known: {', '.join(known)}", field="train.loss")
    try:
        value = float(number) if number else WITH_NUMBER.get(name, 0.0)
    except ValueError:
        value = -1.0
    if name in WITH_NUMBER and not 0 < value < 1:
        raise ConfigError(f"{loss!r}: the number must lie between 0 and 1", field="train.loss")
    return name, value
