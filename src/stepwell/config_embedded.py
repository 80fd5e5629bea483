"""The section of `stepwell.toml` for a model in this process, and what does not fit together in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from stepwell.toml import Section

Count = Annotated[int, Meta(ge=1)]
Number = Annotated[int, Meta(ge=0)]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
Which = Literal["llamacpp", "openvino", "auto"]
OPENVINO_CACHE = {"f16": "f16", "bf16": "bf16", "q8_0": "u8", "q4_0": "u4"}
"""What OpenVINO calls the numbers that it can keep keys and values in."""


class EmbeddedEngine(Section, frozen=True, tag_field="type", tag="embedded"):
    """`[engines.NAME] type = "embedded"`: a small model in this process, from a GGUF file."""

    path: str
    verified: bool = False
    """Whether the file must have its manifest, `FILE.manifest.json`, and be the one that this says was verified."""
    engine: Which = "llamacpp"
    """auto: whichever `stepwell engines test` found the better one here, for few requests and for many."""
    threads: Count = 2
    """Of one token's arithmetic."""
    batch_threads: Number = 0
    """Of prompts and of many requests side by side; 0: as `threads`."""
    slots: Count = 16
    """Requests generated side by side."""
    context_tokens: Count = 512
    """Context of each slot."""
    batch_tokens: Count = 512
    """Tokens of prompts that are read in one go; more needs more memory."""
    cache_type_k: CacheType = "f16"
    """How exactly keys are kept."""
    cache_type_v: CacheType = "f16"
    """How exactly values are kept; below 16 bits llama.cpp needs flash attention."""
    flash_attention: Literal["auto", "on", "off"] = "auto"
    max_waiting: Count = 4096
    figures: str = "stepwell-data/engines.json"
    """Where `stepwell engines test` keeps what it measured, for auto."""


def complaints(engine: EmbeddedEngine) -> Iterator[tuple[str, str]]:
    """What does not fit together. Yields (key, what is wrong and what to do)."""
    if engine.batch_tokens < engine.slots:
        yield "batch_tokens", f"every slot needs a token of each batch: say at least {engine.slots}, or fewer slots"
    if engine.flash_attention == "off" and engine.cache_type_v.startswith("q"):
        what = f"values in {engine.cache_type_v} need flash attention: leave it at auto, or say cache_type_v = 'f16'"
        yield "flash_attention", what
    if engine.engine == "llamacpp":
        return
    for key in ("cache_type_k", "cache_type_v"):
        if getattr(engine, key) not in OPENVINO_CACHE:
            others = ", ".join(OPENVINO_CACHE)
            yield key, f"OpenVINO has no {getattr(engine, key)}: say one of {others}, or engine = 'llamacpp'"
