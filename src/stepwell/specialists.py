"""The part of the composition root for specialists: their steps, their trials, and what a route asks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from stepwell.cache.exact import Exact
from stepwell.config import AnyEngine, Config, EmbeddedEngine, HttpEngine
from stepwell.config import Specialist as Section
from stepwell.errors import ConfigError
from stepwell.ledger import prices
from stepwell.protocols import Engine
from stepwell.quality.files import sha256_of
from stepwell.quality.judge import Embed
from stepwell.quality.judge_model import Ask
from stepwell.quality.judges import named
from stepwell.quality.promise import Promise
from stepwell.quality.promotion import Promotion
from stepwell.quality.sequential import bounds
from stepwell.quality.verify import verifier
from stepwell.signing import trusted
from stepwell.steps.descend import Rule
from stepwell.steps.judging import Worth, asking
from stepwell.steps.occupied import Occupied
from stepwell.steps.specialist import Price, Specialist
from stepwell.steps.stand import LOOK_S, Stand
from stepwell.steps.trial import Compare, Trial, by_judge, by_verifier, reserved, ruled
from stepwell.types import Settled, Usage

MOST_WAITING = 1000
HOUR_S = 3600.0
BY_VERIFIER = "verify:"
STAGE = "stepwell_specialist_stage"
AUDITS = "stepwell_specialist_audits_total"
DIFFERENCE = "stepwell_specialist_difference"
METRICS = {
    STAGE: ("gauge", "Where each specialist stands."),
    AUDITS: ("counter", "Audits of all processes: who was right."),
    DIFFERENCE: ("gauge", "Share of right answers, less the large model's: bounds that hold at any time."),
}


class Specialists(Struct, frozen=True):
    """All specialists of a well, by name."""

    steps: Mapping[str, Specialist]
    trials: Mapping[str, Trial]
    promise: Promise | None = None
    """What rules on other uncertain proposals, where there are any."""
    worker: str = ""

    def of(self, route: str) -> tuple[Specialist, ...]:
        """The steps of one route, in the order of the file."""
        return tuple(each for each in self.steps.values() if route in each.section.routes)

    def rule(self, base: Rule) -> Rule:
        """The promise with the trials in it."""
        return ruled(self.trials, base)

    def settle(self, settled: Settled) -> None:
        """Note what is to be compared."""
        for trial in self.trials.values():
            trial.settle(settled)

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What goes on beside requests: compare, let go of what a roll-back made worthless, share the budget."""
        trials = (each for trial in self.trials.values() for each in (trial.run(), trial.watch()))
        return (*trials, self.share_budget())

    async def share_budget(self) -> None:
        """Tell the promise what is not left for others, until cancelled."""
        while self.promise is not None:
            self.promise.reserved = reserved(self.trials.values())
            await asyncio.sleep(LOOK_S)

    def metrics(self) -> bytes:
        """How they stand, for Prometheus."""
        lines = []
        for name, (kind, about) in METRICS.items():
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            lines += [line for title, step in self.steps.items() for line in self.samples(name, title, step.stand)]
        return ("\n".join(lines) + "\n").encode()

    def samples(self, name: str, title: str, stand: Stand) -> list[str]:
        """The samples of one metric of one specialist."""
        stage, _ = stand.stage()
        counts, alpha = stand.now.counts, stand.now.alpha
        about = f'specialist="{title}"' + (f',worker="{self.worker}"' if self.worker else "")
        if name == STAGE:
            return [f'{name}{{{about},stage="{stage or "none"}"}} 1']
        if name == AUDITS:
            told = {"student": counts.gains, "large": counts.losses, "both or none": counts.ties}
            return [f'{name}{{{about},right="{who}"}} {num}' for who, num in told.items()]
        low, high = bounds(counts, alpha) if alpha else (-1.0, 1.0)
        return [f'{name}{{{about},bound="low"}} {low}', f'{name}{{{about},bound="high"}} {high}']

    def close(self) -> None:
        """Let go of the promotions' files."""
        for step in self.steps.values():
            step.stand.promotion.close()


def compose(
    config: Config,
    exact: Exact,
    engines: Mapping[str, Engine],
    worth: Worth,
    *,
    embed: Embed | None,
    promise: Promise | None,
    worker: str,
) -> Specialists:
    """Put them together. `embed`: for judges that need vectors; `promise`: whose budget they share.

    Raises ConfigError, and DistillError where a model's file cannot be read.
    """
    occupied = {
        section.engine: Occupied(threads(config.engines[section.engine])) for section in config.specialists.values()
    }
    steps, trials = {}, {}
    for name, section in config.specialists.items():
        at = f"specialists.{name}"
        stand = Stand(
            Promotion(Path(section.promotion)),
            trusted(section.public_keys),
            model=model_of(config.engines[section.engine]),
            error=config.promise.error,
        )
        steps[name] = Specialist(
            name,
            section,
            engines[section.engine],
            stand,
            verify=verifier(section.verify, field=f"{at}.verify"),
            price=price(config, section, f"{at}.price"),
            occupied=occupied[section.engine],
            worth=worth,
        )
        trials[name] = Trial(
            steps[name],
            compare(section.judge, embed=embed, ask=asking(config, engines, worth), field=f"{at}.judge"),
            audit=config.promise.audit,
            max_waiting=MOST_WAITING,
            chance=Random(int.from_bytes(os.urandom(8))),  # noqa: S311 - samples, no secrets
            forget=partial(exact.tags.bump, f"engine:{section.engine}", "rolled back"),
        )
    return Specialists(steps, trials, promise, worker)


def compare(judge: str, *, embed: Embed | None, ask: Ask | None, field: str) -> Compare:
    """How audits compare. Raises ConfigError."""
    if judge.startswith(BY_VERIFIER):
        return by_verifier(verifier(judge.removeprefix(BY_VERIFIER), field=field))
    try:
        return by_judge(named(judge, embed=embed, ask=ask))
    except ConfigError as error:
        raise ConfigError(error.what, field=field) from error


def model_of(engine: AnyEngine) -> str:
    """What an engine runs, as the gate names it: its file's hash, or a server's name for it. Raises DistillError."""
    match engine:
        case EmbeddedEngine():
            return sha256_of(Path(engine.path))
        case HttpEngine():
            return engine.model
        case _:
            return engine.reply


def threads(engine: AnyEngine) -> int:
    """How many threads of this machine an engine keeps busy."""
    return engine.threads if isinstance(engine, EmbeddedEngine) else 0


def price(config: Config, section: Section, field: str) -> Price:
    """What a try costs: its tokens at a server's price, else the processor's time. Raises ConfigError."""
    table = prices.load(config.ledger.prices)
    usd_s = table.cpu_hour_usd / HOUR_S
    if not section.price:
        return lambda _, seconds: seconds * usd_s
    try:
        row = prices.price_of(table, section.price)
    except ConfigError as error:
        raise ConfigError(str(error), field=field) from error

    def paid(usage: Usage | None, _seconds: float) -> float:
        return row.of(usage)

    return paid
