"""The command line: one file a subcommand, each with `add` (its arguments) and `run`."""

from __future__ import annotations

import argparse
import logging
import sys
from importlib import import_module
from pathlib import Path

import stepwell
from stepwell.errors import ConfigError, StepwellError
from stepwell.toml import placed

COMMANDS = (
    "serve",
    "engines",
    "explain",
    "ledger",
    "promise",
    "cache",
    "templates",
    "campaign",
    "synth",
    "distill",
    "quantize",
    "demo",
)
FAILED = 2


def main(words: list[str] | None = None) -> int:
    """Run one subcommand; what is wrong goes to stderr in one line, with exit code 2."""
    parser = argparse.ArgumentParser(prog="stepwell", description="Serve generative AI to very many people.")
    parser.add_argument("--version", action="version", version=f"stepwell {stepwell.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    first = (sys.argv[1:] if words is None else words)[:1]
    for name in first if first and first[0] in COMMANDS else COMMANDS:  # what is not asked for is not imported
        import_module(f"stepwell.cli.{name}").add(commands)
    given = parser.parse_args(words)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        return int(given.run(given))
    except StepwellError as error:
        config = getattr(given, "config", None) or getattr(given, "recipe", None)
        told = placed(error, config) if isinstance(error, ConfigError) and isinstance(config, Path) else error
        print(f"stepwell: {told}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
