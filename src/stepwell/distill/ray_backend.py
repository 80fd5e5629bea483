"""The same loop in several processes that Ray Train starts, joins and watches, on this machine or on many.

Each worker trains as torchrun's would (`parallel`): its own rows of every batch, gradients summed. All machines must
see the run's folder. A worker that dies takes the others with it; all go on from the run's last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from stepwell.errors import DistillError

TRIES = 3
"""So often a run goes on after a worker died."""
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Read when ray is imported: a Ray of this run's own listens on loopback only, and reports to nobody."""


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
    with cluster() as room:
        if workers > room:
            raise DistillError(f"--ray {workers}: the cluster has room for {room}, one CPU or GPU each")
        return fitted(work, given, out, workers=workers, tries=tries)


@contextmanager
def cluster(num_cpus: int | None = None) -> Iterator[int]:
    """Ray, begun here or by a caller, and how many workers it has room for: it would wait for ever for more."""
    if "RAY_ADDRESS" not in os.environ:
        os.environ |= ALONE
    import ray  # noqa: PLC0415 - after its settings

    ours = not ray.is_initialized()
    try:
        if ours:
            here = {} if "RAY_ADDRESS" in os.environ else {"address": "local", "include_dashboard": False}
            ray.init(**here, num_cpus=num_cpus, log_to_driver=False)
        yield int(ray.cluster_resources().get("GPU" if torch.cuda.is_available() else "CPU", 0))
    except DistillError:
        raise
    except Exception as error:  # Ray's own are of many kinds, a bare Exception among them
        raise DistillError(f"Ray: {error}") from error
    finally:
        if ours:
            ray.shutdown()


def fitted(
    work: Callable[[Mapping[str, Any]], Any], given: Mapping[str, Any], out: Path, *, workers: int, tries: int
) -> Any:  # noqa: ANN401
    """What the first worker returns."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    trainer = TorchTrainer(
        work,
        train_loop_config=dict(given),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(
            name="ray", storage_path=str(out.resolve()), failure_config=FailureConfig(max_failures=tries)
        ),
    )
    return trainer.fit().return_value
