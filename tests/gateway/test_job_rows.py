"""Whose job is next: nobody who has many jobs keeps the others waiting."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from time import time

import pytest

from stepwell.gateway.tuning import job_rows
from stepwell.gateway.tuning.job_rows import LATELY_S, Job


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(job_rows.SCHEMA)
        yield connection


def add(database: sqlite3.Connection, *names: str) -> None:
    """Jobs called by their tenant's letter and a number."""
    for name in names:
        job = Job(
            id=name,
            tenant=name[0],
            model="m",
            method="supervised",
            seed=1,
            hyperparameters={},
            training_file="f",
            created_s=time(),
        )
        job_rows.insert(database, job)


def run(database: sqlite3.Connection, started_s: float) -> str:
    """Run the next job to its end; its name."""
    found = job_rows.next_to_run(database)
    assert found is not None
    job_rows.move(database, found.job.id, ("queued",), "running", changes={"started_s": started_s})
    assert job_rows.next_to_run(database) == job_rows.named(database, found.job.id), "what runs is stayed with"
    job_rows.move(database, found.job.id, ("running",), "succeeded")
    return found.job.id


def test_the_tenant_with_the_fewest_runs_is_next(database: sqlite3.Connection) -> None:
    add(database, "a1", "a2", "a3", "a4", "b1", "c1")
    told = [run(database, time()) for _ in range(2)]
    add(database, "b2")
    assert told + [run(database, time()) for _ in range(5)] == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_runs_of_long_ago_do_not_count(database: sqlite3.Connection) -> None:
    add(database, "a1")
    run(database, time() - LATELY_S - 1)
    add(database, "a2", "b1")
    assert run(database, time()) == "a2"


def test_a_run_that_was_stopped_does_not_count_against_itself(database: sqlite3.Connection) -> None:
    add(database, "a1", "b1")
    job_rows.move(database, "a1", ("queued",), "running", changes={"started_s": time()})
    job_rows.move(database, "a1", ("running",), "queued")
    assert run(database, time()) == "a1"
