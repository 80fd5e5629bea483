"""What a quantized model is judged by: a task's rows in three splits that share nothing, and how answers are scored.

Calibration rows are what methods look at, search rows choose among recipes, gate rows are read once, for the verdict.
A task is a TOML file, or one file of rows that are split by what they ask.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from stepwell.errors import ConfigError, DistillError
from stepwell.quality.judges import source_of
from stepwell.quality.verify import verifier
from stepwell.store import tables
from stepwell.synth.leaks import leaks
from stepwell.synth.slots import facts_key
from stepwell.toml import Section, placed, typed

if TYPE_CHECKING:
    from stepwell.quantize.calibrate import Tokens

FOLDER = Path("recipes/tasks")
"""Where a task is looked for by its name."""
SPLITS = ("calibration", "search", "gate")
SHARES = (0.5, 0.75)
"""Where one file is cut: half to calibrate on, a quarter to search by, a quarter for the gate."""
SHOWN = 3
MAX_TOKENS = 128
BLEU, EXACT = "bleu", "exact"
Count = Annotated[int, Meta(ge=1)]


class Row(Struct, frozen=True):
    """A prompt, the text that belongs to it, and all texts that are as good."""

    prompt: str
    completion: str
    references: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """What an answer is compared with."""
        return self.references or (self.completion,)


class File(Section, frozen=True):
    """A task's TOML file. Paths start from its own folder, or from where one stands; `$NAME` is the environment's."""

    calibration: str
    search: str
    gate: str
    name: str = ""
    scorer: str = BLEU
    """bleu, exact, slots, slots_apart, values, or a function of your own, module:function."""
    max_tokens: Count = MAX_TOKENS


class Task(Struct, frozen=True):
    """What is asked, and how answers are scored."""

    name: str
    scorer: str
    max_tokens: int
    calibration: tuple[Row, ...]
    search: tuple[Row, ...]
    gate: tuple[Row, ...]

    @property
    def hashes(self) -> dict[str, str]:
        """The SHA-256 of each split, by what its rows say."""
        return {name: digest(getattr(self, name)) for name in SPLITS}

    @property
    def identity(self) -> bytes:
        """All that results hang on beside the model: rows, scorer (its source, too, where it is yours), length."""
        return msgspec.json.encode((self.hashes, self.scorer, self.max_tokens)) + source_of(self.scorer, field="scorer")


class Speaker(Protocol):
    """A model that knows its words: `distill.student.Model` is one."""

    @property
    def words(self) -> Any:  # noqa: ANN401 - `distill.chat.Words`
        """Its tokens."""

    def prompt_ids(self, text: str) -> list[int]:
        """The chat template around the text, as token ids."""

    def text_ids(self, text: str) -> list[int]:
        """The text and its end, as token ids."""


def load(name: str | Path, *, scorer: str = "") -> Task:
    """The task of a name, a TOML file or a file of rows; with another scorer, where one is named.

    Raises ConfigError, StoreError, and DistillError for leaks.
    """
    path = found(str(name))
    task = from_file(path) if path.suffix == ".toml" else cut(path)
    task = replace(task, scorer=scorer or task.scorer)
    if task.scorer not in {BLEU, EXACT}:
        try:
            verifier(task.scorer, field="scorer")
        except ConfigError as error:
            raise placed(ConfigError(f"{error.what}, or {BLEU} or {EXACT}", field=error.field), path) from error
    for split in SPLITS:
        if not getattr(task, split):
            raise DistillError(f"the {split} split has no rows", file=str(path))
    check(task, str(path))
    return task


def found(name: str) -> Path:
    """A task's file, by its path or its name. Raises ConfigError."""
    if name.endswith((".toml", ".jsonl", ".parquet")) or Path(name).is_file():
        path = Path(name)
    else:
        path = FOLDER / f"{name}.toml"
    if not path.exists():
        there = f"; here are {', '.join(known())}" if known() else ""
        raise ConfigError(f"no task {name!r}: there is no {path}; name a TOML file or a file of rows{there}")
    return path


def known() -> list[str]:
    """The tasks that are here by name; recipes of students lie beside them, and have no gate."""
    return sorted(each.stem for each in FOLDER.glob("*.toml") if b"\ngate =" in each.read_bytes())


def from_file(path: Path) -> Task:
    """A task's TOML file and the rows that it names. Raises ConfigError and StoreError."""
    try:
        file: File = typed(path.read_text(encoding="utf-8"), File, file=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error}); name a task", file=str(path)) from error
    splits = {split: rows(located(getattr(file, split), path, split)) for split in SPLITS}
    return Task(
        name=file.name or path.stem,
        scorer=file.scorer,
        max_tokens=file.max_tokens,
        calibration=splits["calibration"],
        search=merged(splits["search"]),
        gate=merged(splits["gate"]),
    )


def located(named: str, source: Path, split: str) -> Path:
    """A path of the file. Raises ConfigError where an environment variable is missing, or nothing is there."""
    filled = os.path.expandvars(named)
    beside = source.parent / filled
    path = beside if beside.exists() else Path(filled)
    if not path.exists():
        why = "the environment variable is not set" if "$" in filled else "there is no such file"
        raise placed(ConfigError(f"{named}: {why}", field=split), source)
    return path


def rows(path: Path) -> tuple[Row, ...]:
    """The rows of a file. Raises DistillError with the row that is none, StoreError for a damaged file."""
    return tuple(row(each, str(path), number) for number, each in enumerate(tables.read(path), 1))


def row(held: Mapping[str, Any], file: str, number: int) -> Row:
    """One row. Raises DistillError."""
    try:
        read = msgspec.convert(held, Row)
    except msgspec.ValidationError as error:
        what = f"is no row of a task ({error}); write prompt, completion, and references where there are several"
        raise DistillError(what, file=file, line=number) from error
    if not read.prompt.strip() or not any(text.strip() for text in (read.completion, *read.references)):
        raise DistillError("a row needs the texts `prompt` and `completion`", file=file, line=number)
    return read if read.completion.strip() else Row(read.prompt, read.references[0], read.references)


def merged(given: Iterable[Row]) -> tuple[Row, ...]:
    """Each prompt once, with all that was said to it."""
    texts: dict[str, dict[str, None]] = {}
    for each in given:
        texts.setdefault(each.prompt, {}).update(dict.fromkeys((each.completion, *each.references)))
    return tuple(Row(prompt, next(iter(said)), tuple(said)) for prompt, said in texts.items())


def cut(path: Path) -> Task:
    """One file of rows in three splits, each prompt in the one that its hash says."""
    parts: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for each in rows(path):
        chance = int.from_bytes(sha256(key(each.prompt).encode()).digest()[:8]) / 2**64
        parts[SPLITS[sum(chance >= share for share in SHARES)]].append(each)
    calibration, search, gate = (parts[name] for name in SPLITS)
    return Task(path.stem, BLEU, MAX_TOKENS, tuple(calibration), merged(search), merged(gate))


def key(prompt: str) -> str:
    """The same for prompts that ask the same."""
    return facts_key(prompt) or " ".join(prompt.casefold().split())


def digest(given: Iterable[Row]) -> str:
    """SHA-256 of rows by what they say."""
    total = sha256()
    for each in given:
        total.update(msgspec.json.encode(each))
    return total.hexdigest()


def check(task: Task, file: str = "") -> None:
    """Raise DistillError where splits share what they ask, or calibration texts hold what the gate will ask."""
    for one, other in (("calibration", "search"), ("calibration", "gate"), ("search", "gate")):
        shared = leaked(getattr(task, one), getattr(task, other), words=(one, other) == ("calibration", "gate"))
        if shared:
            told = "; ".join(f"row {at + 1}: {what}" for at, what in list(shared.items())[:SHOWN])
            more = f" and {len(shared) - SHOWN} more" if len(shared) > SHOWN else ""
            what = f"{len(shared)} rows of {one} hold what {other} asks ({told}{more}): take them out of {one}"
            raise DistillError(what, file=file)


def leaked(given: Sequence[Row], held: Sequence[Row], *, words: bool = True) -> dict[int, str]:
    """Rows, by their place, that ask what a held-out row asks or (`words`) hold so many of its words in a row."""
    found = leaks([(each.prompt, each.completion) for each in given], [(each.prompt, "") for each in held])
    return {at: leak.what for at, leak in sorted(found.items()) if words or leak.kind != "words"}


def tokens(model: Speaker, given: Iterable[Row], *, rows: int = 32) -> list[Tokens]:
    """Rows as token ids in batches, as methods and divergences read them."""
    from stepwell.quantize.calibrate import laid  # noqa: PLC0415 - torch, which reading a task does not need

    texts = [(model.prompt_ids(each.prompt), model.text_ids(each.completion)) for each in given]
    return laid(texts, pad=model.words.pad, rows=rows)
