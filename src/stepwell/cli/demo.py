"""`stepwell demo`: play a city guide through the well, then show what the ledger saw."""

from __future__ import annotations

import argparse
import importlib.util
import webbrowser
from pathlib import Path

import stepwell
from stepwell.errors import ConfigError

MODEL = Path("models/house-writer/house-writer.gguf")
NEEDS = {"rich": "rich", "sacrebleu": "sacrebleu", "xllamacpp": "xllamacpp"}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    demo = commands.add_parser("demo", help="play a city guide through the well: a table and a picture")
    demo.add_argument(
        "--data", type=Path, metavar="CSV", help="play the inputs of this file (columns mr, ref), score them"
    )
    demo.add_argument("--requests", type=positive, default=6000, metavar="N", help="how many requests (default: 6000)")
    demo.add_argument("--seed", type=int, default=1, metavar="S", help="another city and other readers (default: 1)")
    demo.add_argument("--out", type=Path, default=Path("stepwell-demo"), metavar="DIR", help="where files go")
    demo.add_argument("--model", type=Path, metavar="PATH", help="a GGUF file in place of the house writer")
    demo.add_argument("--open", action="store_true", help="open the picture in a browser")
    demo.set_defaults(run=run)


def positive(text: str) -> int:
    """Read a count of at least one."""
    num = int(text)
    if num < 1:
        raise argparse.ArgumentTypeError(f"{num} is less than 1")
    return num


def run(args: argparse.Namespace) -> int:
    """Play, and say what happened. Exit code 1 where a request was not answered. Raises StepwellError."""
    check_extra()
    from stepwell.demo.show import show  # noqa: PLC0415 - needs the extra

    shown = show(data=args.data, num=args.requests, seed=args.seed, folder=made(args.out), model=model_file(args.model))
    if args.open:
        webbrowser.open(shown.page.as_uri())
    return 1 if shown.num_errors else 0


def check_extra() -> None:
    """Raise ConfigError where the extra `demo` is not installed."""
    lacking = [name for name, module in NEEDS.items() if importlib.util.find_spec(module) is None]
    if lacking:
        raise ConfigError(f"needs {', '.join(lacking)}: pip install 'stepwell[demo]'")


def model_file(named: Path | None) -> Path:
    """The model to play with: the one named, else the house writer of this checkout. Raises ConfigError."""
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"--model {named}: there is no such file; name a GGUF file")
        return named.resolve()
    for root in (Path(stepwell.__file__).parents[2], Path.cwd()):
        if (root / MODEL).is_file():
            return (root / MODEL).resolve()
    raise ConfigError(f"the house writer ({MODEL}) is not here: run in a checkout, or give --model PATH")


def made(folder: Path) -> Path:
    """Make the folder for the files of the run. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be made ({error.strerror}); name another folder") from error
    return folder.resolve()
