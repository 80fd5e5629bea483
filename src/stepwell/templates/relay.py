"""The house writer as a source: a small model says facts in a sentence, and the facts are taken out again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from msgspec import Struct

from stepwell.engines.asking import ask
from stepwell.protocols import Engine
from stepwell.templates.harvest import Pair, harvest
from stepwell.templates.prompt import Task, answered_text
from stepwell.templates.samples import combinations_of
from stepwell.templates.schema import Schema, Values
from stepwell.templates.structure import parse


class Relay(Struct, frozen=True):
    """The model, and how it calls the slots (`rating` → `customer rating`), in its own order."""

    engine: Engine
    attributes: Mapping[str, str]
    num_samples: int = 24
    """Sentences asked for a structure."""


async def relayed(
    relay: Relay, schema: Schema, tasks: Sequence[Task], watch: Callable[[int], None] = lambda _: None
) -> dict[Task, list[str]]:
    """Sources for the tasks whose slots the model knows; it speaks English only.

    `watch` is told after each task how often the model has been asked so far.
    """
    written, num_asked = {}, 0
    for task in tasks:
        listed = parse(task.name, schema)
        if listed and set(listed) <= set(relay.attributes) and task.locale.partition("-")[0] == "en":
            pairs = [await _said(relay, values) for values in _samples(relay, schema, listed, task.locale)]
            num_asked += len(pairs)
            written[task] = harvest(schema, pairs).get(task.name, [])
        watch(num_asked)
    return written


def _samples(relay: Relay, schema: Schema, listed: Mapping[str, str | None], locale: str) -> list[Values]:
    """Values to be said, spread over all that there are."""
    free = [slot for slot, value in listed.items() if value is None]
    rows = list(islice(combinations_of(schema, free, locale), 10_000))
    step = max(1, len(rows) // relay.num_samples)
    fixed: Values = {slot: value for slot, value in listed.items() if value is not None}
    return [row | fixed for row in rows[::step][: relay.num_samples]]


async def _said(relay: Relay, values: Values) -> Pair:
    facts = ", ".join(f"{name}[{values[slot]}]" for slot, name in relay.attributes.items() if slot in values)
    body = json.dumps(
        {"model": relay.engine.name, "temperature": 0, "messages": [{"role": "user", "content": facts}]},
        ensure_ascii=False,
    ).encode()
    reply, _ = await ask(relay.engine, relay.engine.name, facts, body)
    return values, answered_text(reply)
