"""`stepwell campaign run FILE`: from a catalogue to a published, signed bundle, resumable at any point."""

from __future__ import annotations

import argparse
from pathlib import Path

from stepwell.cli.templates.needs import check_extra


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser("campaign", help="run a campaign: write, check, review, compile, publish")
    inner = parser.add_subparsers(required=True, metavar="COMMAND")
    run_it = inner.add_parser("run", help="run a campaign file, or go on where it stopped", description=__doc__)
    run_it.add_argument("file", type=Path, metavar="FILE", help="a campaign.toml")
    run_it.add_argument(
        "--root", type=Path, metavar="DIR", help="where stages and answers are kept (default: runs/NAME)"
    )
    run_it.add_argument("--auto-approve", action="store_true", help="let every text that passes the check go live")
    run_it.add_argument("--budget-usd", type=float, metavar="USD", help="what the teacher may cost, all runs together")
    run_it.add_argument(
        "--max-calls", type=int, metavar="N", help="how often the teacher may be asked, all runs together"
    )
    run_it.add_argument("--skip-bad", type=Path, metavar="FILE", help="leave wrong catalogue rows out, into this file")
    run_it.add_argument("--no-publish", action="store_true", help="stop at the compiled bundles")
    run_it.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Run or go on. Raises StepwellError."""
    check_extra()
    from stepwell.campaigns import file, templates  # noqa: PLC0415 - needs the extra
    from stepwell.campaigns.run import run as run_stages  # noqa: PLC0415
    from stepwell.campaigns.sources import Allowed, Job  # noqa: PLC0415
    from stepwell.cli.templates.told import campaign_progress, summary  # noqa: PLC0415
    from stepwell.engines.answers import Budget  # noqa: PLC0415
    from stepwell.signing import signing_key  # noqa: PLC0415

    campaign = file.load(given.file)
    if not given.no_publish:
        signing_key(campaign.file.publish.key_env)  # told before the work, not after it
    root = given.root or Path("runs") / campaign.schema.name
    with campaign_progress() as (watch, progress):
        budget = Budget(given.budget_usd, given.max_calls)
        job = Job(campaign, root, Allowed(budget, given.auto_approve, given.skip_bad, progress))
        folders = run_stages(templates.stages(job), root, watch)
    manifest = None if given.no_publish else templates.published(campaign, folders["compile"])
    summary(root, folders, manifest)
    return 0
