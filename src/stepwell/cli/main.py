"""The command line: one file a subcommand, each with `add` (its arguments) and `run`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import stepwell
from stepwell.cli import cache, campaign, demo, distill, explain, ledger, promise, serve, synth, templates
from stepwell.errors import ConfigError, StepwellError
from stepwell.toml import placed

FAILED = 2


def main(words: list[str] | None = None) -> int:
    """Run one subcommand; what is wrong goes to stderr in one line, with exit code 2."""
    parser = argparse.ArgumentParser(prog="stepwell", description="Serve generative AI to very many people.")
    parser.add_argument("--version", action="version", version=f"stepwell {stepwell.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, explain, ledger, promise, cache, templates, campaign, synth, distill, demo):
        command.add(commands)
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
