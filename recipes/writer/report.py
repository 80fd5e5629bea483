"""Measure the shipped writer: `python -m recipes.writer.report models/house-writer`. The last line is one JSON object.

Greedy answers of the bfloat16 folder (PyTorch) and of the GGUF file (llama.cpp, as it is served), on the dev and the
test set: BLEU against all references, and slot errors by both checkers beside those of the human texts (the first
reference of each input against its own input).
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from recipes.writer import data
from recipes.writer.train import greedy
from stepwell.config import EmbeddedEngine
from stepwell.distill import student
from stepwell.engines.embedded import Embedded
from stepwell.gateway import openai
from stepwell.quality import slots, slots_apart, text
from stepwell.types import Caller

AT_ONCE = 16


async def served(gguf: Path, mrs: Sequence[str]) -> list[str]:
    """What the embedded engine says, greedily."""
    engine = Embedded("writer", EmbeddedEngine(path=str(gguf), threads=2, slots=AT_ONCE))
    bar, room = tqdm(total=len(mrs), desc="llama.cpp", leave=False), asyncio.Semaphore(AT_ONCE)

    async def one(mr: str) -> str:
        fields = {"model": "writer", "messages": [{"role": "user", "content": mr}], "temperature": 0, "max_tokens": 110}
        body = json.dumps(fields).encode()
        request = openai.parse("chat", body, id="report", caller=Caller("report", "report"), started_s=0.0)
        async with room:
            (chunk,) = [chunk async for chunk in engine.generate(request)]
        bar.update()
        return str(json.loads(chunk.data)["choices"][0]["message"]["content"]).strip()

    said = await asyncio.gather(*(one(mr) for mr in mrs))
    bar.close()
    await engine.close()
    return list(said)


def apart_rate(mrs: Sequence[str], said: Sequence[str]) -> float:
    """Slot error rate by the checker that was written apart."""
    num_errors = num_slots = 0
    for mr, line in zip(mrs, said, strict=True):
        facts = slots.facts_of(mr)
        found = slots_apart.errors(facts, line)
        num_errors += len(found.missing) + len(found.wrong) + len(found.added)
        num_slots += len(facts)
    return num_errors / num_slots


def scores(mrs: Sequence[str], said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU and both slot error rates, in percent."""
    pairs = ((slots.facts_of(mr), line) for mr, line in zip(mrs, said, strict=True))
    return {
        "bleu": round(text.bleu(said, references).score, 2),
        "ser": round(100 * slots.error_rate(pairs), 2),
        "ser_apart": round(100 * apart_rate(mrs, said), 2),
    }


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("models/house-writer"))
    folder = parser.parse_args().folder
    model = student.load(folder)
    told: dict[str, dict[str, float]] = {}
    for part in ("dev", "test"):
        texts = data.read(part)
        mrs = list(texts)
        references = [texts[mr] for mr in mrs]
        told[f"{part} gguf"] = scores(mrs, asyncio.run(served(folder / "house-writer.gguf", mrs)), references)
        told[f"{part} bf16"] = scores(mrs, greedy(model, mrs), references)
        several = [mr for mr in mrs if len(texts[mr]) > 1]
        firsts, others = [texts[mr][0] for mr in several], [texts[mr][1:] for mr in several]
        told[f"{part} human"] = scores(several, firsts, others)
    print(text.bleu(["a"], [["a"]]).signature)
    print(f"{'':<12}{'BLEU':>8}{'SER %':>8}{'apart %':>9}")
    for name, row in told.items():
        print(f"{name:<12}{row['bleu']:>8.2f}{row['ser']:>8.2f}{row['ser_apart']:>9.2f}")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
