"""The sections of `stepwell.toml` for what callers give us to keep: stored answers, examples, files, fine-tuning."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from stepwell.toml import Section

Count = Annotated[int, Meta(ge=1)]
Days = Annotated[float, Meta(gt=0)]
Usd = Annotated[float, Meta(ge=0)]


class Stored(Section, frozen=True):
    """`[stored]`: answers that callers want stored (`store: true`)."""

    path: str = "stepwell-data/stored.db"
    """Empty: nothing is stored, whoever asks for it."""
    keep_days: Days = 30.0
    file_bytes: Count = 1024 * 1024 * 1024
    """Where more would be stored, the tenant that holds most lets its oldest go."""
    flush_ms: Count = 200
    """A kill loses at most the answers of this time."""


class Capture(Section, frozen=True):
    """`[capture]`: questions and answers that are kept to learn from, of tenants who allow it."""

    tenants: Annotated[list[str], Meta(min_length=1)]
    """Whose; without keys the tenant is called `local`."""
    routes: tuple[str, ...] = ()
    """Only these; none named: all."""
    steps: tuple[str, ...] = ()
    """Only what these steps answered; none named: all. Answers of `large` are the teacher's."""
    folder: str = "stepwell-data/captured"
    """Each tenant has a folder of its own in it."""
    licence: str = "internal"
    """What the rows say of who may use them."""
    rows_s: Count = 50
    """No more rows a second are kept, in each worker: the rest is let go."""
    flush_ms: Count = 1000
    """A kill loses at most the rows of this time."""
    shard_rows: Count = 5000
    """A file is ready to be read after so many rows,"""
    shard_s: Count = 300
    """or after so long, or when the gateway stops."""
    keep_days: Days = 90.0
    tenant_bytes: Count = 1024 * 1024 * 1024
    """Where a tenant's files pass this, the oldest are let go."""


class FineTuning(Section, frozen=True):
    """`[fine_tuning]`: /v1/files and /v1/fine_tuning/jobs. Without it there are none."""

    models: Annotated[dict[str, str], Meta(min_length=1)]
    """What a job may name as its `model`, each with the recipe (a file) that trains it."""
    teachers: dict[str, str] = msgspec.field(default_factory=dict)
    """What a job may name as its teacher, each with a file that has a `[teacher]` section."""
    tenants: tuple[str, ...] = ()
    """Who may; none named: every tenant."""
    folder: str = "stepwell-data/fine-tuning"
    python: str = ""
    """The interpreter that trains, of an environment with the extra `train`; empty: the gateway's own."""
    max_file_bytes: Count = 512 * 1024 * 1024
    tenant_bytes: Count = 8 * 1024 * 1024 * 1024
    """Of all files of one tenant."""
    max_waiting: Count = 16
    """Jobs of one tenant that wait or run."""
    max_steps: Count = 20_000
    """Steps that the `n_epochs` of one job may come to."""
    budget_usd: Usd = 0.0
    """What one job may pay its teacher."""
    licence: str = "other"
    """What the rows of uploaded files say of who may use them."""
