"""Fine-tuning jobs in the database, with all that happened to each. What runs goes by this file alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from secrets import token_hex
from time import time
from typing import Any, Literal

import msgspec
from msgspec import Struct

from stepwell.gateway.listing import Window

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
ACTIVE = ("queued", "running", "paused")
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, job TEXT NOT NULL,
    status TEXT NOT NULL, training_file TEXT NOT NULL, validation_file TEXT, metadata TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, read_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_tenant ON jobs (tenant, number);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, number);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL, kind TEXT NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_job ON events (job, kind, number);
"""
Event = dict[str, Any]
EVENT, CHECKPOINT = "event", "checkpoint"
NOTHING: Mapping[str, Any] = {}
LATELY_S = 86_400.0
"""Runs of this time count where it is decided whose turn is next."""

encode = msgspec.json.Encoder().encode


class Failure(Struct, frozen=True):
    """Why a job failed, as OpenAI tells it."""

    code: str
    message: str
    param: str | None = None


class Job(Struct, frozen=True, kw_only=True):
    """What was asked for and what came of it; the columns beside it are what one looks for."""

    id: str
    tenant: str
    model: str
    method: str
    teacher: str = ""
    suffix: str = ""
    seed: int
    hyperparameters: dict[str, Any]
    training_file: str
    validation_file: str | None = None
    metadata: dict[str, str] = {}
    created_s: float
    started_s: float | None = None
    finished_s: float | None = None
    error: Failure | None = None
    fine_tuned_model: str | None = None
    result_files: tuple[str, ...] = ()
    tokens: int | None = None
    gate: dict[str, Any] = {}
    """What the gate said, and where the files lie that may be served by its leave."""


class Standing(Struct, frozen=True):
    """A job and where it stands."""

    job: Job
    status: Status
    tries: int = 0
    read_bytes: int = 0
    """How much of its output has become events."""


decode_job = msgspec.json.Decoder(Job).decode
decode = msgspec.json.Decoder().decode
SELECT = "SELECT job, status, tries, read_bytes FROM jobs"


def insert(database: sqlite3.Connection, job: Job) -> None:
    """Put a job into the line."""
    database.execute(
        "INSERT INTO jobs (id, tenant, job, status, training_file, validation_file, metadata) VALUES (?,?,?,?,?,?,?)",
        (
            job.id,
            job.tenant,
            encode(job).decode(),
            "queued",
            job.training_file,
            job.validation_file,
            encode(job.metadata).decode(),
        ),
    )
    note(database, job.id, [event("Created fine-tuning job"), event("Files validated, job queued")])


def one(database: sqlite3.Connection, tenant: str, name: str) -> Standing | None:
    """A job, if this tenant has it."""
    return standing(database.execute(f"{SELECT} WHERE tenant = ? AND id = ?", (tenant, name)).fetchone())


def named(database: sqlite3.Connection, name: str) -> Standing | None:
    """A job of any tenant: for what runs it."""
    return standing(database.execute(f"{SELECT} WHERE id = ?", (name,)).fetchone())


def next_to_run(database: sqlite3.Connection) -> Standing | None:
    """The job that is running; else of those in the line the first of the tenant with the fewest runs lately."""
    runs = """
        SELECT count(*) FROM jobs AS run
        WHERE run.tenant = jobs.tenant AND run.id != jobs.id AND json_extract(run.job, '$.started_s') > ?
    """
    order = f"status = 'queued', ({runs}), number"
    where = "status IN ('running', 'queued')"
    found = database.execute(f"{SELECT} WHERE {where} ORDER BY {order} LIMIT 1", (time() - LATELY_S,))
    return standing(found.fetchone())


def standing(row: Sequence[Any] | None) -> Standing | None:
    """A row as a value."""
    return None if row is None else Standing(decode_job(row[0]), *row[1:])


def page(database: sqlite3.Connection, tenant: str, wanted: Window, pairs: Mapping[str, str]) -> list[Standing] | None:
    """One job more than is wanted; None where `after` is not one of them."""
    where, values = "tenant = ?", [tenant]
    if wanted.after:
        last = database.execute("SELECT number FROM jobs WHERE tenant = ? AND id = ?", (tenant, wanted.after))
        number = last.fetchone()
        if number is None:
            return None
        where += f" AND number {wanted.sign} ?"
        values.append(number[0])
    for name, value in pairs.items():
        where += " AND EXISTS (SELECT 1 FROM json_each(jobs.metadata) WHERE key = ? AND value = ?)"
        values += [name, value]
    order = f"ORDER BY number {wanted.order} LIMIT {wanted.limit + 1}"
    found = [standing(row) for row in database.execute(f"{SELECT} WHERE {where} {order}", values)]
    return [each for each in found if each is not None]


def num_active(database: sqlite3.Connection, tenant: str) -> int:
    """Jobs of a tenant that wait, run or pause."""
    marks = ", ".join("?" * len(ACTIVE))
    counted = database.execute(f"SELECT count(*) FROM jobs WHERE tenant = ? AND status IN ({marks})", (tenant, *ACTIVE))  # noqa: S608 - ours
    return int(counted.fetchone()[0])


def user_of(database: sqlite3.Connection, file: str) -> str:
    """A job that still needs a file; empty where none does."""
    marks = ", ".join("?" * len(ACTIVE))
    where = f"status IN ({marks}) AND (training_file = ? OR validation_file = ?)"
    found = database.execute(f"SELECT id FROM jobs WHERE {where} LIMIT 1", (*ACTIVE, file, file)).fetchone()  # noqa: S608 - ours
    return found[0] if found else ""


def move(
    database: sqlite3.Connection,
    name: str,
    was: tuple[Status, ...],
    now: Status,
    *events: Event,
    tried: int = 0,
    changes: Mapping[str, Any] = NOTHING,
) -> bool:
    """Move a job to another status, if it is where it is thought to be; whether it was.

    `tried` is added to its tries; `changes` are fields of the Job.
    """
    found = named(database, name)
    if found is None or found.status not in was:
        return False
    job = encode(msgspec.structs.replace(found.job, **changes)).decode()
    database.execute("UPDATE jobs SET status = ?, job = ?, tries = tries + ? WHERE id = ?", (now, job, tried, name))
    note(database, name, events)
    return True


def heard(database: sqlite3.Connection, name: str, read_bytes: int, events: Sequence[Event]) -> None:
    """What a job has said up to `read_bytes` of its output: together, so that nothing is told twice."""
    database.execute("UPDATE jobs SET read_bytes = ? WHERE id = ?", (read_bytes, name))
    note(database, name, events)


def event(message: str, level: str = "info", data: Event | None = None, kind: str = "message") -> Event:
    """An event as OpenAI tells it, but for its id."""
    told = {"object": "fine_tuning.job.event", "created_at": int(time()), "level": level, "message": message}
    return {**told, "type": kind, "data": data or {}}


def note(database: sqlite3.Connection, name: str, events: Sequence[Event], kind: str = EVENT) -> None:
    """Write down what happened."""
    start = "ftevent-" if kind == EVENT else "ftckpt-"
    named_ = [{"id": f"{start}{token_hex(12)}", **each} for each in events]
    database.executemany(
        "INSERT INTO events (id, job, kind, event) VALUES (?, ?, ?, ?)",
        [(each["id"], name, kind, encode(each).decode()) for each in named_],
    )


def metrics(database: sqlite3.Connection, name: str) -> list[Event]:
    """All figures of a job's training, in order."""
    found = database.execute("SELECT event FROM events WHERE job = ? AND kind = ? ORDER BY number", (name, EVENT))
    return [each for (text,) in found if (each := decode(text))["type"] == "metrics"]


def happened(database: sqlite3.Connection, name: str, wanted: Window, kind: str = EVENT) -> list[Event] | None:
    """One event more than is wanted; None where `after` is not one of them."""
    where, values = "job = ? AND kind = ?", [name, kind]
    if wanted.after:
        last = database.execute("SELECT number FROM events WHERE job = ? AND id = ?", (name, wanted.after)).fetchone()
        if last is None:
            return None
        where += f" AND number {wanted.sign} ?"
        values.append(last[0])
    order = f"ORDER BY number {wanted.order} LIMIT {wanted.limit + 1}"
    return [decode(row[0]) for row in database.execute(f"SELECT event FROM events WHERE {where} {order}", values)]  # noqa: S608 - ours
