"""What llama.cpp itself says of a GGUF file, in a fresh process: whole distributions, tokens, and who it is.

Arrays come back through a .npy file and the rest as JSON; a file that makes the engine's process die does no harm.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.errors import DistillError

Floats = NDArray[np.float32]
Text = tuple[list[int], list[int]]
"""Token ids of a prompt, as the model reads it, and of its completion."""
Way = Literal["library", "server", "transformers"]
"""library: llama.cpp's C functions. server: the server that serves, which is slower, and needs nothing but its API.
transformers: for a folder of compressed-tensors."""
TIMEOUT_S = 900.0


class Job(Struct, frozen=True):
    """What the process is asked."""

    file: str
    texts: tuple[Text, ...] = ()
    strings: tuple[str, ...] = ()
    """To be tokenized."""
    spans: tuple[tuple[int, ...], ...] = ()
    """Token ids to be spelled."""
    threads: int = 1
    way: Way = "library"


class Told(Struct, frozen=True):
    """What it answers; the distributions lie beside it."""

    error: str = ""
    strange: bool = False
    """Whether this llama.cpp's C functions are not the ones that are known here."""
    num_tokens: int = 0
    tokens: tuple[tuple[int, ...], ...] = ()
    spelled: tuple[str, ...] = ()
    engine: str = ""
    processor: str = ""


def distributions(file: Path, texts: Sequence[Text], *, threads: int = 1, way: Way = "library") -> Floats:
    """Log-probabilities of the whole vocabulary at every token of every completion: (tokens, vocabulary), in order.

    Each row is what the engine expects before it sees that token. Raises DistillError where it cannot run the file.
    """
    return run(Job(str(file), tuple(texts), threads=threads, way=way))[1]


def run(job: Job) -> tuple[Told, Floats]:
    """The answers to a job, from a fresh process, if need be from the server. Raises DistillError."""
    with TemporaryDirectory(prefix="stepwell-") as name:
        folder = Path(name)
        told = ran(folder, job)
        if told.error and told.strange:
            told = ran(folder, msgspec.structs.replace(job, way="server"))
        if told.error:
            raise DistillError(told.error, file=job.file)
        return told, np.load(folder / "logprobs.npy", allow_pickle=False)


def ran(folder: Path, job: Job) -> Told:
    """One process's answers; where it dies, its error says how."""
    (folder / "job.json").write_bytes(msgspec.json.encode(job))
    (folder / "told.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "stepwell.quantize.engine_run", str(folder)]
    known = os.environ | {"OMP_NUM_THREADS": str(job.threads), "OMP_WAIT_POLICY": "passive"}
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, env=known, capture_output=True, check=False, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return Told(f"the engine was not done after {TIMEOUT_S:.0f} s")
    if (folder / "told.json").is_file():
        return msgspec.json.decode((folder / "told.json").read_bytes(), type=Told)
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    died = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    return Told(f"the engine's process ended with {died}: {said[0]}", strange=job.way == "library")
