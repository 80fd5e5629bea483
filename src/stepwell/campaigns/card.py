"""Where a specialist comes from: provenance.json for programs, and a model card in Hugging Face's form for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.campaigns.cost import NUM_ANSWERS, Cost, Economy
from stepwell.quality.verdict import Report
from stepwell.quantize.phases import Phase, table

REVISION_CHARS = 16
EXAMPLES = 3


class Data(Struct, frozen=True, kw_only=True):
    """What was learned from, and what was kept away from it."""

    sha256: str
    rows: int
    dev: int
    held_out: int
    held_out_sha256: str
    sources: Mapping[str, int]
    licences: Mapping[str, int]
    refused: Mapping[str, int]
    """Rows that were not learned from, by the reason."""


class ModelFile(Struct, frozen=True):
    """A file that can be served."""

    name: str
    sha256: str
    num_bytes: int


class Made(Struct, frozen=True, kw_only=True):
    """All that is known of a specialist."""

    name: str
    about: str
    licence: str
    language: str
    stepwell: str
    recipe: str
    """The file, as it was."""
    data: Data
    teacher: str
    """Name and revision; empty where there was none."""
    parameters: int
    training: Mapping[str, Any]
    """What the training run says of itself."""
    file: ModelFile | None
    phases: tuple[Phase, ...] = ()
    """What quantization brought, by when the student met its format."""
    gate: Report | None
    costs: Mapping[str, Cost]
    economy: Economy | None
    examples: tuple[tuple[str, str], ...] = ()
    """Held-out prompts and what the file says to them."""


def provenance(made: Made) -> bytes:
    """provenance.json."""
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"


def card(made: Made) -> str:
    """README.md."""
    parts = (heading, examples, verdict, data, training, quantization, costs, recipe)
    return "\n".join(line for part in parts for line in part(made)) + "\n"


def heading(made: Made) -> Iterator[str]:
    """Metadata and what it is."""
    yield from ("---", f"license: {made.licence}", f"language: {made.language}", "pipeline_tag: text-generation", "---")
    yield from ("", f"# {made.name}", "")
    if made.about:
        yield from (made.about, "")
    yield f"A causal language model of {made.parameters:,} parameters, made by `stepwell distill run` {made.stepwell}."
    if made.file is not None:
        yield f"Serve `{made.file.name}` ({made.file.num_bytes:,} bytes, sha256 `{made.file.sha256}`)."


def examples(made: Made) -> Iterator[str]:
    """What it says to prompts that it never saw."""
    if made.examples:
        yield from ("", "```")
        for prompt, text in made.examples[:EXAMPLES]:
            yield from (one_line(prompt), f"-> {one_line(text)}")
        yield "```"


def verdict(made: Made) -> Iterator[str]:
    """What the gate found, slice by slice."""
    yield from ("", "## Gate", "")
    if made.gate is None:
        yield "Not judged: the recipe has no `[gate]`."
        return
    yield f"**{made.gate.decision}**: {made.gate.reason}. Judged {made.gate.at} by a plan stated before."
    yield from ("", "| slice | metric | found | student | teacher | difference, bounds | margin | pairs (needed) |")
    yield "|---|---|---|---|---|---|---|---|"
    for each in made.gate.findings:
        shown = "{:.2f}".format if each.metric == "bleu" else "{:.2%}".format
        pairs = f"{each.num_pairs:,} ({each.num_needed:,})"
        figures = (shown(each.student), shown(each.teacher), f"{shown(each.low)} to {shown(each.high)}")
        looked = figures if each.found != "cannot tell" else ("", "", "")
        cells = (each.slice, each.metric, each.found, *looked, shown(each.margin), pairs)
        yield f"| {' | '.join(cells)} |"
    if made.gate.num_unanswered:
        yield from (
            "",
            f"{made.gate.num_unanswered:,} prompts have no answer of the teacher: it counts as wrong there.",
        )


def data(made: Made) -> Iterator[str]:
    """Rows, their sources and licences."""
    told = made.data
    yield from ("", "## Data", "")
    yield f"{told.rows:,} rows to learn from (sha256 `{told.sha256[:REVISION_CHARS]}`), {told.dev:,} to choose by,"
    yield f"{told.held_out:,} held out for the gate (sha256 `{told.held_out_sha256[:REVISION_CHARS]}`)."
    yield from ("", "| | rows |", "|---|---|")
    for what, counts in (("source", told.sources), ("licence", told.licences), ("refused", told.refused)):
        for name, num in sorted(counts.items(), key=lambda each: -each[1]):
            yield f"| {what}: {name} | {num:,} |"
    yield from ("", f"Teacher: {made.teacher or 'none'}.")


def training(made: Made) -> Iterator[str]:
    """How it learned."""
    yield from ("", "## Training", "", "| | |", "|---|---|")
    for name, value in made.training.items():
        if value not in ("", {}):
            yield f"| {name} | {shown(value)} |"
    yield from ("", "![loss over the steps](loss.svg)")


def quantization(made: Made) -> Iterator[str]:
    """What the file's numbers lost, and what it took."""
    if made.phases:
        yield from ("", "## Quantization", "", *table(made.phases))
        yield from ("", "![loss against CPU-minutes](phases.svg)")


def costs(made: Made) -> Iterator[str]:
    """What each stage took, and after how many answers it has paid."""
    yield from ("", "## Cost", "", "| stage | CPU s | wall s | paid calls | USD |", "|---|---|---|---|---|")
    for name, cost in [*made.costs.items(), ("all", sum(made.costs.values(), Cost()))]:
        yield f"| {name} | {cost.cpu_s:,.1f} | {cost.wall_s:,.1f} | {cost.calls:,} | {cost.usd:.6f} |"
    if made.economy is None:
        return
    told = made.economy
    yield from (
        "",
        f"{told.usd_per_1k_answers:.6f} USD a thousand answers, the making ({told.making_usd:.6f} USD) spread over",
    )
    yield f"{NUM_ANSWERS:,}; the large model asks {1000 * told.large_answer_usd:.6f}."
    yield (
        "It never pays: the large model is cheaper."
        if told.break_even_answers is None
        else f"It has paid for itself after {told.break_even_answers:,} answers."
    )


def recipe(made: Made) -> Iterator[str]:
    """The file that made it."""
    yield from ("", "## Recipe", "", "```toml", made.recipe.rstrip(), "```")


def shown(value: object) -> str:
    """A figure as people read it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(each)}" for name, each in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def one_line(text: str) -> str:
    """A text within a block of code."""
    return " ".join(text.replace("```", "'''").split())
