"""The same loop in several processes that Ray Train starts, joins and watches, on this machine or on many.

Each worker trains as torchrun's would (`parallel`): its own rows of every batch, gradients summed. All machines must
see the run's folder. A worker that dies takes the others with it; all go on from the run's last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from stepwell.errors import DistillError

TRIES = 3
"""So often a run goes on after a worker died."""
HERE = {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
"""A Ray of this run's own, which listens to this machine alone."""


def spread(
    work: Callable[[Mapping[str, Any]], Any],
    given: Mapping[str, Any],
    out: Path,
    *,
    workers: int,
    tries: int = TRIES,
) -> Any:  # noqa: ANN401 - what work gives
    """Call `work(given)` in so many processes and give back what the first returns. Raises DistillError.

    In the cluster that RAY_ADDRESS names, or in one of this machine alone. A worker has an accelerator where there are.
    """
    if workers < 1:
        raise DistillError("--ray needs at least 1 worker")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ours = not ray.is_initialized()
    try:
        if ours:
            begin()
        check_room(workers)
        trainer = TorchTrainer(
            work,
            train_loop_config=dict(given),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available()),
            run_config=RunConfig(
                name="ray", storage_path=str(out.resolve()), failure_config=FailureConfig(max_failures=tries)
            ),
        )
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise DistillError(f"a worker failed: {error}", file=str(out)) from error
    finally:
        if ours:
            ray.shutdown()
    return result.return_value


def begin() -> None:
    """Join the cluster, or start one. Raises DistillError."""
    try:
        ray.init(**({} if "RAY_ADDRESS" in os.environ else HERE), log_to_driver=False)
    except Exception as error:  # Ray's own are of many kinds, a bare Exception among them
        raise DistillError(f"Ray does not start: {error}") from error


def check_room(workers: int) -> None:
    """Raise DistillError where the cluster can never start so many workers: Ray itself would wait for ever."""
    kind = "GPU" if torch.cuda.is_available() else "CPU"
    room = int(ray.cluster_resources().get(kind, 0))
    if workers > room:
        raise DistillError(f"--ray {workers}: the cluster has {room} {kind}s, and each worker takes one")
