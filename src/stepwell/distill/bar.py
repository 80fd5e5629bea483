"""A line on the terminal while a student learns: loss, tokens a second, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from stepwell.distill.train import Told

LATELY = 0.95
"""How much of the running loss a step keeps."""


@contextmanager
def bar(steps: int, *, quiet: bool = False) -> Iterator[Callable[[Told], None]]:
    """What `train(watch=...)` calls after each step."""
    with tqdm(total=steps, unit="step", mininterval=0.5, disable=quiet, dynamic_ncols=True) as line:
        tokens, loss, scores = 0, None, ""

        def watch(told: Told) -> None:
            nonlocal tokens, loss, scores
            if line.n == 0 and told.step > 1:  # gone on with
                line.initial = told.step - 1
                line.n = told.step - 1
            tokens += told.tokens
            loss = told.loss if loss is None else LATELY * loss + (1 - LATELY) * told.loss
            if told.scores:
                scores = ", ".join(f"{name} {value:.4g}" for name, value in told.scores.items())
            taken_s = line.format_dict["elapsed"]
            pace = f"{tokens / taken_s:,.0f} tokens/s" if taken_s else ""
            line.set_postfix_str(", ".join(filter(None, (f"loss {loss:.3f}", pace, scores))), refresh=False)
            line.update()

        yield watch
