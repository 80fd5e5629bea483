"""How a run goes as lines for a program that listens: a JSON object a stage, and some as training goes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.campaigns.run import Watch
    from stepwell.campaigns.specialist_job import Progress

NUM_POINTS = 100
"""Of the loss curve of a run."""
loss_in = re.compile(r"loss ([\d.]+)").search


@contextmanager
def spoken() -> Iterator[tuple[Watch, Progress]]:
    """What is told of stages, and within them."""
    said = 0

    def watch(name: str, there: bool) -> None:  # noqa: FBT001 - a callback
        say(stage=name, there=there)

    def tell(done: int, total: int, told: str) -> None:
        nonlocal said
        loss, point = loss_in(told), done * NUM_POINTS // max(1, total)
        if loss and point != said:
            said = point
            say(step=done, train_loss=float(loss[1]))

    yield watch, tell


def say(**told: object) -> None:
    """One line, at once."""
    print(json.dumps(told), flush=True)
