"""One engine under test, in a process of its own: `python -m bench.quantize.engines_arm NAME FOLDER`.

It loads, then does a round for every line it is told, and answers with processor and clock seconds of each regime.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT, FEW, MANY, AT_ONCE, NEW = 32, 4, 68, 32, 32
"""Tokens of a prompt; one request alone is long less short; so many at once; new tokens of each of them."""
LOW, HIGH = 300, 8000
Generate = Callable[[list[list[int]], int], Any]


class Arm:
    """An engine: how it generates, and what it has spent."""

    def __init__(self, generate: Generate, spent_s: Callable[[], float] = time.process_time) -> None:
        self.generate, self.spent_s = generate, spent_s
        self.chance = random.Random(0)

    def timed(self, num: int, new: int) -> tuple[float, float]:
        """Processor and clock seconds of `num` requests."""
        prompts = [[self.chance.randrange(LOW, HIGH) for _ in range(PROMPT)] for _ in range(num)]
        cpu_s, clock_s = self.spent_s(), time.perf_counter()
        self.generate(prompts, new)
        return self.spent_s() - cpu_s, time.perf_counter() - clock_s

    def round(self) -> dict[str, tuple[float, float]]:
        """Tokens a second, of the processor and of the clock: alone, and many at once."""
        short, long = self.timed(1, FEW), self.timed(1, MANY)
        both = self.timed(AT_ONCE, NEW)
        alone = [(MANY - FEW) / max(1e-9, more - less) for more, less in zip(long, short, strict=True)]
        return {"decode": (alone[0], alone[1]), "batch": (AT_ONCE * NEW / both[0], AT_ONCE * NEW / both[1])}


def transformers(folder: Path, kind: str) -> Arm:
    """Hugging Face's generate, in 32 or 16 bits."""
    import torch  # noqa: PLC0415 - each arm has its own engine alone
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=getattr(torch, kind)).eval()

    def generate(prompts: list[list[int]], new: int) -> None:
        ids = torch.tensor(prompts)
        more = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        model.generate(ids, attention_mask=torch.ones_like(ids), **more)

    return Arm(generate)


def ctranslate2(folder: Path, kind: str) -> Arm:
    """CTranslate2."""
    import ctranslate2 as ct2  # noqa: PLC0415

    generator = ct2.Generator(str(folder / "ct2"), compute_type=kind, inter_threads=1, intra_threads=1)
    words = json.loads((folder / "ct2" / "vocabulary.json").read_text())

    def generate(prompts: list[list[int]], new: int) -> None:
        tokens = [[words[at] for at in prompt] for prompt in prompts]
        more = {"max_length": new, "min_length": new, "beam_size": 1, "end_token": [], "max_batch_size": 0}
        generator.generate_batch(tokens, include_prompt_in_result=False, **more)

    return Arm(generate)


def onnxruntime(folder: Path, _: str) -> Arm:
    """onnxruntime-genai, weights in 4 bits."""
    import numpy as np  # noqa: PLC0415
    import onnxruntime_genai as genai  # noqa: PLC0415

    model = genai.Model(str(folder / "ort"))

    def generate(prompts: list[list[int]], new: int) -> None:
        params = genai.GeneratorParams(model)
        length = PROMPT + new
        params.set_search_options(max_length=length, min_length=length, batch_size=len(prompts), do_sample=False)
        generator = genai.Generator(model, params)
        generator.append_tokens(np.array(prompts, dtype=np.int32) if len(prompts) > 1 else prompts[0])
        for _ in range(new):
            if generator.is_done():
                break
            generator.generate_next_token()

    return Arm(generate)


def openvino(folder: Path, kind: str) -> Arm:
    """OpenVINO GenAI by itself: its own pipeline, one batch of equal length."""
    import numpy as np  # noqa: PLC0415
    import openvino_genai as genai  # noqa: PLC0415
    from openvino import Tensor  # noqa: PLC0415

    pipeline = genai.LLMPipeline(str(folder / f"{kind}.gguf"), "CPU", INFERENCE_NUM_THREADS=1)

    def generate(prompts: list[list[int]], new: int) -> None:
        config = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new
        config.ignore_eos, config.do_sample = True, False
        ids = np.array(prompts, dtype=np.int64)
        pipeline.generate(genai.TokenizedInputs(Tensor(ids), Tensor(np.ones_like(ids))), config)

    return Arm(generate)


def stepwell(folder: Path, kind: str) -> Arm:
    """Ours, as the gateway asks it: the engine that the kept figures speak for, request by request."""
    from stepwell.config_embedded import EmbeddedEngine  # noqa: PLC0415
    from stepwell.engines.auto import embedded  # noqa: PLC0415

    loop = asyncio.new_event_loop()
    config = EmbeddedEngine(
        path=str(folder / f"{kind}.gguf"),
        engine="auto",
        threads=1,
        slots=AT_ONCE,
        context_tokens=256,
        figures=str(folder / "engines.json"),
    )
    engine = embedded("ours", config)
    many = getattr(engine, "many", engine)
    child = many.child.process.pid if hasattr(many, "child") else 0
    return arm_of(engine, loop, child)


def arm_of(engine: Any, loop: asyncio.AbstractEventLoop, child: int) -> Arm:
    """An engine of ours as an arm; `child` is the process that OpenVINO runs in."""
    from stepwell.engines.trial import child_s  # noqa: PLC0415
    from stepwell.types import Caller, Request  # noqa: PLC0415

    caller = Caller("bench", "bench")

    async def asked(prompt: list[int], new: int) -> None:
        fields = {"model": "m", "prompt": prompt, "max_tokens": new, "temperature": 0, "ignore_eos": True}
        body = json.dumps(fields).encode()
        request = Request(id="b", kind="completion", caller=caller, model="m", body=body, canonical=body)
        async for chunk in engine.generate(request):
            last = chunk
        assert last.usage.output_tokens == new  # noqa: S101 - or the figures mean something else

    async def all_of(prompts: list[list[int]], new: int) -> None:
        await asyncio.gather(*(asked(prompt, new) for prompt in prompts))

    return Arm(
        lambda prompts, new: loop.run_until_complete(all_of(prompts, new)),
        lambda: time.process_time() + child_s(child),
    )


ARMS: dict[str, tuple[Callable[[Path, str], Arm], str]] = {
    "stepwell Q4_0": (stepwell, "Q4_0"),
    "stepwell Q8_0": (stepwell, "Q8_0"),
    "transformers fp32": (transformers, "float32"),
    "transformers bf16": (transformers, "bfloat16"),
    "CTranslate2 int8": (ctranslate2, "int8"),
    "onnxruntime-genai int4": (onnxruntime, ""),
    "OpenVINO Q8_0": (openvino, "Q8_0"),
    "OpenVINO Q4_0": (openvino, "Q4_0"),
}


def main() -> None:
    """Load, warm up, then a round a line."""
    make, kind = ARMS[sys.argv[1]]
    arm = make(Path(sys.argv[2]), kind)
    arm.timed(1, FEW)
    arm.timed(AT_ONCE, 2)
    print(json.dumps("ready"), flush=True)
    for _ in iter(sys.stdin.readline, ""):
        print(json.dumps(arm.round()), flush=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    import os

    os._exit(0)  # some of these engines take long over their end, or crash at it
