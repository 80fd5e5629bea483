"""What a search found, for people: the README of its folder."""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.quantize.frontier import Difference, Point
from stepwell.quantize.search import Found, Plan

HASH_CHARS = 16
PICTURE = "frontier.svg"


def card(plan: Plan, found: Found, file: str) -> str:
    """README.md: verdict, picture, table, rule, splits; `file` is the winner's name in the folder."""
    parts = (heading(plan, found, file), frontier(found), rule(plan, found), splits(plan), again(plan, found, file))
    return "\n".join(line for part in parts for line in part) + "\n"


def heading(plan: Plan, found: Found, file: str) -> Iterator[str]:
    """The verdict."""
    yield from (f"# {plan.model}, quantized", "", verdict(plan, found))
    if found.winner is not None and found.status == "found":
        won = found.winner
        yield from ("", f"`{file}`: {won.num_bytes:,} bytes, sha256 `{won.sha256}`, {won.bits:.2f} bits a weight.")
        yield from (
            "",
            "| gate split | file | parent, 16 bits | difference, bounds | margin |",
            "|---|---|---|---|---|",
        )
        yield from (f"| {row(each)} |" for each in won.gated)


def verdict(plan: Plan, found: Found) -> str:
    """In one sentence."""
    told = f"**{found.status}**: {found.why}."
    if found.winner is None or found.status != "found":
        return told
    share = found.winner.num_bytes / found.parent.num_bytes
    return f"{told} {share:.1%} of the 16-bit file's bytes, within {plan.margins}."


def row(told: Difference) -> str:
    """A metric's cells."""
    scale, unit = (1.0, "") if told.metric == "bleu" else (100.0, " %")
    cells = (f"{scale * told.score:.2f}{unit}", f"{scale * told.parent:.2f}{unit}", bounds(told))
    return " | ".join([told.metric, *cells, f"{scale * told.margin:g}{unit}"])


def bounds(told: Difference) -> str:
    """The interval of a difference."""
    scale = 1.0 if told.metric == "bleu" else 100.0
    return f"{scale * told.low:+.2f} to {scale * told.high:+.2f}"


def frontier(found: Found) -> Iterator[str]:
    """The picture, and all that was asked all search rows."""
    yield from ("", "## Frontier", "", f"![score against size, time and cost]({PICTURE})", "")
    yield "Search split; differences to the parent with their bounds. Times are CPU time of one core of the machine"
    yield "that searched, all files in turns."
    yield from (
        "",
        "| | bytes | bits | KL | difference, bounds | ms a token | answers a s | USD a 1,000 |",
        "|" + "---|" * 8,
    )
    most = max((each.num_searched for each in found.points), default=0)
    shown = [each for each in found.points if each.num_searched == most and each.searched]
    for each in [*shown, found.parent]:
        won = found.winner is not None and each.name == found.winner.name
        yield f"| {f'**{each.name}**' if won else each.name} | {' | '.join(cells(each))} |"


def cells(point: Point) -> Iterator[str]:
    """A point's figures."""
    yield f"{point.num_bytes:,}"
    yield f"{point.bits:.2f}"
    yield "" if point.kl is None else f"{point.kl:.2g}"
    yield "; ".join(f"{each.metric} {bounds(each)}" for each in point.searched)
    told = point.speed
    yield from (
        ("", "", "")
        if told is None
        else (
            f"{told.ms_per_token:.2f}",
            f"{told.requests_per_s:.0f}",
            f"{told.usd_per_1k:.6f}",
        )
    )


def rule(plan: Plan, found: Found) -> Iterator[str]:
    """The rule, and what was tested by it."""
    yield from ("", "## Rule", "", f"Stated before (`plan.json`, sha256 `{plan.sha256[:HASH_CHARS]}`): {plan.rule}", "")
    yield f"Target: {plan.target}. The gate tested: {', '.join(found.tested) or 'nothing'}."
    if found.left_out:
        yield f"Left out for want of time: {', '.join(found.left_out)}."


def splits(plan: Plan) -> Iterator[str]:
    """What it was judged on."""
    yield from ("", "## Task", "", f"{plan.task}, scored by {plan.scorer}; the splits share no prompt.", "")
    yield from ("| split | rows | sha256 |", "|---|---|---|")
    yield from (f"| {name} | {plan.num_rows[name]:,} | `{told[:HASH_CHARS]}` |" for name, told in plan.splits.items())


def again(plan: Plan, found: Found, file: str) -> Iterator[str]:
    """How to make it again."""
    yield from ("", "## Recipe", "")
    if found.winner is not None and found.winner.trained:
        yield f"`recipe.json` names the formats; the weights of `{file}` were trained for them, from the parent's"
        yield f"(weights, configuration and tokenizer sha256 `{plan.model_sha256[:HASH_CHARS]}`): keep the file."
        return
    yield f"`recipe.json`; `stepwell quantize apply` makes `{file}` of it and the parent"
    yield f"(weights, configuration and tokenizer sha256 `{plan.model_sha256[:HASH_CHARS]}`) again."
