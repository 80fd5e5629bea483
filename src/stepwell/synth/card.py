"""A data set's card in Hugging Face's form: what is in it, where from, under which licence, what it cost, what died."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, structs

from stepwell.synth.picture import picture
from stepwell.synth.row import Row, lacks
from stepwell.synth.run import FUNNEL, RAW, REJECTED, ROWS
from stepwell.synth.sift import Sifted

FILE, PICTURE = "README.md", "funnel.svg"
MAX_EXAMPLES, MAX_SHOWN, MAX_REASONS = 3, 400, 3
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class Facts(Struct, frozen=True):
    """What a card counts."""

    rows: int
    sources: Mapping[str, int]
    licences: Mapping[str, int]
    generators: Mapping[str, int]
    generations: Mapping[int, int]
    splits: Mapping[str, int]
    real_share: float
    provenance_share: float
    usd: float
    """Paid for every row that was made, those that died included, and for looking at them."""
    tokens_in: int
    tokens_out: int


def facts(done: Sifted) -> Facts:
    """Count a data set."""
    rows = done.rows
    paid: Sequence[Row] = [*rows, *done.dead]
    return Facts(
        rows=len(rows),
        sources=counted(row.source for row in rows),
        licences=counted(row.licence for row in rows),
        generators=counted(f"{row.generator} ({row.generator_rev})" if row.generator else "people" for row in rows),
        generations=dict(sorted(Counter(row.generation for row in rows).items())),
        splits=counted(row.split for row in rows),
        real_share=sum(row.is_real for row in rows) / len(rows),
        provenance_share=sum(not lacks(row) for row in rows) / len(rows),
        usd=sum(row.usd for row in paid) + sum(passed.usd for passed in done.funnel),
        tokens_in=sum(row.tokens_in for row in paid),
        tokens_out=sum(row.tokens_out for row in paid),
    )


def counted(values: Iterable[str]) -> dict[str, int]:
    """How often each is there, most often first."""
    return dict(Counter(values).most_common())


def write(done: Sifted, out: Path, *, name: str, recipe: str) -> Path:
    """Write the card and its picture into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / PICTURE).write_text(picture(done.funnel), encoding="utf-8")
    (out / FILE).write_text("\n".join(card(done, name, recipe)), encoding="utf-8")
    return out / FILE


def card(done: Sifted, name: str, recipe: str) -> Iterator[str]:
    """The card, line by line."""
    told = facts(done)
    yield from header(told, name)
    yield f"# {name}\n"
    yield f"{told.rows:,} rows, {told.real_share:.1%} of them from people; {told.provenance_share:.1%} carry their"
    yield f"whole provenance. Made by `stepwell synth` for {told.usd:.4f} USD"
    yield f"({told.tokens_in:,} tokens in, {told.tokens_out:,} out, those of rows that died included).\n"
    yield f"- `{ROWS}/`: the rows. `{REJECTED}/`: those that died, with `rejected_by` and `reason`. `{FUNNEL}`: counts."
    yield f"- `{RAW}/`, in the folder of the stage before: all rows as they were made.\n"
    titles = ("sources", "licences", "generators", "generations", "splits")
    yield from table(("what", "which", "rows"), counts_of(told, titles))
    yield "\n## What died of what\n"
    yield f"![The funnel]({PICTURE})\n"
    yield from table(("filter", "before", "died", "CPU s", "most often"), list(deaths(done)))
    yield "\n## Examples\n"
    yield from examples(done.rows)
    yield "\n## Columns\n"
    yield "As TRL names them (`prompt`, `completion`, `messages`). `slots`, `params` and `filters` are JSON text.\n"
    yield ", ".join(f"`{each}`" for each in Row.__struct_fields__) + "\n"
    yield "## Recipe\n"
    yield f"```toml\n{recipe.strip()}\n```\n"


def header(told: Facts, name: str) -> Iterator[str]:
    """The metadata that a hub reads: YAML, of which JSON is a part."""
    licence = next(iter(told.licences)) if len(told.licences) == 1 else "other"
    size = next((size for most, size in SIZES if told.rows < most), "n>1M")
    yield "---"
    yield f"pretty_name: {json.dumps(name)}"
    yield f"license: {json.dumps(licence.lower().replace(' ', '-'))}"
    yield f'size_categories: ["{size}"]'
    yield f'configs: [{{"config_name": "default", "data_files": "{ROWS}/*.parquet"}}]'
    yield "---\n"


def counts_of(told: Facts, titles: Sequence[str]) -> list[tuple[str, ...]]:
    """One line for each value."""
    return [
        (title if not at else "", str(value), f"{num:,}")
        for title in titles
        for at, (value, num) in enumerate(getattr(told, title).items())
    ]


def deaths(done: Sifted) -> Iterator[tuple[str, ...]]:
    """A line a filter, with the commonest reasons."""
    for passed in done.funnel:
        why = Counter(row.reason for row in done.dead if row.rejected_by == passed.filter)
        most = "; ".join(f"{reason} ({num})" if num > 1 else reason for reason, num in why.most_common(MAX_REASONS))
        yield (passed.filter, f"{passed.before:,}", f"{passed.died:,}", f"{passed.cpu_s:.2f}", most)


def table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown."""
    yield "| " + " | ".join(titles) + " |"
    yield "|" + "---|" * len(titles)
    for line in lines:
        yield "| " + " | ".join(cell(each) for each in line) + " |"


def cell(text: str) -> str:
    """A text that stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def examples(rows: Sequence[Row]) -> Iterator[str]:
    """One row of each source, so that a reader sees what they are."""
    first = {row.source: row for row in reversed(rows)}
    for source, row in list(first.items())[:MAX_EXAMPLES]:
        yield f"{source}:\n"
        yield quoted(row.prompt)
        yield f"\n{quoted(row.completion or '(not completed yet)')}\n"


def quoted(text: str) -> str:
    """A text as a block that no text in it can end."""
    return "\n".join(f"    {line}" for line in text[:MAX_SHOWN].splitlines())


def as_json(done: Sifted) -> dict[str, object]:
    """The card's counts for programs."""
    return {**structs.asdict(facts(done)), "funnel": [structs.asdict(each) for each in done.funnel]}
