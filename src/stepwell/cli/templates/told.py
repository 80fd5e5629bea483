"""What a person sees while a campaign runs, and when it is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from stepwell.engines.answers import Answers, Spent
from stepwell.templates.likeness import diversity
from stepwell.templates.manifest import Manifest
from stepwell.templates.mf2 import Message, parse
from stepwell.templates.review import Draft

Watch = Callable[[str, bool], None]
Report = Callable[[int, int, Spent], None]


@contextmanager
def campaign_progress() -> Iterator[tuple[Watch, Report]]:
    """A line a stage, and a bar with the cost while texts are written."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[cost]}"), console=Console(stderr=True)) as bar:
        line = bar.add_task("campaign", total=None, cost="")

        def watch(name: str, there: bool) -> None:  # noqa: FBT001 - a callback
            bar.console.print(f"{name:<10} {'is there' if there else '…'}")
            bar.update(line, description=name, total=None, completed=0)

        def report(done: int, total: int, spent: Spent) -> None:
            cost = f"{spent.calls} calls, {spent.usd:.4f} USD" if spent.calls else ""
            bar.update(line, total=total, completed=done, cost=cost)

        yield watch, report


def summary(root: Path, folders: Mapping[str, Path], manifest: Manifest | None) -> None:
    """The table at the end: what was written, kept, refused, paid and published."""
    drafts, kept = (num_lines(folders[stage] / "drafts.jsonl") for stage in ("write", "review"))
    spent = Answers(root / "answers").spent()
    bundles = sorted(folders["compile"].glob("*.json"))
    table = Table(title="campaign", show_header=False)
    table.add_row("structures, by locale", f"{num_lines(folders['catalogue'] / 'tasks.jsonl'):,}")
    table.add_row("texts written", f"{drafts:,}")
    table.add_row("texts live", f"{kept:,}")
    table.add_row("diversity of variants", f"{mean_diversity(folders['review'] / 'drafts.jsonl'):.0%}")
    table.add_row("refused by the check", f"{num_lines(folders['check'] / 'refused.jsonl'):,}")
    table.add_row("structures without a text", f"{num_lines(folders['compile'] / 'missing.jsonl'):,}")
    table.add_row("model calls paid", f"{spent.calls:,}")
    table.add_row("cost", f"{spent.usd:.4f} USD")
    table.add_row("bundles", ", ".join(f"{file.stem} {file.stat().st_size:,} bytes" for file in bundles))
    if manifest:
        table.add_row("published", f"version {manifest.version}, until {manifest.expires}")
    Console().print(table)


def mean_diversity(file: Path) -> float:
    """How unlike the variants of a structure are, 0 to 1: the mean over structures with several."""
    sources: defaultdict[tuple[str, str], list[Message]] = defaultdict(list)
    for line in file.read_bytes().splitlines():
        draft = msgspec.json.decode(line, type=Draft)
        sources[draft.locale, draft.name].append(parse(draft.source))
    several = [diversity(messages) for messages in sources.values() if len(messages) > 1]
    return sum(several) / len(several) if several else 0.0


def num_lines(file: Path) -> int:
    """Lines of a JSONL file."""
    return file.read_bytes().count(b"\n") if file.exists() else 0
