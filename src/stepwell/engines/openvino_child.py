"""OpenVINO GenAI in a process of its own: `python -m stepwell.engines.openvino_child`, frames on stdin and stdout.

Its pipeline holds Python's lock for the whole of a step, tens of milliseconds: no event loop can live beside it. One
loop takes what has arrived, makes a step for all requests that run, and tells what it has brought.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig

from stepwell.config_embedded import OPENVINO_CACHE, EmbeddedEngine
from stepwell.engines.gguf_header import Header, header
from stepwell.engines.openvino_run import Model, Run, first_line
from stepwell.engines.openvino_wire import Asked, Fault, Made, Ready, Setup, fault_of, framed, frames
from stepwell.errors import ConfigError, EngineError

log = logging.getLogger(__name__)

BLOCK_TOKENS = 32
"""Tokens of a block of OpenVINO's cache of keys and values on CPUs."""
STEERING = frozenset({2, 3, 5})
"""Kinds of tokens that are no text: unknown, control, unused."""
READ = "F16, Q8_0, Q4_0, Q4_1, Q6_K or Q4_K"
"""What OpenVINO GenAI 2026.4 was seen to run, also mixed in one file (where `general.file_type` names one of them)."""
ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")


class Loop:
    """Requests side by side, until the other process is gone or wants no more."""

    def __init__(self, model: Model, num_slots: int, out: BinaryIO) -> None:
        self.model, self.num_slots, self.out = model, num_slots, out
        self.inbox: SimpleQueue[Asked | None] = SimpleQueue()
        self.waiting: dict[int, Asked] = {}
        self.runs: dict[int, Run] = {}
        self.closing = False

    def work(self) -> None:
        """Step by step."""
        while not self.closing or self.runs:
            self.hear()
            self.begin()
            self.step()
            self.tell([self.moved(run) for run in list(self.runs.values())])

    def step(self) -> None:
        """One step for all. Raises RuntimeError where OpenVINO fails: its pipeline is of no more use then."""
        try:
            if self.model.pipeline.has_non_finished_requests():
                self.model.pipeline.step()
        except RuntimeError as error:
            what = f"OpenVINO failed: {first_line(error)}"
            self.tell([Made(each, ended=True, fault=Fault(what)) for each in self.runs])
            raise

    def hear(self) -> None:
        """Take what has arrived; wait for it where there is nothing else to do."""
        idle = not self.runs and not self.waiting
        while True:
            try:
                asked = self.inbox.get(block=idle)
            except Empty:
                return
            idle = False
            if asked is None:
                self.closing = True
                self.waiting.clear()
                return
            if asked.request is not None:
                self.waiting[asked.number] = asked
            elif self.waiting.pop(asked.number, None) is None and asked.number in self.runs:
                self.runs.pop(asked.number).stop()

    def begin(self) -> None:
        """Begin what there is room for."""
        while self.waiting and sum(len(run.voices) for run in self.runs.values()) < self.num_slots:
            asked = self.waiting.pop(next(iter(self.waiting)))
            assert asked.request is not None  # noqa: S101 - only requests wait
            try:
                self.runs[asked.number] = Run(asked.number, asked.request, self.model)
            except EngineError as error:
                self.tell([Made(asked.number, ended=True, fault=fault_of(error))])
            except Exception as error:  # noqa: BLE001 - one odd request must not end the others
                self.tell([Made(asked.number, ended=True, fault=Fault(f"OpenVINO cannot take it: {error!r}"))])

    def moved(self, run: Run) -> Made | None:
        """What a step has brought to one request."""
        try:
            chunks = run.moved()
        except EngineError as error:
            run.stop()
            del self.runs[run.number]
            return Made(run.number, ended=True, fault=fault_of(error))
        if run.ended:
            del self.runs[run.number]
        return Made(run.number, tuple(chunks), ended=run.ended) if chunks or run.ended else None

    def tell(self, made: list[Made | None]) -> None:
        """Say it in one write."""
        if data := b"".join(framed(each) for each in made if each is not None):
            self.out.write(data)
            self.out.flush()


def loaded(setup: Setup) -> Model:
    """Load the file. Raises ConfigError that says which engine can, where this one cannot."""
    config = setup.config
    about = header(Path(config.path))
    try:
        pipeline = ContinuousBatchingPipeline(config.path, scheduler(config), "CPU", properties(config))
    except RuntimeError as error:
        formats = ", ".join(sorted(set(about.formats) - {"F32"}))
        what = f"OpenVINO cannot run a {about.architecture} model in {formats} ({first_line(error)})"
        raise ConfigError(f"{what}: say engine = 'llamacpp', or export it in {READ}") from error
    tokenizer = pipeline.get_tokenizer()
    with suppress(RuntimeError):  # the first time it says things that nobody needs to read
        tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], add_generation_prompt=True)
    return Model(
        name=setup.name,
        pipeline=pipeline,
        tokenizer=tokenizer,
        pieces=pieces(tokenizer.get_vocab(), about),
        ends=frozenset(about.fields[name] for name in ENDS if name in about.fields),
        begin=beginning(about),
        context_tokens=config.context_tokens,
        numbers=count(),
    )


def scheduler(config: EmbeddedEngine) -> SchedulerConfig:
    """How requests share the cache, whose size is fixed here."""
    given = SchedulerConfig()
    given.max_num_batched_tokens = config.batch_tokens
    given.max_num_seqs = config.slots
    given.cache_size = 0
    given.num_kv_blocks = config.slots * (-(-config.context_tokens // BLOCK_TOKENS) + 1)
    given.dynamic_split_fuse = True
    return given


def properties(config: EmbeddedEngine) -> dict[str, Any]:
    """OpenVINO's settings."""
    return {
        "INFERENCE_NUM_THREADS": config.threads,
        "KEY_CACHE_PRECISION": OPENVINO_CACHE[config.cache_type_k],
        "VALUE_CACHE_PRECISION": OPENVINO_CACHE[config.cache_type_v],
    }


def pieces(vocab: dict[bytes, int], about: Header) -> list[bytes]:
    """The bytes of every token; none for those that only steer."""
    kinds = about.fields.get("tokenizer.ggml.token_type") or []
    texts = [b""] * (max(vocab.values()) + 1)
    for text, at in vocab.items():
        if at >= len(kinds) or kinds[at] not in STEERING:
            texts[at] = text
    return texts


def beginning(about: Header) -> int | None:
    """The token that texts begin with, where the file wants one."""
    wants = about.fields.get("tokenizer.ggml.add_bos_token", False)
    return about.fields.get("tokenizer.ggml.bos_token_id") if wants else None


def main() -> None:
    """Load what the first frame names, then work until stdin ends."""
    for name in (signal.SIGINT, signal.SIGTERM):  # meant for the gateway, which drains first and then closes the pipe
        signal.signal(name, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    silenced(1)  # OpenVINO prints there
    setup = next(frames(sys.stdin.buffer, Setup))
    stderr = silenced(2)
    try:
        loop = Loop(loaded(setup), setup.config.slots, out)
    except ConfigError as error:
        out.write(framed(Ready(error.what)))
        out.flush()
        os._exit(1)
    os.dup2(stderr, 2)
    out.write(framed(Ready()))
    out.flush()
    Thread(target=listen, args=(loop,), daemon=True).start()
    try:
        loop.work()
    except Exception:
        log.exception("OpenVINO's process of %s ends", setup.name)
        os._exit(1)
    os._exit(0)  # nothing of OpenVINO's is worth tidying up


def silenced(number: int) -> int:
    """Let what is written to a file descriptor go nowhere; a copy of it as it was."""
    kept = os.dup(number)
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return kept


def listen(loop: Loop) -> None:
    """Hear the other process; where it has died, what runs is for nobody."""
    parent = os.getppid()
    for asked in frames(sys.stdin.buffer, Asked):
        loop.inbox.put(asked)
    if os.getppid() != parent:
        os._exit(1)
    loop.inbox.put(None)


if __name__ == "__main__":
    main()
