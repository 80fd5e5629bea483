"""Runs fine-tuning jobs, one at a time for all gateways that share the folder, each by `stepwell distill run`.

Where the gateway dies, its run goes on, and the next gateway listens on. Where the run dies, it is begun again and goes
on where its stages stand, a few times. Where the gateway is stopped, so is the run, until there is a gateway again.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from time import monotonic, time
from typing import Any

from msgspec import structs

from stepwell.config_kept import FineTuning
from stepwell.errors import StepwellError, StoreError
from stepwell.gateway import private
from stepwell.gateway.database import Database
from stepwell.gateway.tuning import job_rows
from stepwell.gateway.tuning.files import Files
from stepwell.gateway.tuning.job_rows import Event, Failure, Job, Standing, Status, event
from stepwell.gateway.tuning.leftover import tidy
from stepwell.gateway.tuning.prepare import prepared
from stepwell.gateway.tuning.process import Process
from stepwell.gateway.tuning.result import how, published, without_folders
from stepwell.gateway.tuning.speech import checkpoint, heard, table

log = logging.getLogger(__name__)

JOBS = "jobs"
POLL_S = 0.5
TIDY_S = 5.0
STOP_S = 10.0
MOST_TRIES = 3
MADE = (0, 1)
"""A run's exit status where there is a model; 1: and the gate does not say that it may serve."""
SIGNALLED = 128
"""A shell adds the signal to this."""


class Runner:
    """Of all processes that share a folder, the one that holds its lock runs the jobs."""

    def __init__(self, section: FineTuning, database: Database, files: Files) -> None:
        self.section, self.database, self.files = section, database, files
        self.folder = Path(section.folder)
        self.tidied_s = -TIDY_S

    async def run(self) -> None:
        """Run what is in the line, for ever. Cancelled, it stops what runs."""
        lock = await self.only_one()
        try:
            while True:
                try:
                    found = await self.database.run(job_rows.next_to_run)
                    if found is not None:
                        await self.see_to(found)
                    await self.tidy()
                except Exception:  # nothing that goes wrong with one job may end all others
                    log.exception("fine-tuning goes on")
                await asyncio.sleep(POLL_S)
        finally:
            os.close(lock)

    async def tidy(self) -> None:
        """Now and then: let go of the rows of jobs that have ended, and of files that nobody has."""
        if monotonic() - self.tidied_s >= TIDY_S:
            await self.files.clean()
            await asyncio.to_thread(tidy, self.folder / JOBS, self.database)
            self.tidied_s = monotonic()

    async def only_one(self) -> int:
        """Wait to be the one that runs jobs."""
        private.folder(self.folder)
        lock = os.open(self.folder / "runner.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return lock
                await asyncio.sleep(POLL_S)
        except BaseException:
            os.close(lock)
            raise

    async def see_to(self, found: Standing) -> None:
        """Begin a job, or find the run of one that was begun, and stay with it to its end."""
        job, process = found.job, Process(self.folder / JOBS / found.job.id)
        try:
            if found.status == "queued" and not await self.begun(job, process):
                return
            await self.follow(job, process)
        except asyncio.CancelledError:
            await asyncio.shield(self.put_back(job, process))
            raise
        except StoreError:
            raise
        except (StepwellError, OSError) as error:
            log.error("job %s cannot be run: %s", job.id, error)  # noqa: TRY400 - it says all
            await self.stop(process)
            code = error.code if isinstance(error, StepwellError) else "server_error"
            await self.fail(job, Failure(code, str(error)))

    async def begun(self, job: Job, process: Process) -> bool:
        """Start a job that waits; whether it still does. Raises StepwellError where it cannot be started."""
        await self.stop(process)  # one that was paused may still be on its way out
        command = await asyncio.to_thread(prepared, job, process.folder, self.section, self.files)
        changes = {"started_s": job.started_s or time()}
        notes = [event("Fine-tuning job started" if job.started_s is None else "Fine-tuning job goes on")]
        if not await self.moved(job, "queued", "running", notes, tried=1, changes=changes):
            return False
        await asyncio.to_thread(process.start, command)
        return True

    async def follow(self, job: Job, process: Process) -> None:
        """Listen until the run has ended, then see what came of it; stop it where the job was paused or cancelled."""
        living = True
        while living:
            living = await asyncio.to_thread(process.lives)
            found, more = await self.listen(job.id, process)
            while more:
                found, more = await self.listen(job.id, process)
            if found.status != "running":
                await self.stop(process)
                return
            await asyncio.sleep(POLL_S if living else 0)
        await self.finish(found, process)

    async def listen(self, name: str, process: Process) -> tuple[Standing, bool]:
        """Write down what was said since; where the job stands, and whether there may be more."""

        def hear(database: Connection) -> tuple[Standing, bool]:
            found = job_rows.named(database, name)
            assert found is not None  # noqa: S101 - jobs are never deleted
            lines, end = process.said(found.read_bytes)
            if end > found.read_bytes:
                job_rows.heard(database, name, end, heard(lines).events)
            return found, end > found.read_bytes

        return await self.database.run(hear)

    async def finish(self, found: Standing, process: Process) -> None:
        """What a run that has ended has come to."""
        status = process.status()
        result = await asyncio.to_thread(lambda: heard(process.everything()).result)
        if status in MADE and result is not None:
            await self.succeed(found.job, result)
        elif status is None or status > SIGNALLED:
            await self.try_again(found, status)
        else:
            words = await asyncio.to_thread(process.last_words)
            await self.fail(found.job, Failure("training_failed", words or f"the run ended with status {status}"))

    async def succeed(self, job: Job, result: Mapping[str, Any]) -> None:
        """Keep the model, tell where it lies and whether it may serve."""
        changes = await asyncio.to_thread(published, job, result, self.folder / "models")
        figures = await self.database.run(lambda database: job_rows.metrics(database, job.id))
        results = await asyncio.to_thread(self.files.results, job.tenant, job.id, table(figures))
        made = checkpoint(job.id, changes["fine_tuned_model"], figures[-1]["data"] if figures else {})
        notes = [event(f"New fine-tuned model created: {changes['fine_tuned_model']}"), event(how(changes["gate"]))]
        notes.append(event("The job has successfully completed"))
        changes |= {"result_files": (results,), "finished_s": time()}
        if await self.moved(job, "running", "succeeded", notes, changes=changes):
            await self.database.run(lambda database: job_rows.note(database, job.id, [made], job_rows.CHECKPOINT))

    async def try_again(self, found: Standing, status: int | None) -> None:
        """A run that was killed goes on; not for ever."""
        why = "killed with its shell" if status is None else f"killed by signal {status - SIGNALLED}"
        if found.tries >= MOST_TRIES:
            await self.fail(found.job, Failure("killed", f"the run was {why}, after {found.tries} tries"))
            return
        notes = [event(f"The run was {why}: it goes on where its stages stand", "warn")]
        await self.moved(found.job, "running", "queued", notes)

    async def put_back(self, job: Job, process: Process) -> None:
        """The gateway stops, and so does the run: the next gateway goes on with it."""
        await self.stop(process)
        notes = [event("The gateway was stopped: the job goes on with the next one")]
        with suppress(StoreError):
            await self.moved(job, "running", "queued", notes, tried=-1)

    async def stop(self, process: Process) -> None:
        """End a run, and what it began."""
        end_s = monotonic() + STOP_S
        while await asyncio.to_thread(process.lives):
            process.signal(signal.SIGTERM if monotonic() < end_s else signal.SIGKILL)
            await asyncio.sleep(POLL_S / 5)

    async def fail(self, job: Job, failure: Failure) -> None:
        """Say why a job failed."""
        log.warning("job %s failed: %s", job.id, failure.message)
        failure = structs.replace(failure, message=without_folders(failure.message))
        notes = [event(f"The job failed: {failure.message}", "error")]
        changes = {"error": failure, "finished_s": time()}
        for was in ("queued", "running"):
            await self.moved(job, was, "failed", notes, changes=changes)

    async def moved(
        self,
        job: Job,
        was: Status,
        now: Status,
        notes: Sequence[Event],
        *,
        tried: int = 0,
        changes: Mapping[str, Any] = job_rows.NOTHING,
    ) -> bool:
        """Move a job to another status, if it still is where it was."""
        return await self.database.run(
            lambda database: job_rows.move(database, job.id, (was,), now, *notes, tried=tried, changes=changes)
        )
