"""What a search is asked to do, how long it may take, and what it has found so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from stepwell.campaigns.cost import cpu_s
from stepwell.campaigns.quantize_task import Task
from stepwell.errors import StepwellError
from stepwell.quality.files import lay
from stepwell.quantize.frontier import Point, Target

if TYPE_CHECKING:
    from stepwell.quantize.grids import Coded
    from stepwell.quantize.recipe import Recipe

Kept = TypeVar("Kept")
HASH_CHARS = 16
Tell = Callable[[int, int, str], None]
"""Told how much of a phase is done, of how much, and what."""
Watch = Callable[[str], None]
"""Told a phase's name."""
Train = Callable[[Path, "Recipe", Task, Path, float], "Mapping[str, Coded]"]
"""Trains a model for a recipe: its folder, the recipe, the task, a folder for the run, and seconds it may take.

What comes back are the codes of its matrices; all else stays as it is.
"""
NUM_CALIBRATION = 1024
"""Texts that codes are found from, at most: a few hundred leave directions in which any error seems to cost nothing."""
WRITING_S = 2.0
"""Kept for writing down what was found."""


class TimeIsUpError(StepwellError):
    """The budget has ended; whoever searches writes down the best so far."""


class Clock:
    """The budget, from here on: wall time, or processor time, which neighbours on the machine do not take."""

    def __init__(self, budget_s: float, *, cpu: bool = False) -> None:
        self.budget_s, self.cpu = budget_s, cpu
        self.now: Callable[[], float] = cpu_s if cpu else monotonic
        self.begun = self.now()

    @property
    def spent_s(self) -> float:
        """What was taken of it."""
        return self.now() - self.begun

    @property
    def left_s(self) -> float:
        """What is left of it, the time for writing down taken off."""
        return self.budget_s - min(WRITING_S, self.budget_s / 10) - self.spent_s

    def check(self, need_s: float = 0.0) -> None:
        """Raise TimeIsUpError where no more than this is left."""
        if self.left_s <= need_s:
            raise TimeIsUpError("the budget has ended")


@dataclass(frozen=True)
class Job:
    """A search: `stepwell quantize search` as values."""

    model: Path
    task: Task
    margin: str
    out: Path
    target: Target = "size"
    at_most: float = 0.0
    budget_s: float = 1200.0
    cpu: bool = False
    """Whether the budget is processor time, in place of wall time."""
    alpha: float = 0.05
    seed: int = 0
    num_mixed: int = 24
    """Mixtures to begin with."""
    resamples: int = 4000
    train: Train | None = None
    """None: where nothing passes, nothing is trained."""
    watch: Watch = lambda _name: None
    tell: Tell = lambda _done, _of, _what: None


class Results(Struct, frozen=True):
    """Where results lie, each by the hash of all that it hangs on: what is there is not computed again."""

    folder: Path
    identity: bytes

    def path(self, kind: str, inputs: object, suffix: str = ".json") -> Path:
        """The place of a result."""
        digest = sha256(self.identity + kind.encode() + b"\0" + msgspec.json.encode(inputs)).hexdigest()
        return self.folder / f"{kind}-{digest[:HASH_CHARS]}{suffix}"

    def kept(self, kind: str, inputs: object, wanted: type[Kept], make: Callable[[], Kept]) -> Kept:
        """The result, made where it is not there; whole or not at all."""
        path = self.path(kind, inputs)
        if path.is_file():
            return msgspec.json.decode(path.read_bytes(), type=wanted)
        made = make()
        lay(path, msgspec.json.encode(made))
        return made


@dataclass
class Board:
    """All points, by name, as the search goes on; written after every change."""

    path: Path
    points: dict[str, Point] = field(default_factory=dict)

    def put(self, point: Point) -> Point:
        """Take what is known now of a recipe."""
        self.points[point.name] = point
        return point

    def update(self, name: str, **known: object) -> Point:
        """The same point, with more known."""
        return self.put(replace(self.points[name], **known))

    def write(self) -> None:
        """points.json, whole or not at all."""
        found = sorted(self.points.values(), key=lambda point: point.num_bytes)
        lay(self.path, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
