"""/v1/fine_tuning/jobs: jobs are asked for, listed, paused and cancelled here; `runner.py` runs them, one at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from secrets import randbelow, token_hex
from sqlite3 import Connection
from time import time
from typing import Any

from stepwell.config_kept import FineTuning
from stepwell.errors import AdmitError, BadRequest, ConfigError
from stepwell.gateway import listing, openai
from stepwell.gateway.database import Database
from stepwell.gateway.surface import Asked, NotFound, Page, page, taken
from stepwell.gateway.tuning import job_rows, recipe
from stepwell.gateway.tuning.files import PURPOSE, Files, allowed
from stepwell.gateway.tuning.job_rows import CHECKPOINT, EVENT, Job, Standing, Status
from stepwell.toml import nearest

START = b"/v1/fine_tuning/jobs"
METHODS = ("supervised", "distillation")
DEFAULT_LIMIT, MOST_LIMIT = 20, 100
MOST_SEED = 2**31 - 1
SUFFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
BOUNDS: Mapping[str, tuple[type[float], float, float]] = {
    "n_epochs": (int, 1, 50),
    "batch_size": (int, 1, 256),
    "learning_rate_multiplier": (float, 1e-4, 100),
}
"""What a job may set, from and to; all may be "auto": as the recipe says."""


class TooMany(AdmitError):  # noqa: N818 - a word like its siblings in errors.py
    """This tenant has enough jobs in the line."""

    status = 429
    code = "too_many_jobs"


class Jobs:
    """The surface."""

    def __init__(self, section: FineTuning, database: Database, files: Files) -> None:
        self.section, self.database, self.files = section, database, files

    async def show(self, asked: Asked) -> Page:
        """GET and POST /v1/fine_tuning/jobs; …/ID, …/ID/cancel|pause|resume|events|checkpoints. Raises AdmitError."""
        allowed(self.section, asked.caller)
        match asked.parts:
            case ():
                ways = {"GET": self.listed, "POST": self.create}
            case (name,):
                ways = {"GET": partial(self.shown, name)}
            case (name, "events"):
                ways = {"GET": partial(self.happened, name, EVENT)}
            case (name, "checkpoints"):
                ways = {"GET": partial(self.happened, name, CHECKPOINT)}
            case (name, "cancel"):
                ways = {"POST": partial(self.move, name, ("queued", "running", "paused"), "cancelled")}
            case (name, "pause"):
                ways = {"POST": partial(self.move, name, ("queued", "running"), "paused")}
            case (name, "resume"):
                ways = {"POST": partial(self.move, name, ("paused",), "queued")}
            case _:
                raise NotFound(f"nothing is at {'/'.join(asked.parts)!r} here")
        return await taken(ways, asked)

    async def create(self, asked: Asked) -> Page:
        """Put a job into the line, if all that can be known of it now is right."""
        fields = openai.decoded(asked.body)
        training, validation = fields.get("training_file"), fields.get("validation_file")
        if validation is not None and validation == training:
            raise BadRequest("must be another file: it judges what was learned", param="validation_file")
        method, settings = method_of(fields)
        job = Job(
            id=f"ftjob-{token_hex(12)}",
            tenant=asked.tenant,
            model=self.known(fields.get("model"), self.section.models, "model"),
            method=method,
            teacher=self.teacher(method, settings),
            suffix=suffix(fields),
            seed=seed(fields),
            hyperparameters=hyperparameters(settings.get("hyperparameters") or fields.get("hyperparameters") or {}),
            training_file=await self.usable(asked, training, "training_file", answered=method == "supervised"),
            validation_file=None
            if validation is None
            else await self.usable(asked, validation, "validation_file", answered=True),
            metadata=openai.metadata_of(fields),
            created_s=time(),
        )
        if fields.get("integrations"):
            raise BadRequest("integrations are not supported: leave them out", param="integrations")
        await self.check_steps(job)
        await self.database.run(partial(self.enter, job))
        return page(told(Standing(job, "queued")))

    async def check_steps(self, job: Job) -> None:
        """Raise BadRequest where a job comes to too many, as far as its file tells."""
        file = await self.files.found(job.tenant, job.training_file)
        try:
            train = recipe.placed(Path(self.section.models[job.model])).get("train", {})
        except ConfigError:
            return  # the job's own failure will say it
        recipe.bounded(recipe.plan(train, job.hyperparameters, file.num_rows, file.bytes), self.section.max_steps)

    def enter(self, job: Job, database: Connection) -> None:
        """Insert a job where its tenant has not too many."""
        if job_rows.num_active(database, job.tenant) >= self.section.max_waiting:
            raise TooMany(f"{self.section.max_waiting} jobs wait or run: wait for one, or cancel one")
        job_rows.insert(database, job)

    def known(self, name: object, offered: Mapping[str, str], param: str) -> str:
        """A name that is offered. Raises BadRequest."""
        if not isinstance(name, str) or name not in offered:
            close = nearest(name, dict(offered)) if isinstance(name, str) else ""
            raise BadRequest(f"no such {param}{close}; there are: {', '.join(offered) or 'none'}", param=param)
        return name

    def teacher(self, method: str, settings: Mapping[str, Any]) -> str:
        """Who teaches: named, or the recipe's own (empty). Raises BadRequest."""
        named = settings.get("teacher")
        if method != "distillation" or named is None:
            return ""
        return self.known(named, self.section.teachers, "teacher")

    async def usable(self, asked: Asked, name: object, param: str, *, answered: bool) -> str:
        """A training file of this tenant. Raises BadRequest."""
        if not isinstance(name, str):
            raise BadRequest("name an uploaded file by its id", param=param)
        try:
            file = await self.files.found(asked.tenant, name)
        except NotFound as error:
            raise BadRequest(str(error), param=param) from error
        if file.purpose != PURPOSE:
            raise BadRequest(f'{name} was uploaded with another purpose than "{PURPOSE}"', param=param)
        if answered and file.first_unanswered:
            what = f"line {file.first_unanswered} of {file.filename} has no answer to learn"
            raise BadRequest(f'{what}: give one, or use method "distillation", whose teacher answers', param=param)
        return name

    async def listed(self, asked: Asked) -> Page:
        """The tenant's jobs, the newest first."""
        wanted = listing.window(asked.query, limit=DEFAULT_LIMIT, most=MOST_LIMIT, ascending=False)
        pairs = listing.metadata(asked.query)
        found = await self.database.run(lambda database: job_rows.page(database, asked.tenant, wanted, pairs))
        if found is None:
            raise BadRequest(f"no job is called {wanted.after!r}", param="after")
        return page(listing.listed([told(each) for each in found], wanted))

    async def shown(self, name: str, asked: Asked) -> Page:
        """One job."""
        return page(told(await self.found(asked, name)))

    async def happened(self, name: str, kind: str, asked: Asked) -> Page:
        """Its events or checkpoints, the newest first."""
        await self.found(asked, name)
        wanted = listing.window(asked.query, limit=DEFAULT_LIMIT, most=MOST_LIMIT, ascending=False)
        found = await self.database.run(lambda database: job_rows.happened(database, name, wanted, kind))
        if found is None:
            raise BadRequest(f"nothing of this job is called {wanted.after!r}", param="after")
        return page(listing.listed(found, wanted))

    async def move(self, name: str, was: tuple[Status, ...], now: Status, asked: Asked) -> Page:
        """Cancel, pause or resume; what runs is stopped by whoever runs it."""
        found = await self.found(asked, name)
        ended = {"finished_s": time()} if now == "cancelled" else {}
        note = job_rows.event(f"The job was {'resumed' if now == 'queued' else now}")
        if not await self.database.run(lambda database: job_rows.move(database, name, was, now, note, changes=ended)):
            raise BadRequest(f"the job {name} is {found.status}: it cannot be {now} any more", param="status")
        return await self.shown(name, asked)

    async def found(self, asked: Asked, name: str) -> Standing:
        """A job of this tenant. Raises NotFound."""
        found = await self.database.run(lambda database: job_rows.one(database, asked.tenant, name))
        if found is None:
            raise NotFound(f"no job is called {name!r}")
        return found


def method_of(fields: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The method and what is set for it; supervised where none is named. Raises BadRequest."""
    method = fields.get("method")
    if method is None:
        return "supervised", {}
    kind = method.get("type") if isinstance(method, dict) else None
    if kind not in METHODS:
        raise BadRequest(f"type must be one of {', '.join(METHODS)}", param="method.type")
    settings = method.get(kind, {})
    if not isinstance(settings, dict):
        raise BadRequest("must be an object", param=f"method.{kind}")
    return kind, settings


def hyperparameters(given: object) -> dict[str, Any]:
    """What a job may set of its training. Raises BadRequest."""
    if not isinstance(given, dict):
        raise BadRequest("must be an object", param="hyperparameters")
    for name, value in given.items():
        if name not in BOUNDS:
            raise BadRequest(f"there are {', '.join(BOUNDS)}", param=f"hyperparameters.{name}")
        kind, least, most = BOUNDS[name]
        right = isinstance(value, int | kind) and not isinstance(value, bool) and least <= value <= most
        if value != "auto" and value is not None and not right:
            raise BadRequest(f'must be "auto" or from {least:g} to {most:g}', param=f"hyperparameters.{name}")
    return {name: "auto" if given.get(name) is None else given[name] for name in BOUNDS}


def suffix(fields: Mapping[str, Any]) -> str:
    """What a model's name ends with. Raises BadRequest."""
    value = fields.get("suffix")
    if value is None:
        return ""
    if not isinstance(value, str) or not SUFFIX.fullmatch(value):
        raise BadRequest("up to 64 letters, digits, - and _", param="suffix")
    return value


def seed(fields: Mapping[str, Any]) -> int:
    """The job's seed, or one drawn for it. Raises BadRequest."""
    value = fields.get("seed")
    if value is None:
        return randbelow(MOST_SEED)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_SEED:
        raise BadRequest(f"must be a number from 0 to {MOST_SEED}", param="seed")
    return value


def told(found: Standing) -> dict[str, Any]:
    """A job as OpenAI tells it; `gate` is our own."""
    job = found.job
    settings = {"hyperparameters": job.hyperparameters} | ({"teacher": job.teacher} if job.teacher else {})
    return {
        "object": "fine_tuning.job",
        "id": job.id,
        "model": job.model,
        "created_at": int(job.created_s),
        "finished_at": None if job.finished_s is None else int(job.finished_s),
        "estimated_finish": None,
        "fine_tuned_model": job.fine_tuned_model,
        "organization_id": job.tenant,
        "result_files": job.result_files,
        "status": found.status,
        "validation_file": job.validation_file,
        "training_file": job.training_file,
        "hyperparameters": job.hyperparameters,
        "trained_tokens": job.tokens,
        "error": None
        if job.error is None
        else {"code": job.error.code, "message": job.error.message, "param": job.error.param},
        "integrations": [],
        "seed": job.seed,
        "method": {"type": job.method, job.method: settings},
        "metadata": job.metadata,
        "gate": job.gate,
    }
