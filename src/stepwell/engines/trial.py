"""How fast an engine runs a file here: `python -m stepwell.engines.trial`, a process for one engine, told what to do.

It is told its engine's settings in one line of JSON, then a round a line, and answers each with one: so several
engines can take turns, and whatever else the machine does meets all of them.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from os import sysconf
from pathlib import Path
from random import Random
from statistics import median

import msgspec
from msgspec import Struct

from stepwell.config_embedded import EmbeddedEngine
from stepwell.engines.auto import one
from stepwell.engines.figures import Figures, Place, Speed
from stepwell.engines.gguf_header import header
from stepwell.engines.openvino import OpenVino
from stepwell.errors import ConfigError, EngineError
from stepwell.protocols import Engine
from stepwell.types import Caller, Request

SIZES = (1, 4, 8, 16, 32)
PROMPT_TOKENS, LONG_PROMPT_TOKENS = 32, 128
SPECIAL = 100
"""Token numbers below are left out of prompts: most files have their steering tokens there."""
TICK_S, PAGE_BYTES = 1 / sysconf("SC_CLK_TCK"), sysconf("SC_PAGE_SIZE")


class Work(Struct, frozen=True):
    """What is to be measured."""

    config: EmbeddedEngine
    sizes: tuple[int, ...] = SIZES
    num_tokens: int = 32


class Loaded(Struct, frozen=True):
    """What loading took, or why it failed."""

    cpu_s: float = 0.0
    complaint: str = ""


class Round(Struct, frozen=True):
    """One round: processor and clock seconds of everything that is timed."""

    prompt: tuple[float, float]
    decode: dict[int, tuple[float, float]]
    memory_mb: float


class Trial:
    """One engine under test."""

    def __init__(self, work: Work) -> None:
        self.work = work
        before_s = time.process_time()
        self.engine: Engine = one("trial", work.config, work.config.engine)
        self.child = self.engine.child.process.pid if isinstance(self.engine, OpenVino) else 0
        self.load_cpu_s = time.process_time() - before_s + child_s(self.child)
        self.num_words = len(header(Path(work.config.path)).fields["tokenizer.ggml.tokens"])
        self.chance = Random(0)  # noqa: S311 - prompts, no secrets

    async def round(self) -> Round:
        """Time a long prompt, and so many requests at once."""
        prompt = await self.timed(1, LONG_PROMPT_TOKENS, 1)
        decode = {}
        for size in self.work.sizes:
            decode[size] = await self.timed(size, PROMPT_TOKENS, self.work.num_tokens)
        first = await self.timed(1, PROMPT_TOKENS, 1)
        alone = decode[min(decode)]
        decode[min(decode)] = (max(1e-9, alone[0] - first[0]), max(1e-9, alone[1] - first[1]))
        return Round(prompt, decode, memory_mb(self.child))

    async def timed(self, num: int, num_prompt: int, num_new: int) -> tuple[float, float]:
        """Processor and clock seconds of `num` requests at once. Raises EngineError."""
        requests = [self.request(num_prompt, num_new) for _ in range(num)]
        cpu_s, clock_s = self.spent_s(), time.perf_counter()
        await asyncio.gather(*(self.asked(request) for request in requests))
        return self.spent_s() - cpu_s, time.perf_counter() - clock_s

    async def asked(self, request: Request) -> None:
        """One request to its end. Raises EngineError."""
        async for _ in self.engine.generate(request):
            pass

    def request(self, num_prompt: int, num_new: int) -> Request:
        """Random tokens, so that nothing is known from before."""
        low = SPECIAL if self.num_words > 2 * SPECIAL else 0
        prompt = [self.chance.randrange(low, self.num_words) for _ in range(num_prompt)]
        fields = {"model": "trial", "prompt": prompt, "max_tokens": num_new, "temperature": 0, "ignore_eos": True}
        body = msgspec.json.encode(fields)
        caller = Caller("trial", "trial")
        return Request(id="trial", kind="completion", caller=caller, model="trial", body=body, canonical=body)

    def spent_s(self) -> float:
        """Processor seconds of the engine so far, wherever it runs."""
        return time.process_time() + child_s(self.child)


def child_s(pid: int) -> float:
    """Processor seconds of another process, by Linux's books; 0 for none."""
    if not pid:
        return 0.0
    with suppress(OSError, ValueError, IndexError):
        tasks = [int((each / "schedstat").read_text().split()[0]) for each in Path(f"/proc/{pid}/task").iterdir()]
        if any(tasks):
            return sum(tasks) / 1e9
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S
    return 0.0


def memory_mb(child: int) -> float:
    """Resident memory of this process and OpenVINO's, in 10^6 bytes."""
    total = 0
    for pid in ("self", child) if child else ("self",):
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return total / 1e6


def figures(place: Place, loaded: Loaded, rounds: Sequence[Round], work: Work) -> Figures:
    """Medians of all rounds."""
    decode = {}
    for size in work.sizes:
        num = size * work.num_tokens if size > min(work.sizes) else size * (work.num_tokens - 1)
        cpu = [num / each.decode[size][0] for each in rounds]
        clock = [num / each.decode[size][1] for each in rounds]
        decode[size] = Speed(median(cpu), median(clock), (max(cpu) - min(cpu)) / median(cpu))
    prompt = median(LONG_PROMPT_TOKENS / each.prompt[0] for each in rounds)
    return Figures(place, loaded.cpu_s, prompt, decode, max(each.memory_mb for each in rounds))


async def main() -> None:
    """Load, then a round a line."""
    work = msgspec.json.decode(sys.stdin.readline(), type=Work)
    try:
        trial = Trial(work)
    except ConfigError as error:
        say(Loaded(complaint=error.what))
        return
    say(Loaded(trial.load_cpu_s))
    try:
        await trial.timed(1, PROMPT_TOKENS, 2)
        for _ in iter(sys.stdin.readline, ""):
            say(await trial.round())
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
    await trial.engine.close()


def say(told: Struct) -> None:
    """Answer in one line."""
    print(msgspec.json.encode(told).decode(), flush=True)  # noqa: T201 - that is how it is asked


if __name__ == "__main__":
    asyncio.run(main())
