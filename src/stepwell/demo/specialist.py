"""The last act: a student of the house writer is judged by what was captured, promoted, and answers another city."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from pathlib import Path

from msgspec import Struct
from rich.console import Console

import stepwell
from stepwell.campaigns.served import served
from stepwell.demo import city
from stepwell.demo.child import CAPTURED, gateway, writer_table
from stepwell.demo.play import Played, play
from stepwell.demo.read import told
from stepwell.demo.story import Story
from stepwell.demo.table import table
from stepwell.demo.traffic import MAX_TOKENS, MODEL, asks, num_distinct
from stepwell.demo.watch import watched
from stepwell.quality.compare import GatePlan, Pair
from stepwell.quality.files import sha256_of
from stepwell.quality.gate import gate
from stepwell.quality.promotion import Promotion
from stepwell.quality.verdict import Report
from stepwell.signing import new_key, trusted
from stepwell.synth import row

STUDENT = Path(stepwell.__file__).parents[2] / "models" / "house-student"
NUM_VENUES = 200
MOST_PAIRS = 600
PLAN = GatePlan(verify="slots", margin=0.03, discordance=0.02, power=0.9)
TABLES = """
[engines.house-student]
type = "embedded"
path = {student}
threads = 1

[specialists.house-student]
engine = "house-student"
routes = ["{route}"]
promotion = {promotion}
public_keys = ["{key}"]
verify = "slots"
judge = "verify:slots_apart"
tries = 3
max_tokens = {max_tokens}
deadline_ms = 20000 # two cores have readers, writer, student and gateway on them

[promise]
error = {error}
"""


class Act(Struct, frozen=True):
    """What it came to."""

    report: Report
    story: Story
    num_bytes: tuple[int, int]
    """Of the student's file and of the writer's."""


def student_file() -> Path | None:
    """The student that ships, if it is there."""
    return next(iter(sorted(STUDENT.glob("*.gguf"))), None)


def played(folder: Path, writer: Path, student: Path, console: Console, *, num: int, seed: int) -> Act:
    """Judge, promote, and ask about another city. Raises StepwellError."""
    own = folder / "specialist"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    key = new_key()
    report = gate(own / "gate", PLAN, pairs(folder / CAPTURED, student), model=sha256_of(student), key=key)
    if report.decision == "promote":
        Promotion(own / "gate").promote(trusted((), key), to="live", because="the demo ends in a minute")
    tables = TABLES.format(
        student=quoted(student),
        route=MODEL,
        promotion=quoted(own / "gate"),
        key=b64encode(key.public.public_bytes_raw()).decode(),
        max_tokens=MAX_TOKENS,
        error=PLAN.margin,
    )
    asked = asks(city.questions(NUM_VENUES, seed + 1), num, seed + 1)
    with gateway(own, "house-writer", writer_table(writer), tables) as place, watched(num, console) as tell:
        done = play(asked, place, tell)
    story = told(
        own / "ledger.db",
        title="City guide, with a specialist",
        examples=(),
        num_distinct=num_distinct(asked),
        num_errors=num_errors(done),
        wall_s=max(one.at_s + one.seconds for one in done),
    )
    return Act(report, story, (student.stat().st_size, writer.stat().st_size))


def pairs(captured: Path, student: Path) -> list[Pair]:
    """What was captured, with what the student says to it."""
    rows = {each.prompt: each for tenant in sorted(captured.glob("*")) for each in row.read(tenant)}
    some = list(rows.values())[:MOST_PAIRS]
    texts = served(student, [each.prompt for each in some], max_tokens=MAX_TOKENS, watch=lambda _: None).texts
    return [Pair(each.id, each.prompt, text, each.completion) for each, text in zip(some, texts, strict=True)]


def num_errors(done: list[Played]) -> int:
    """Requests that were not answered."""
    return sum(bool(one.error) for one in done)


def quoted(path: Path) -> str:
    """A path as TOML."""
    return json.dumps(str(path), ensure_ascii=False)


def show(act: Act, console: Console) -> None:
    """The verdict, and the table."""
    (finding,) = act.report.findings
    student, writer = act.num_bytes
    shares = (
        f"{finding.student:.1%} of its answers say their facts and nothing else, {finding.teacher:.1%} of the writer's"
    )
    found = shares if finding.found != "cannot tell" else finding.reason
    console.print(
        f"The student's file has {student:,} bytes, the writer's {writer:,}. On {finding.num_pairs:,} captured "
        f"questions: {found}. The gate says {act.report.decision}.",
        highlight=False,
    )
    console.print(table(act.story, console.width))
