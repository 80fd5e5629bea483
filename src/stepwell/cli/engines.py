"""`stepwell engines test`: how fast each engine runs a model here, and which one `engine = "auto"` then takes."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from stepwell import config as configuration
from stepwell.config_embedded import EmbeddedEngine, Which
from stepwell.engines.auto import told
from stepwell.engines.figures import NAMES, PACKAGES, Figures, installed, keep, pick, place, sha256_of, version
from stepwell.engines.trial import SIZES, Loaded, Round, Work, figures
from stepwell.errors import ConfigError

if TYPE_CHECKING:
    from argparse import _SubParsersAction

T = TypeVar("T")
FAILED = 1
ROUNDS, TOKENS = 5, 32


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommands."""
    parser = commands.add_parser("engines", help="measure the engines here, and pick", description=__doc__)
    inner = parser.add_subparsers(required=True, metavar="COMMAND")
    test = inner.add_parser("test", help="how fast each engine runs a model here", description=__doc__)
    test.add_argument("files", nargs="*", metavar="FILE", help="GGUF files; without any, those of --config")
    test.add_argument("--config", type=Path, default=Path("stepwell.toml"), help="default: stepwell.toml")
    test.add_argument("--threads", type=int, default=1, help="of FILEs; default: 1")
    test.add_argument("--rounds", type=int, default=ROUNDS, help=f"medians of so many; default: {ROUNDS}")
    test.add_argument("--tokens", type=int, default=TOKENS, help=f"new tokens of a request; default: {TOKENS}")
    test.add_argument("--json", action="store_true", help="all figures as JSON")
    test.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Measure, keep the figures, show them; 1 where no engine runs a file. Raises ConfigError."""
    if not installed():
        raise ConfigError("no engine is installed: pip install 'stepwell[embedded]', and 'stepwell[openvino]'")
    if min(given.rounds, given.threads) < 1 or given.tokens < 2:  # noqa: PLR2004
        raise ConfigError("--rounds and --threads are at least 1, --tokens at least 2")
    worked = True
    for config in asked(given):
        found = measured(config, given.rounds, given.tokens, quiet=given.json or not sys.stderr.isatty())
        keep(config.figures, found)
        worked = worked and bool(found)
        if given.json:
            print(msgspec.json.encode(found).decode())
        elif found:
            show(config, found)
    return 0 if worked else FAILED


def asked(given: argparse.Namespace) -> list[EmbeddedEngine]:
    """The models to measure. Raises ConfigError."""
    if given.files:
        return [EmbeddedEngine(path=file, threads=given.threads) for file in given.files]
    config = configuration.load(given.config, secrets=False)
    found = [each for each in config.engines.values() if isinstance(each, EmbeddedEngine)]
    if not found:
        raise ConfigError("no engine of type embedded: name a GGUF file", file=str(given.config), field="engines")
    return found


def measured(config: EmbeddedEngine, num_rounds: int, num_tokens: int, *, quiet: bool) -> list[Figures]:
    """Every installed engine on one file, taking turns. Raises ConfigError."""
    file_sha256 = sha256_of(config.path)
    works = {engine: work(config, engine, num_tokens) for engine in installed()}
    processes = {engine: started(each) for engine, each in works.items()}
    try:
        loaded = {engine: read(process, Loaded) for engine, process in processes.items()}
        for engine, each in loaded.items():
            if each is None or each.complaint:
                print(f"{NAMES[engine]}: {'it died' if each is None else each.complaint}", file=sys.stderr)
        good = [engine for engine, each in loaded.items() if each is not None and not each.complaint]
        rounds = turns(good, processes, num_rounds, quiet=quiet)
    finally:
        for process in processes.values():
            stop(process)
    return [
        figures(place(config, engine, file_sha256), loaded[engine] or Loaded(), rounds[engine], works[engine])
        for engine in good
        if len(rounds[engine]) == num_rounds
    ]


def turns(
    engines: Sequence[Which], processes: dict[Which, subprocess.Popen[str]], num: int, *, quiet: bool
) -> dict[Which, list[Round]]:
    """Rounds, one engine after the other."""
    rounds: dict[Which, list[Round]] = {engine: [] for engine in engines}
    for number in range(num):
        for engine in engines:
            if not quiet:
                print(f"\rround {number + 1} of {num}: {NAMES[engine]:<10}", end="", file=sys.stderr, flush=True)
            say(processes[engine], "round")
            made = read(processes[engine], Round)
            rounds[engine] += [] if made is None else [made]
    if not quiet:
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    return rounds


def work(config: EmbeddedEngine, engine: Which, num_tokens: int) -> Work:
    """What one engine is to do: with slots, and room in each, for all that is timed."""
    slots, context = max(config.slots, *SIZES), max(config.context_tokens, 256, 2 * num_tokens)
    given = msgspec.structs.replace(config, engine=engine, slots=slots, context_tokens=context)
    return Work(given, num_tokens=num_tokens)


def started(work: Work) -> subprocess.Popen[str]:
    """A process for one engine."""
    command = [sys.executable, "-m", "stepwell.engines.trial"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    say(process, msgspec.json.encode(work).decode())
    return process


def say(process: subprocess.Popen[str], line: str) -> None:
    """One line to a process."""
    assert process.stdin is not None  # noqa: S101 - opened as a pipe
    try:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    except OSError:
        return  # it died: nothing will be read


def read(process: subprocess.Popen[str], kind: type[T]) -> T | None:
    """Its answer; None where it died."""
    assert process.stdout is not None  # noqa: S101 - opened as a pipe
    line = process.stdout.readline()
    return msgspec.json.decode(line, type=kind) if line else None


def stop(process: subprocess.Popen[str]) -> None:
    """Let it end."""
    with process:
        if process.stdin is not None:
            process.stdin.close()


def show(config: EmbeddedEngine, found: Sequence[Figures]) -> None:
    """A table, with rich where it is installed, and what auto makes of it."""
    heads = ["", "load", "prompt", *(f"{size} at once" for size in SIZES), "memory"]
    title = f"{config.path}: tokens a CPU second (a second by the clock)"
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.table import Table  # noqa: PLC0415
    except ImportError:
        print("\n".join([title, *("\t".join(cells) for cells in (heads, *map(row, found)))]))
    else:
        table = Table(*heads, title=title, title_justify="left")
        for each in found:
            table.add_row(*row(each))
        Console().print(table)
    versions = ", ".join(f"{NAMES[each.place.engine]} {each.place.version}" for each in found)
    print(f"{versions}; {config.threads} thread{'s' if config.threads > 1 else ''} on {found[0].place.processor}")
    choice = pick(found)
    if choice is not None:
        print(f"auto: {told(choice)}. Kept in {config.figures}.")
    for engine in PACKAGES:
        if not version(engine):
            extra = "embedded" if engine == "llamacpp" else engine
            print(f"{NAMES[engine]} is not installed: pip install 'stepwell[{extra}]'")


def row(found: Figures) -> list[str]:
    """One engine's figures."""
    cells = [
        f"{each.tokens_per_cpu_s:,.0f} ({each.tokens_per_s:,.0f})" for each in map(found.decode.__getitem__, SIZES)
    ]
    prompt, memory = f"{found.prompt_tokens_per_cpu_s:,.0f}", f"{found.memory_mb:.0f} MB"
    return [NAMES[found.place.engine], f"{found.load_cpu_s:.1f} s", prompt, *cells, memory]
