"""Who writes a campaign's texts: a teacher, the house writer, or its own people's sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.campaigns.file import Campaign
from stepwell.config import EmbeddedEngine
from stepwell.engines.answers import Answers, Budget, Spent
from stepwell.engines.asking import Teacher
from stepwell.engines.batches import Batches
from stepwell.engines.bearer import bearer, secret
from stepwell.engines.embedded import Embedded
from stepwell.engines.http import Http
from stepwell.errors import ConfigError, TemplateError
from stepwell.ledger import prices
from stepwell.templates.harvest import Pair, harvest
from stepwell.templates.prompt import MAX_OUTPUT_TOKENS, Brief, Task
from stepwell.templates.relay import Relay, relayed
from stepwell.templates.write import write

Progress = Callable[[int, int, Spent], None]
"""Told how many structures are written, of how many, and what was spent."""
Written = Mapping[Task, Sequence[str]]


class Allowed(Struct, frozen=True):
    """What whoever runs the campaign allows."""

    budget: Budget = Budget()
    auto_approve: bool = False
    skip_bad: Path | None = None
    progress: Progress = lambda _done, _all, _spent: None


class Job(Struct, frozen=True):
    """A campaign, where its work is kept, and what is allowed."""

    campaign: Campaign
    root: Path
    allowed: Allowed = Allowed()


class Example(Struct, frozen=True, forbid_unknown_fields=True):
    """A sentence of the campaign's own people, with what it says."""

    values: dict[str, str | int | float]
    text: str


def written(job: Job, source: str, tasks: Sequence[Task]) -> Written:
    """What one source writes. Raises ConfigError, TemplateError, EngineError; BudgetReached before one is passed."""
    examples = list(pairs(job.campaign))
    if source == "harvest":
        found = harvest(job.campaign.schema, examples)
        first = job.campaign.schema.locales[0]
        return {task: found.get(task.name, []) for task in tasks if task.locale == first}
    return asyncio.run(taught(job, tasks, examples) if source == "teacher" else told(job, tasks))


async def taught(job: Job, tasks: Sequence[Task], examples: Sequence[Pair]) -> Written:
    """What the teacher writes."""
    section, plan = job.campaign.file.teacher, job.campaign.file.campaign
    if section is None:
        raise ConfigError("no [teacher]")
    price = prices.price_of(prices.load(), section.price or section.model)
    key = secret(section.key_env, field="teacher.key_env")
    engine = Http("teacher", section.engine, bearer(key))
    batches = Batches(section.url, key) if section.batches else None
    brief = Brief(plan.tone, tuple(text for _, text in examples), plan.num_variants)
    done = iter(range(1, len(tasks) + 1))
    try:
        return await write(
            Teacher(engine, section.model, price.of, MAX_OUTPUT_TOKENS, batches),
            job.campaign.schema,
            tasks,
            brief,
            answers=Answers(job.root / "answers"),
            budget=job.allowed.budget,
            watch=lambda _, spent: job.allowed.progress(next(done), len(tasks), spent),
        )
    finally:
        await engine.close()


async def told(job: Job, tasks: Sequence[Task]) -> Written:
    """What the house writer writes."""
    section = job.campaign.file.writer
    if section is None:
        raise ConfigError("no [writer]")
    # one thread: they wait for each other by spinning, and one sentence at a time gives little to share
    engine = Embedded("writer", EmbeddedEngine(path=str(job.campaign.path(section.path)), threads=1))
    done = iter(range(1, len(tasks) + 1))
    try:
        relay = Relay(engine, section.attributes)
        return await relayed(
            relay, job.campaign.schema, tasks, lambda num: job.allowed.progress(next(done), len(tasks), Spent(num))
        )
    finally:
        await engine.close()


def pairs(campaign: Campaign) -> Iterator[Pair]:
    """The campaign's own sentences. Raises TemplateError with file and line."""
    name = campaign.file.campaign.examples
    for number, line in enumerate(bytes_of(campaign, name).splitlines(), 1):
        if line.strip():
            try:
                example = msgspec.json.decode(line, type=Example)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise TemplateError(f"no example: {error}", file=str(campaign.path(name)), line=number) from error
            yield example.values, example.text


def bytes_of(campaign: Campaign, name: str) -> bytes:
    """A file of the campaign; nothing where none is named. Raises ConfigError."""
    if not name:
        return b""
    try:
        return campaign.path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{campaign.path(name)} cannot be read: {error.strerror}") from error
