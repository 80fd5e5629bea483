"""`stepwell templates edge-config`: an nginx configuration that serves and caches what is published."""

from __future__ import annotations

import argparse
from pathlib import Path

from stepwell.templates.edge_config import Edge, nginx


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("edge-config", help="print an nginx configuration", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where bundles are published")
    parser.add_argument("--listen", default="127.0.0.1:8090", metavar="HOST:PORT", help="of the origin")
    parser.add_argument("--edge", default="", metavar="HOST:PORT", help="an edge cache in front of it, too")
    parser.add_argument("--cache", type=Path, default=Path("/var/cache/nginx/stepwell"), metavar="DIR")
    parser.add_argument("--no-brotli", action="store_true", help="the module brotli_static is not there")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print it."""
    brotli = not given.no_brotli
    print(nginx(Edge(given.folder.resolve(), given.listen, given.edge, given.cache.resolve(), brotli=brotli)), end="")
    return 0
