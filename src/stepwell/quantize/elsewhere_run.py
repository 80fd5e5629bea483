"""What `elsewhere.py` runs in another environment: `PYTHON -I elsewhere_run.py JOB.json`, with no Stepwell in it.

It writes what the library makes to the job's `out`, and `told.json` beside the job: what it took, by which versions.
"""

# ruff: noqa: ANN401, PLC0415 - each library is only in its own environment
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROWS = 32
TUNED = 8
"""Texts side by side: in llm-compressor, and in a step of AutoRound's."""
FLOATS = ("FP8", "NVFP4", "MXFP4", "MXFP8")
"""Schemes of floating-point codes, whose steps come from the ends; GPTQ is for whole numbers."""
VERSIONS = {
    "llm-compressor": ("llmcompressor", "compressed-tensors", "transformers", "torch"),
    "autoround": ("auto-round", "transformers", "torch"),
}
Ids = list[list[int]]


def main(file: Path) -> None:
    """Do the job."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    begun_s = time.process_time()
    job = json.loads(file.read_text(encoding="utf-8"))
    quantize, save = {"llm-compressor": llm_compressor, "autoround": autoround}[job["tool"]](job)
    ready_s = time.process_time()
    quantize()
    done_s = time.process_time()
    save()
    told = {
        "loaded_s": ready_s - begun_s,
        "quantized_s": done_s - ready_s,
        "saved_s": time.process_time() - done_s,
        "device": job["device"],
        "versions": {name: version(name) for name in VERSIONS[job["tool"]]},
    }
    file.with_name("told.json").write_text(json.dumps(told), encoding="utf-8")


def end_with(parent: int) -> None:
    """End when the process is gone that asked."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def loaded(job: dict[str, Any]) -> Any:
    """The model where it is to be computed; on a processor in 32 bits."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(job["threads"])
    if job["device"] == "auto":
        job["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    if job["device"] == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU in this environment")
    kind = torch.float32 if job["device"] == "cpu" else "auto"
    return AutoModelForCausalLM.from_pretrained(job["model"], dtype=kind).to(job["device"])


def llm_compressor(job: dict[str, Any]) -> tuple[Any, Any]:
    """GPTQ for whole numbers, the ends of what is seen for floating-point codes; never the head."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier

    model, texts = loaded(job), job["texts"]
    kind = QuantizationModifier if job["scheme"].startswith(FLOATS) else GPTQModifier
    recipe = [kind(targets="Linear", scheme=job["scheme"], ignore=["lm_head"])]
    dataset = batches(texts, job["device"])

    def quantize() -> None:
        oneshot(model=model, dataset=dataset, recipe=recipe, num_calibration_samples=len(texts))

    def save() -> None:
        model.save_pretrained(job["out"], save_compressed=True)

    return quantize, save


def batches(texts: Ids, device: str) -> Any:
    """Texts of equal length side by side: nothing is padded, nothing cut."""
    import torch

    groups = defaultdict(list)
    for text in texts:
        groups[len(text)].append(text)
    parts = [group[at : at + ROWS] for _, group in sorted(groups.items()) for at in range(0, len(group), ROWS)]
    ids = [torch.tensor(part, device=device) for part in parts]
    rows = [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids]
    return torch.utils.data.DataLoader(rows, batch_size=None)


def autoround(job: dict[str, Any]) -> tuple[Any, Any]:
    """Rounding that is learned, block by block."""
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    model, tokenizer, texts = loaded(job), AutoTokenizer.from_pretrained(job["model"]), job["texts"]
    if job["split"]:
        know(job["split"], job["model"])
    rows = padded(texts, tokenizer.pad_token_id or 0)
    asked = AutoRound(
        model,
        tokenizer,
        scheme=job["scheme"],
        dataset=rows,
        seqlen=max(map(len, texts)),
        nsamples=len(texts),
        iters=job["iters"],
        batch_size=TUNED,
        device_map=job["device"],
        enable_torch_compile=False,
        seed=job["seed"],
    )
    return lambda: asked.quantize_and_save(job["out"], format=job["format"]), lambda: None


def know(split: str, model: str) -> None:
    """Tell its GGUF writer how the tokenizer cuts texts: of itself it knows those of well-known models only."""
    from auto_round.export.export_to_gguf.llama_cpp_conversion import get_conversion

    get_conversion(model)  # which makes a module of its own importable
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda *_: split


def padded(texts: Ids, pad: int) -> list[dict[str, Any]]:
    """Texts side by side, filled up behind: AutoRound takes one length only, and learns nothing from padding."""
    import torch

    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[pad] * (longest - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    return [
        {"input_ids": ids[at : at + TUNED], "attention_mask": mask[at : at + TUNED]}
        for at in range(0, len(texts), TUNED)
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
