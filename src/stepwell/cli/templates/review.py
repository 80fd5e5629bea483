"""`stepwell templates review`: approve, reject or edit what passed the check; every decision is kept at once."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from stepwell.cli.templates.needs import check_extra
from stepwell.errors import TemplateError
from stepwell.templates.review import Decision, Draft, Queue, sorted_out


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("review", help="approve what waits in a campaign's folder", description=__doc__)
    parser.add_argument("root", type=Path, metavar="DIR", help="the campaign's folder (runs/NAME)")
    parser.add_argument("--auto-approve", action="store_true", help="approve all that waits")
    parser.add_argument("--list", action="store_true", help="show what waits, and decide nothing")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Go through the queue. Raises TemplateError."""
    check_extra()
    from rich.console import Console  # noqa: PLC0415 - an extra

    checked = sorted(given.root.glob("*-check-*/drafts.jsonl"), key=lambda file: file.stat().st_mtime)
    if not checked:
        raise TemplateError(
            "no campaign got as far as its check here: stepwell campaign run FILE", file=str(given.root)
        )
    drafts = [msgspec.json.decode(line, type=Draft) for line in checked[-1].read_bytes().splitlines()]
    queue = Queue(given.root / "review.jsonl")
    _, waiting = sorted_out(drafts, queue.decisions())
    console = Console()
    if given.auto_approve:
        queue.decide(Decision(draft.id, "approve", "--auto-approve") for draft in waiting)
    for place, draft in enumerate([] if given.auto_approve else waiting, 1):
        console.rule(f"{place} of {len(waiting)}: {draft.name}, {draft.locale}, by {draft.origin}")
        console.print(draft.source, markup=False, highlight=False)
        if given.list:
            continue
        decision = asked(draft)
        if decision is None:
            break
        queue.decide([decision])
    _, left = sorted_out(drafts, queue.decisions())
    console.print(f"{len(drafts) - len(left)} of {len(drafts)} decided")
    return 0


def asked(draft: Draft) -> Decision | None:
    """What a person says of a draft; None: enough for now."""
    while True:
        try:
            word = input("[a]pprove, [r]eject, [e]dit, [q]uit: ").strip().lower()[:1]
            if word == "a":
                return Decision(draft.id, "approve")
            if word == "r":
                return Decision(draft.id, "reject", input("why: "))
            if word == "e":
                return Decision(draft.id, "edit", "edited", input("the message in one line: ").replace("\\n", "\n"))
        except EOFError:
            return None
        if word == "q":
            return None
