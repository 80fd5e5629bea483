"""How much each matrix suffers from each format: the divergence from the parent with that one matrix quantized.

The table that mixed precision is allocated by. Every matrix is coded once a format; of a pass only the layers from the
changed one on are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from torch import Tensor

from stepwell.errors import DistillError
from stepwell.quality.files import lay
from stepwell.quantize.allocate import Choice
from stepwell.quantize.divergence import Divergence, Reference
from stepwell.quantize.network import Network, swapped
from stepwell.quantize.recipe import Method, Recipe, Rule, bits
from stepwell.quantize.resume import Past
from stepwell.quantize.shelf import Shelf

GGUF = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")
"""Formats that are tried where rows are multiples of 256; Q4_0 takes what Q4_K takes, and loses more."""
NARROW = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
"""Formats of 32 weights."""
Watch = Callable[[int, int, str], None]
"""Told how many are done, of how many, and what was last."""


class Entry(Struct, frozen=True):
    """One matrix in one format."""

    name: str
    rows: int
    width: int
    format: str
    num_bytes: int
    """In the file."""
    kl: float
    """Nats a token: the divergence from the parent, all other matrices as the table's base has them."""
    error: float
    """Standard error of `kl`."""


class Table(Struct, frozen=True):
    """All matrices in all formats that fit them."""

    method: Method
    entries: tuple[Entry, ...]
    num_tokens: int
    """That were judged."""
    base: Recipe | None = None
    """What the other matrices have; None: what the parent has."""
    predicted: bool = False
    """Whether losses were foreseen from the curvature, and no model was run."""

    @property
    def names(self) -> tuple[str, ...]:
        """The matrices, in the model's order."""
        return tuple(dict.fromkeys(entry.name for entry in self.entries))

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats, in the order they were asked for."""
        return tuple(dict.fromkeys(entry.format for entry in self.entries))

    @property
    def num_weights(self) -> int:
        """Weights of all matrices."""
        return sum({entry.name: entry.rows * entry.width for entry in self.entries}.values())

    def choices(self, cost: Callable[[Entry], int] = lambda entry: entry.num_bytes) -> dict[str, list[Choice]]:
        """What `allocate` chooses from."""
        found: dict[str, list[Choice]] = {name: [] for name in self.names}
        for entry in self.entries:
            found[entry.name].append(Choice(entry.format, cost(entry), entry.kl))
        return found

    def recipe(self, picked: Mapping[str, Choice]) -> Recipe:
        """A choice for every matrix as a recipe; the format of most weights is the default."""
        weights = {entry.name: entry.rows * entry.width for entry in self.entries}
        held: dict[str, int] = {}
        for name, choice in picked.items():
            held[choice.format] = held.get(choice.format, 0) + weights[name]
        most = max(sorted(held), key=held.__getitem__)
        rules = [Rule(each.format, self.method, name) for name, each in picked.items() if each.format != most]
        return Recipe(Rule(most, self.method), tuple(rules))


def measured(
    network: Network,
    shelf: Shelf,
    reference: Reference,
    *,
    formats: Sequence[str] = GGUF,
    method: Method = "gptq",
    base: Recipe | None = None,
    watch: Watch | None = None,
) -> Table:
    """The table. `reference` is the parent's on a search split; the network is as it was afterwards.

    With a base, all other matrices are quantized by it: what each format then adds or spares. Raises DistillError
    where a recipe does not fit.
    """
    plan = [(name, each) for name in shelf.weights for each in shelf.fitting(name, tuple(formats))]
    held = {} if base is None else shelf.all(base)
    entries = []
    with swapped(network, held):
        past = Past(network)
        with past.listening():
            reference.of(network)
        for done, (name, format_) in enumerate(plan, 1):
            found = alone(network, reference, past, (name, shelf.weight(name, Rule(format_, method))))
            entries.append(entry(name, shelf.shapes[name], format_, (found.kl, found.error)))
            if watch is not None:
                watch(done, len(plan), f"{name} {format_}")
    return Table(method, tuple(entries), int(sum(batch.num_scored for batch in reference.batches)), base)


def predicted(
    shelf: Shelf, *, formats: Sequence[str] = GGUF, method: Method = "gptq", watch: Watch | None = None
) -> Table:
    """The table as the curvature foresees it: for the cost of coding alone, and with no noise of a few texts.

    Losses are too small by a factor (about 0.7) that all have, so what is allocated by them is as good.
    Raises DistillError where nothing was calibrated.
    """
    held = shelf.calibration
    if held is None:
        raise DistillError("nothing foresees losses without calibration texts: give a task")
    plan = [(name, each) for name in shelf.weights for each in shelf.fitting(name, tuple(formats))]
    entries = []
    for done, (name, format_) in enumerate(plan, 1):
        kl = held.cost(name, shelf.weight(name, Rule(format_, method)) - shelf.weights[name])
        entries.append(entry(name, shelf.shapes[name], format_, (kl, 0.0)))
        if watch is not None:
            watch(done, len(plan), f"{name} {format_}")
    return Table(method, tuple(entries), held.num_tokens, predicted=True)


def alone(network: Network, reference: Reference, past: Past, changed: tuple[str, Tensor]) -> Divergence:
    """The divergence with one matrix changed."""
    name, weight = changed
    with swapped(network, {name: weight}), past.from_layer_of(name):
        found: Divergence = reference.of(network)
        return found


def entry(name: str, shape: tuple[int, int], format_: str, lost: tuple[float, float]) -> Entry:
    """One line of the table: what is lost, and its standard error."""
    rows, width = shape
    size = round(rows * width * bits(format_, width) / 8)
    return Entry(name, rows, width, format_, size, *lost)


def read(path: Path) -> Table:
    """A table that was written. Raises DistillError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Table)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise DistillError(f"is no table of sensitivities ({error})", file=str(path)) from error


def write(path: Path, table: Table) -> None:
    """Write a table, whole or not at all."""
    lay(path, msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n")
