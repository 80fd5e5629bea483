"""Who completes prompts: the question as it goes over the wire, what came back, and what that cost."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import file_digest
from itertools import count
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from stepwell.config import EmbeddedEngine, HttpEngine
from stepwell.engines.answers import Answers, Budget, Kept, key_of
from stepwell.engines.asking import Teacher, asked
from stepwell.engines.embedded import Embedded
from stepwell.engines.http import Http
from stepwell.errors import ConfigError, DistillError, EngineRefusal
from stepwell.ledger import prices
from stepwell.synth.recipe import Generator, Recipe
from stepwell.synth.row import Row, made
from stepwell.types import Usage

REVISION_CHARS = 12
FAULT = "written"
"""The filter's name under which a row says why it was not completed."""
FIRST = 16
"""Prompts asked first: where none of them is answered, no more are asked."""
TRY_ELSEWHERE = (401, 402, 403, 404, 408, 429)
"""Refusals of the account or the moment, not of a prompt."""
K = TypeVar("K")
V = TypeVar("V")
Watch = Callable[[int, int, float], None]
"""Told how many questions are answered, of how many, and what was spent so far, USD."""


class Paid(Struct, frozen=True):
    """A generator that is open, where its answers are kept, and what it may cost."""

    section: Generator
    teacher: Teacher
    revision: str
    answers: Answers
    budget: Budget
    watch: Watch = lambda _done, _all, _usd: None


class Said(Struct, frozen=True):
    """What came back for a question: a text, or why there is none."""

    text: str
    fault: str = ""
    revision: str = ""
    usage: Usage | None = None
    usd: float = 0.0


class _Message(Struct):
    content: Any = None
    refusal: Any = None


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None


class _Reply(Struct):
    choices: list[_Choice]
    model: str = ""
    system_fingerprint: str | None = None


def opened(recipe: Recipe, answers: Answers, budget: Budget, watch: Watch) -> Paid:
    """The recipe's generator, ready to be asked; close `teacher.engine`. Raises ConfigError."""
    section = recipe.synth.generator
    if section is None:
        raise ConfigError("no [synth.generator]", field="synth")
    if section.path:
        path = recipe.path(section.path)
        engine = Embedded("generator", EmbeddedEngine(path=str(path), threads=1))
        with path.open("rb") as file:
            revision = section.revision or file_digest(file, "sha256").hexdigest()[:REVISION_CHARS]
        teacher = Teacher(engine, section.model or path.stem, free, section.max_tokens)
        return Paid(section, teacher, revision, answers, budget, watch)
    http = Http("generator", HttpEngine(url=section.url, model=section.model), key_from(section.key_env))
    usd_of = free if section.free else prices.price_of(prices.load(), section.price or section.model).of
    teacher = Teacher(http, section.model, usd_of, section.max_tokens)
    return Paid(section, teacher, section.revision, answers, budget, watch)


def free(_: Usage | None) -> float:
    """What an answer of a model of one's own costs."""
    return 0.0


def key_from(env: str) -> Callable[[], Awaitable[str]] | None:
    """The server's key, from the environment. Raises ConfigError."""
    if not env:
        return None
    key = os.environ.get(env)
    if not key:
        raise ConfigError(f"the environment variable {env} holds no key", field="synth.generator.key_env")

    async def given() -> str:
        return key

    return given


def question(paid: Paid, text: str, seed: int, *, system: str = "") -> bytes:
    """A chat completion request; the same text and seed are the same bytes."""
    section = paid.section
    system = system or section.system
    turns = [{"role": "system", "content": system}] if system else []
    body = {
        "model": paid.teacher.model,
        "messages": [*turns, {"role": "user", "content": text}],
        "temperature": section.temperature,
        "max_tokens": section.max_tokens,
        "seed": seed,
    }
    return msgspec.json.encode(body)


def check(paid: Paid, text: str, instructions: str) -> bytes:
    """A question about a text, asked at temperature 0."""
    body = msgspec.json.decode(question(paid, text, 0, system=instructions))
    return msgspec.json.encode({**body, "temperature": 0})


def seed_of(row: Row, number: int) -> int:
    """The seed of a row's completion, by its prompt and number: a resumed run asks the same."""
    return (int(row.prompt_hash[:8], 16) + number) % 2**31


async def said(paid: Paid, body: bytes) -> Said:
    """Ask, or read what was answered before. Raises BudgetReached, EngineError."""
    try:
        kept = await asked(paid.teacher, body, paid.answers, paid.budget)
    except EngineRefusal as error:
        if error.status >= 500 or error.status in TRY_ELSEWHERE:  # noqa: PLR2004
            raise
        return Said("", f"the server refused ({error.status})")
    return read(kept, paid.revision)


def read(kept: Kept, revision: str = "") -> Said:
    """The text of a reply, or why it has none."""
    usage, usd = kept.usage, kept.usd
    try:
        reply = msgspec.json.decode(kept.body, type=_Reply)
        choice = reply.choices[0]
    except (msgspec.DecodeError, LookupError) as error:
        return Said("", f"the reply is no chat completion ({error})", revision, usage, usd)
    revision = revision or " ".join(each for each in (reply.model, reply.system_fingerprint) if each)
    text = choice.message.content if isinstance(choice.message.content, str) else ""
    fault = ""
    if choice.message.refusal or choice.finish_reason == "content_filter":
        fault = "refused"
    elif choice.finish_reason == "length":
        fault = "cut off at max_tokens"
    elif not text.strip():
        fault = "empty"
    return Said(text.strip(), fault, revision, usage, usd)


async def side_by_side(num: int, jobs: Iterable[K], work: Callable[[K], Awaitable[V]]) -> dict[K, V]:
    """Do each job once, so many at a time. After an error, what is on its way still arrives, and nothing new begins."""
    left = iter(dict.fromkeys(jobs))
    done: dict[K, V] = {}
    failed = False

    async def go_on() -> None:
        nonlocal failed
        for job in left:
            if failed:
                return
            try:
                done[job] = await work(job)
            except BaseException:
                failed = True
                raise

    ended = await asyncio.gather(*(go_on() for _ in range(num)), return_exceptions=True)
    for error in ended:
        if error is not None:
            raise error
    return done


async def answered(paid: Paid, bodies: Iterable[bytes], watch: Callable[[], None] = lambda: None) -> dict[bytes, Said]:
    """Ask each question once. Raises BudgetReached, EngineError."""

    async def ask(body: bytes) -> Said:
        answer = await said(paid, body)
        watch()
        return answer

    return await side_by_side(paid.section.concurrency, bodies, ask)


async def completed(paid: Paid, rows: Sequence[Row]) -> list[Row]:
    """Each row with its completion, or with the reason why it has none. Raises BudgetReached, EngineError.

    Raises DistillError where none of the first FIRST prompts is answered: no more is paid for.
    """
    jobs = [(row, number, body_for(paid, row, number)) for row in rows for number in range(paid.section.num)]
    bodies = list(dict.fromkeys(body for _, _, body in jobs))
    done = count(1)

    def watch() -> None:
        paid.watch(next(done), len(bodies), paid.answers.spent().usd)

    answers = await answered(paid, bodies[:FIRST], watch)
    if answers and all(answer.fault for answer in answers.values()):
        what = f"the generator answered none of the first {len(answers)} prompts: {reasons(answers.values())}"
        raise DistillError(f"{what}; see [synth.generator]")
    answers |= await answered(paid, bodies[FIRST:], watch)
    return [with_completion(row, answers[body], paid, seed_of(row, number)) for row, number, body in jobs]


def reasons(answers: Iterable[Said]) -> str:
    """Why there are no texts, with how often."""
    return ", ".join(f"{num} {why}" for why, num in Counter(answer.fault for answer in answers).most_common())


def body_for(paid: Paid, row: Row, number: int) -> bytes:
    """The question that a row's completion is the answer to."""
    text = paid.section.ask.replace("{prompt}", row.prompt)
    return question(paid, text, seed_of(row, number))


def with_completion(row: Row, answer: Said, paid: Paid, seed: int) -> Row:
    """A row with what the generator made of it, and all that is known of that."""
    section = paid.section
    params = {
        **row.params,
        "temperature": section.temperature,
        "max_tokens": section.max_tokens,
        "prompt_seed": row.seed,
    }
    return made(
        row.prompt,
        answer.text,
        source=row.source,
        licence=row.licence,
        slots=row.slots,
        split=row.split,
        generator=paid.teacher.model,
        generator_rev=answer.revision or "unknown",
        params=row.params | params,
        seed=seed,
        parents=row.parents,
        generation=row.generation,
        filters={FAULT: answer.fault} if answer.fault else {},
        usd=row.usd + answer.usd,
        tokens_in=answer.usage.input_tokens if answer.usage else 0,
        tokens_out=answer.usage.output_tokens if answer.usage else 0,
    )


def keys(paid: Paid, bodies: Iterable[bytes]) -> tuple[int, int, float]:
    """How many of some questions are answered already, how many are not, and the most that these may cost, USD."""
    distinct = {key_of(body): body for body in bodies}
    open_ = [body for key, body in distinct.items() if paid.answers.get(key) is None]
    most = sum(paid.teacher.most_usd(len(body)) for body in open_)
    return len(distinct) - len(open_), len(open_), most
