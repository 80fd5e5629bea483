"""The stage that trains: rows to examples, one process or several, and what the run says of itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, TypedDict

import msgspec
from msgspec import Struct

from stepwell.distill.data import Example
from stepwell.distill.plan import Plan, StudentSection
from stepwell.quantize.recipe import Recipe

if TYPE_CHECKING:
    from stepwell.distill.student import Model
    from stepwell.distill.weights import Transform

JOB, TOLD = "job.json", "told.json"
LATELY = 50
"""Steps whose losses are averaged."""
FAILED = 2
GRACE_S = 10.0
"""In which a process tells its own error, where all have failed alike."""
RUN = "run"
"""The folder of the training run within the stage's."""

Watch = Callable[[int, int, str], None]
"""Told how many steps are done, of how many, and how it goes."""


class Transformed(TypedDict, total=False):
    """A transform of weights, and the step from which it counts."""

    transform: Transform
    transform_from: int


class Quantized(Struct, frozen=True):
    """A student that learns with the numbers it will serve with."""

    recipe: Recipe
    first_step: int
    """The steps before it are plain."""


class Job(Struct, frozen=True):
    """What the processes of a training run are told, as a file beside the run."""

    plan: Plan
    student: StudentSection
    words: str
    """The folder whose tokenizer a new student takes."""
    teacher: str
    """The folder of a teacher whose weights are needed; empty: none are."""
    sparse: str
    """The teacher's stored probabilities; empty: none."""
    learn: list[Example]
    dev: list[Example]
    quantized: Quantized | None = None


class Told(Struct, frozen=True):
    """What a run says of itself."""

    parameters: int
    steps: int
    tokens: int
    cpu_s: float
    last_loss: float
    """The mean of the last steps."""
    scores: dict[str, float]
    """Of the best weights, on the dev rows."""
    stopped: str
    processes: int


def learned(job: Job, out: Path, processes: int, watch: Watch) -> Told:
    """Train in `out/run`, or go on; the student lies in `out/run/student`. Raises DistillError."""
    (out / JOB).write_bytes(msgspec.json.encode(job))
    with beside(out / JOB, processes):
        told = trained(job, out / RUN, watch)
    told = msgspec.structs.replace(told, cpu_s=told.cpu_s * processes, processes=processes)
    (out / TOLD).write_bytes(msgspec.json.encode(told))
    return told


@contextmanager
def beside(job: Path, processes: int) -> Iterator[None]:
    """Other processes that train along: this one is the first. Where this one dies, they end by themselves."""
    if processes == 1:
        yield
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    own = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "stepwell.campaigns.learning", str(job)]
    over = Event()
    others = []
    for rank in range(1, processes):
        said = job.with_name(f"process-{rank}.log")
        with said.open("w") as log:
            environment = {**os.environ, **own, "RANK": str(rank)}
            others.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))  # noqa: S603
        Thread(target=mind, args=(others[-1], over, said), daemon=True).start()
    before = {name: os.environ.get(name) for name in [*own, "RANK"]}
    os.environ.update(own | {"RANK": "0"})
    try:
        yield
    finally:
        over.set()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        leave()
        for other in others:
            other.terminate()
            other.wait()


def mind(other: subprocess.Popen[bytes], over: Event, log: Path) -> None:
    """End this process, too, where another one has failed: it would wait for it, somewhere where nothing reaches it."""
    if other.wait() and not over.wait(GRACE_S):
        what = f"a process that trained along has failed, see {log}; run again, it goes on from the last checkpoint"
        print(f"stepwell: {what}", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(FAILED)


def leave() -> None:
    """Take leave of the other processes."""
    from torch import distributed  # noqa: PLC0415 - torch only where it is trained

    if distributed.is_initialized():
        distributed.destroy_process_group()


def trained(job: Job, out: Path, watch: Watch) -> Told:
    """One process's part of the run."""
    import torch  # noqa: PLC0415

    from stepwell.distill import student, train  # noqa: PLC0415
    from stepwell.distill.llama import num_parameters  # noqa: PLC0415
    from stepwell.distill.measure import mean_loss  # noqa: PLC0415
    from stepwell.distill.sparse import SparseRows  # noqa: PLC0415

    if "WORLD_SIZE" in os.environ:
        torch.set_num_threads(1)
    model = student.create(job.student, Path(job.words), job.plan.seed)
    lately: deque[float] = deque(maxlen=LATELY)

    def heard(told: train.Told) -> None:
        lately.append(told.loss)
        watch(told.step, job.plan.steps, f"loss {sum(lately) / len(lately):.3f}")

    done = train.train(
        job.plan,
        model,
        job.learn,
        out,
        teacher=student.load(Path(job.teacher)) if job.teacher else None,
        sparse=SparseRows.open(Path(job.sparse), model.tokenizer_hash) if job.sparse else None,
        **transformed(model, job.quantized),
        dev=(lambda model: {"loss": mean_loss(model, job.dev)}) if job.dev else None,
        watch=heard,
    )
    return Told(
        parameters=num_parameters(model.module),
        steps=done.steps,
        tokens=done.tokens,
        cpu_s=done.cpu_s,
        last_loss=last_loss(done.log),
        scores=dict(done.scores),
        stopped=done.stopped,
        processes=1,
    )


def transformed(model: Model, quantized: Quantized | None) -> Transformed:
    """What a run is told of quantization. Raises DistillError where a format does not fit."""
    if quantized is None:
        return {}
    from stepwell.quantize.fake import fake, shapes_of  # noqa: PLC0415

    return {"transform": fake(quantized.recipe, shapes_of(model)), "transform_from": quantized.first_step}


def last_loss(log: Path) -> float:
    """The mean loss of the last steps in a log."""
    lines = (msgspec.json.decode(line) for line in log.read_bytes().splitlines())
    losses = deque((float(line["loss"]) for line in lines if "rate" in line), maxlen=LATELY)
    return sum(losses) / max(1, len(losses))


if __name__ == "__main__":
    along = Path(sys.argv[1])
    trained(msgspec.json.decode(along.read_bytes(), type=Job), along.parent / RUN, lambda *_: None)
