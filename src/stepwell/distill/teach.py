"""`[teacher]`, and what a run of the teacher makes of rows: texts, scores or logits, and the rows that are kept apart.

OUT/answers/        what was answered and paid, by the hash of the question: nothing is paid for twice
OUT/rows.jsonl      rows with the teacher's texts or scores
OUT/apart.jsonl     rows that are not learned from, each with its reason
OUT/logits/         the teacher's probabilities of each row's tokens (`sparse.py`)
OUT/taught.json     what was asked, kept and paid, and whether all of it was
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from stepwell.engines import terms
from stepwell.engines.answers import Answers, Budget, Spent
from stepwell.errors import ConfigError, DistillError
from stepwell.store import tables
from stepwell.toml import Section

Give = Literal["texts", "scores", "logits"]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]


class TeacherSection(Section, frozen=True):
    """`[teacher]`: a server (`url`, `model`), or a model of one's own (`path`); and what is asked of it."""

    path: str = ""
    """A Hugging Face folder (texts, scores, logits), or a GGUF file (texts)."""
    url: str = ""
    """An OpenAI-compatible server, up to and with `/v1`."""
    model: str = ""
    price: str = ""
    """The row of prices.toml; empty: the model's name; "free" for a server of one's own."""
    key_env: str = ""
    """The environment variable that holds the server's key."""
    batches: bool = False
    """Ask over the server's /v1/batches, where it has them."""
    give: Give = "texts"
    ask: str = "{prompt}"
    """What is asked about a prompt."""
    system: str = ""
    rubric: str = "How good is the answer to the question?"
    """What a server is asked for scores."""
    num: Count = 1
    """Texts a prompt."""
    temperature: Annotated[float, Meta(ge=0)] = 0.0
    max_tokens: Count = 256
    seed: int = 0
    verifier: str = ""
    """slots, slots_apart, values or module:function: what it complains about is kept apart."""
    language: str = ""
    """Answers that are surely in another language than this are kept apart."""
    at_once: Count = 8
    """Questions on their way at the same time."""
    select: Literal["all", "value", "random"] = "all"
    most: Annotated[int, Meta(ge=0)] = 0
    """Prompts that are asked at most; 0: all that were selected from."""
    random_share: Annotated[float, Meta(ge=0.1, le=1)] = 0.15
    """Of the prompts asked, so many are drawn by chance: the only ones that speak for all traffic."""
    embed: bool = False
    """Whether value counts what near prompts have in common (all-MiniLM-L6-v2; needs the extra `cache`)."""
    saving_usd: Annotated[float, Meta(ge=0)] = 1.0
    """What a request costs less once the student answers it."""
    most_faults: Share = 0.5
    """Of the last 20 answers: where more are refused, empty or of another language, the run stops."""
    cover: Annotated[float, Meta(gt=0, le=1)] = 0.99
    """Of a place's probability, as much is stored token by token; the rest in one number."""
    least: Share = 0.01
    """Tokens less likely than this are left to that number, too."""
    most_k: Annotated[int, Meta(ge=1, le=254)] = 16
    sampled: Annotated[int, Meta(ge=0, le=254)] = 0
    """Store so many drawn tokens a place instead; 0: the likeliest ones."""
    tokenizer: str = ""
    """For logits of a server: the folder with its model's tokenizer."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if bool(self.path) == bool(self.url):
            raise ConfigError("name a teacher: either `url` and `model`, or `path`", field="teacher")
        if self.url and not self.model:
            raise ConfigError("a server needs the name of its `model`", field="teacher.model")
        if "{prompt}" not in self.ask:
            raise ConfigError("must hold {prompt}, where the prompt goes", field="teacher.ask")
        if self.give == "logits" and not (self.is_folder or self.tokenizer):
            what = "logits of a server or a GGUF file need the folder of its model's tokenizer"
            raise ConfigError(what, field="teacher.tokenizer")

    @property
    def name(self) -> str:
        """The teacher's name in provenance."""
        return self.model or Path(self.path).name

    @property
    def is_folder(self) -> bool:
        """Whether the teacher is a Hugging Face folder, run here."""
        return bool(self.path) and not self.path.endswith(".gguf")


Watch = Callable[[int, int, Spent], None]
"""Told how many questions are answered, of how many, and what was paid so far."""


class Job(Struct, frozen=True):
    """A teacher at work."""

    section: TeacherSection
    folder: Path
    """Where the paths of the section start."""
    out: Path
    budget: Budget = Budget()
    watch: Watch = lambda _done, _all, _spent: None
    again: bool = False
    """Ask again for answers that were no use."""
    kept: Path | None = None
    """Where answers are kept, for this run and all others; None: in `out`."""

    @property
    def answers(self) -> Answers:
        """Everything that was ever answered."""
        return Answers(self.kept or self.out / "answers")

    def path(self, name: str) -> Path:
        """A path of the section: from its own folder, or, where that is not there, from where one stands."""
        filled = Path(os.path.expandvars(name))
        beside = self.folder / filled
        return beside if beside.exists() or not filled.exists() else filled


class Outcome(Struct, frozen=True):
    """What became of a row: itself with what the teacher gave, or why it is not learned from."""

    row: Mapping[str, Any]
    at: int
    """Which of the rows that were asked about."""
    reason: str = ""
    usd: float = 0.0


class Taught(Struct, frozen=True, kw_only=True):
    """What a run made."""

    teacher: str
    terms: str
    give: Give
    num_rows: int
    """Rows that were to be asked about."""
    num_kept: int
    apart: dict[str, int]
    """Rows kept apart, by reason."""
    calls: int
    usd: float
    complete: bool
    why: str = ""
    """Why it is not complete."""
    usable: tuple[float, float, float] | None = None
    """Share of all traffic that the teacher answers well enough to learn from: unbiased, and its 95 % interval."""


class Asked(Struct, frozen=True):
    """What asking came to."""

    outcomes: list[Outcome]
    why: str = ""
    """Why some were not asked; "" where all were."""


def teach(job: Job, rows: Sequence[Mapping[str, Any]], *, i_may: bool = False) -> Taught:
    """Ask the teacher about rows, and write what it gave. A budget that is reached is no error: see `complete`.

    Raises DistillError for terms that restrict training, and for a teacher whose answers are no use.
    """
    section = job.section
    told = terms.check(section.url, section.name, i_may=i_may)
    check(section, rows)
    job.out.mkdir(parents=True, exist_ok=True)
    picked = selected(job, rows)
    asked = given(job, [row for row, _ in picked])
    made = summed(job, told, len(picked), asked)
    if section.select != "all":
        made = msgspec.structs.replace(made, usable=usable(rows, picked, asked))
    write(job, asked.outcomes, made)
    return made


def given(job: Job, rows: Sequence[Mapping[str, Any]]) -> Asked:
    """What the teacher gives, by whoever can ask it."""
    if job.section.is_folder:
        from stepwell.distill.local import given as by_itself  # noqa: PLC0415 - torch

        return Asked(by_itself(job, rows))
    from stepwell.distill.remote import given as by_engine  # noqa: PLC0415 - only where it is asked

    return by_engine(job, rows)


def check(section: TeacherSection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise DistillError for rows that cannot be asked about."""
    if not rows:
        raise DistillError("there are no rows to ask the teacher about")
    wanted = ("prompt", "completion") if section.give == "scores" else ("prompt",)
    for number, row in enumerate(rows, 1):
        for name in wanted:
            if not isinstance(row.get(name), str) or not row[name].strip():
                raise DistillError(f"row {number} has no text in `{name}`, which {section.give} need")


def selected(job: Job, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float]]:
    """Rows to ask about, with the probability with which each came to be chosen."""
    if job.section.select == "all":
        most = job.section.most or len(rows)
        return [(row, 1.0) for row in rows[:most]]
    from stepwell.distill.select import selected as by_value  # noqa: PLC0415 - numpy

    return by_value(job.section, rows, job.out / "minilm")


def usable(
    rows: Sequence[Mapping[str, Any]], picked: Sequence[tuple[Mapping[str, Any], float]], asked: Asked
) -> tuple[float, float, float] | None:
    """The share of all traffic whose prompts the teacher answers well; None where not all were asked."""
    if asked.why:
        return None
    from stepwell.distill.select import usable as share_of_all  # noqa: PLC0415 - numpy

    good = {each.at for each in asked.outcomes if not each.reason}
    return share_of_all(rows, picked, [at in good for at in range(len(picked))])


def summed(job: Job, told: str, num_rows: int, asked: Asked) -> Taught:
    """The summary."""
    spent = job.answers.spent()
    apart = Counter(each.reason.partition(":")[0] for each in asked.outcomes if each.reason)
    return Taught(
        teacher=job.section.name,
        terms=told,
        give=job.section.give,
        num_rows=num_rows,
        num_kept=sum(not each.reason for each in asked.outcomes),
        apart=dict(apart.most_common()),
        calls=spent.calls,
        usd=spent.usd,
        complete=not asked.why,
        why=asked.why,
    )


def write(job: Job, outcomes: Sequence[Outcome], made: Taught) -> None:
    """Write rows, what is kept apart, and the summary; each file whole or not at all."""
    tables.write(job.out / "rows.jsonl", (each.row for each in outcomes if not each.reason))
    tables.write(job.out / "apart.jsonl", ({**each.row, "reason": each.reason} for each in outcomes if each.reason))
    incoming = job.out / "taught.json.part"
    incoming.write_bytes(msgspec.json.format(msgspec.json.encode(made)) + b"\n")
    incoming.replace(job.out / "taught.json")
