"""The process that `engine.py` starts: `python -m stepwell.quantize.engine_run FOLDER` answers FOLDER/job.json."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from stepwell.errors import DistillError
from stepwell.quantize import engine_library as library
from stepwell.quantize import engine_server as server
from stepwell.quantize import engine_transformers as transformers
from stepwell.quantize.engine import Floats, Job, Told, Way
from stepwell.quantize.wheel import Strange


def main(folder: Path) -> None:
    """Answer, and end without llama.cpp's own farewells, which may hang."""
    job = msgspec.json.decode((folder / "job.json").read_bytes(), type=Job)
    try:
        told, made = WAYS[job.way](job)
        np.save(folder / "logprobs.npy", made, allow_pickle=False)
    except DistillError as error:
        told = Told(str(error), strange=isinstance(error, Strange))
    part = folder / "told.part"
    part.write_bytes(msgspec.json.encode(told))
    part.replace(folder / "told.json")
    sys.stderr.flush()
    os._exit(0)


def by_library(job: Job) -> tuple[Told, Floats]:
    """By the C functions."""
    longest = max((len(prompt) + len(completion) for prompt, completion in job.texts), default=1)
    with library.opened(Path(job.file), longest, job.threads) as held:
        each = [library.logits(held, [*prompt, *rest[:-1]], len(prompt) - 1) for prompt, rest in job.texts if rest]
        told = Told(
            num_tokens=held.num_tokens,
            tokens=tuple(tuple(library.tokenized(held, text)) for text in job.strings),
            spelled=tuple(library.spelled(held, ids) for ids in job.spans),
            engine=engine(),
            processor=library.processor(),
        )
        made = np.concatenate(each) if each else np.empty((0, held.num_tokens), np.float32)
        return told, logprobs(made)


def by_server(job: Job) -> tuple[Told, Floats]:
    """By the server, one token at a time."""
    held = server.opened(Path(job.file), max((len(a) + len(b) for a, b in job.texts), default=1), job.threads)
    size, plain = server.num_tokens(held), server.tokenized(held, "a")[0]
    rows = [
        server.logprobs(held, [*prompt, *rest[:at]], size, plain)
        for prompt, rest in job.texts
        for at in range(len(rest))
    ]
    told = Told(
        num_tokens=size,
        tokens=tuple(tuple(server.tokenized(held, text)) for text in job.strings),
        spelled=tuple(server.spelled(held, ids) for ids in job.spans),
        engine=engine(),
        processor=server.processor(),
    )
    return told, np.stack(rows) if rows else np.empty((0, size), np.float32)


def by_transformers(job: Job) -> tuple[Told, Floats]:
    """By transformers, from a folder."""
    model, words = transformers.opened(Path(job.file), job.threads)
    each = [transformers.logits(model, [*prompt, *rest[:-1]], len(prompt) - 1) for prompt, rest in job.texts if rest]
    size = model.config.get_text_config().vocab_size
    told = Told(
        num_tokens=size,
        tokens=tuple(tuple(words.encode(text, add_special_tokens=False)) for text in job.strings),
        spelled=tuple(words.decode(list(ids), skip_special_tokens=True) for ids in job.spans),
        engine=transformers.engine(),
    )
    return told, logprobs(np.concatenate(each) if each else np.empty((0, size), np.float32))


WAYS: dict[Way, Callable[[Job], tuple[Told, Floats]]] = {
    "library": by_library,
    "server": by_server,
    "transformers": by_transformers,
}


def logprobs(logits: Floats) -> Floats:
    """Logits (tokens, vocabulary) normalised, in place: a vocabulary of a long text is large."""
    for row in logits:
        wide = row.astype(np.float64)
        wide -= wide.max()
        row[:] = wide - np.log(np.exp(wide).sum())
    return logits


def engine() -> str:
    """Name and version."""
    return f"xllamacpp {version('xllamacpp')}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
