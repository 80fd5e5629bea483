"""Who completes prompts, within which budget, and the question as it goes over the wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import msgspec
from msgspec import Struct

from stepwell.config import EmbeddedEngine, HttpEngine
from stepwell.engines import terms
from stepwell.engines.answers import Answers, Budget
from stepwell.engines.asking import Teacher, free
from stepwell.engines.bearer import bearer, secret
from stepwell.engines.embedded import Embedded
from stepwell.engines.http import Http
from stepwell.errors import ConfigError, DistillError, EngineUnavailable
from stepwell.ledger import prices
from stepwell.protocols import Engine
from stepwell.quality.files import sha256_of
from stepwell.synth.recipe import Filters, Generator, Recipe
from stepwell.types import Request

REVISION_CHARS = 12
Watch = Callable[[int, int, float], None]
"""Told how many questions are answered, of how many, and what was spent so far, USD."""


class Paid(Struct, frozen=True):
    """A generator that is open, where its answers are kept, and what it may cost."""

    section: Generator
    teacher: Teacher
    name: str
    """What rows call it."""
    revision: str
    wanted: Filters
    """What its answers must be."""
    answers: Answers
    budget: Budget
    watch: Watch = lambda _done, _all, _usd: None
    note: Callable[[float], object] = lambda _usd: None
    """Told what each answer cost, also where it was paid for in an earlier run."""


class Counted:
    """An engine that is never asked: enough to say what asking would cost."""

    name = "generator"

    def generate(self, _: Request) -> NoReturn:
        """Refuse. Raises EngineUnavailable."""
        raise EngineUnavailable("it is only counted with", engine=self.name)

    async def close(self) -> None:
        """Nothing to give back."""


def opened(recipe: Recipe, answers: Answers, budget: Budget, watch: Watch, *, i_may: bool = False) -> Paid:
    """The recipe's generator, ready to be asked; close `teacher.engine`.

    Raises ConfigError; DistillError where its terms restrict training on its answers and nobody says `i_may`.
    """
    section = named(recipe)
    terms.check(section.url, section.model, i_may=i_may)
    if section.path:
        engine: Engine = Embedded("generator", embedded(section, recipe.path(section.path)))
    else:
        # Whether a call that failed was paid is seen call by call: the engine itself must not try again.
        config = HttpEngine(url=section.url, model=section.model, retries=0)
        engine = Http("generator", config, bearer(secret(section.key_env, field="synth.generator.key_env")))
    return paying(recipe, engine, answers, budget, watch)


def counted(recipe: Recipe, answers: Answers) -> Paid:
    """The recipe's generator as far as a plan needs it. Raises ConfigError."""
    return paying(recipe, Counted(), answers, Budget(), lambda _done, _all, _usd: None)


def named(recipe: Recipe) -> Generator:
    """`[synth.generator]`. Raises ConfigError where there is none."""
    if recipe.synth.generator is None:
        raise ConfigError("no [synth.generator]", field="synth")
    return recipe.synth.generator


def paying(recipe: Recipe, engine: Engine, answers: Answers, budget: Budget, watch: Watch) -> Paid:
    """An engine as the recipe's generator, with its price and revision. Raises ConfigError."""
    section = named(recipe)
    if section.path:
        path = recipe.path(section.path)
        revision, name = section.revision or digest(path), section.model or path.stem
        # another file of the same name is asked anew: its answers are not those of this one
        teacher = Teacher(engine, f"{name}@{revision}", free, section.max_tokens)
        return Paid(section, teacher, name, revision, recipe.synth.filters, answers, budget, watch)
    usd_of = free if section.free else prices.price_of(prices.load(), section.price or section.model).of
    teacher = Teacher(engine, section.model, usd_of, section.max_tokens, origin=section.url)
    return Paid(section, teacher, section.model, section.revision, recipe.synth.filters, answers, budget, watch)


def digest(path: Path) -> str:
    """The beginning of a file's SHA-256. Raises ConfigError."""
    try:
        return sha256_of(path)[:REVISION_CHARS]
    except DistillError as error:
        raise ConfigError(f"{error}; name a GGUF file", field="synth.generator.path") from error


def embedded(section: Generator, path: Path) -> EmbeddedEngine:
    """How a model runs in this process: one thread, since prompts are many and short."""
    slots, context = section.concurrency, section.context_tokens
    return EmbeddedEngine(path=str(path), threads=1, slots=slots, context_tokens=context)


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


def keys(paid: Paid, bodies: Iterable[bytes]) -> tuple[int, int, float]:
    """How many of some questions are answered already, how many are not, and the most that these may cost, USD."""
    distinct = {paid.teacher.key_of(body): body for body in bodies}
    open_ = [body for key, body in distinct.items() if paid.answers.get(key) is None]
    most = sum(paid.teacher.most_usd(len(body)) for body in open_)
    return len(distinct) - len(open_), len(open_), most
