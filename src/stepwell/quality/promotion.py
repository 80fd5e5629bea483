"""Where a specialist stands: in the shadow, a canary, live or rolled back; and what audits said of it.

One SQLite file that all processes share. An audit and the roll-back that follows from it are one transaction: whatever
is killed, both are there or neither. The test looks after every audit (`sequential.py`), so that nobody has to wait for
a number of them, and it never forgets one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Literal, get_args

import msgspec
from msgspec import Struct

from stepwell.alone import alone
from stepwell.errors import DistillError, StoreError
from stepwell.quality.files import lay
from stepwell.quality.sequential import Counts, bounds, is_no_worse, is_worse
from stepwell.quality.verdict import FILE as VERDICT
from stepwell.quality.verdict import Report, read
from stepwell.signing import Trusted, authentic

Stage = Literal["shadow", "canary", "live", "rolled back"]
STAGES: tuple[Stage, ...] = get_args(Stage)
NEXT: dict[str, Stage] = {"": "shadow", "shadow": "canary", "canary": "live"}
"""How a promotion goes on."""
FILE = "promotion.db"
PATIENCE_S = 5.0
TABLES = """
CREATE TABLE moves (at_s REAL, stage TEXT, reason TEXT, verdict TEXT, about TEXT, margin REAL, alpha REAL);
CREATE TABLE audits (
    about TEXT, stage TEXT, gains INTEGER, losses INTEGER, ties INTEGER, PRIMARY KEY (about, stage)
);
"""
COUNT = """
INSERT INTO audits VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET gains = gains + excluded.gains, losses = losses + excluded.losses, ties = ties + excluded.ties
"""


class Standing(Struct, frozen=True):
    """A promotion at one moment."""

    stage: Stage | Literal[""] = ""
    """Empty: nothing was ever promoted."""
    reason: str = ""
    at_s: float = 0.0
    verdict: str = ""
    """SHA-256 of the signed verdict by which it was promoted."""
    about: str = ""
    """The model and what it was judged on: see `Report.about`."""
    margin: float = 0.0
    alpha: float = 0.0
    counts: Counts = Counts()
    """Audits of this model since it was judged on these pairs, in whatever stage."""


class Promotion:
    """The folder of one specialist."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FILE
        self.reader: sqlite3.Connection | None = None
        self.inode = 0
        """Of the file that `reader` has open."""

    def standing(self) -> Standing:
        """How it stands, in microseconds: for one thread. Raises StoreError."""
        try:
            inode = self.path.stat().st_ino
            if self.reader is None or inode != self.inode:
                self.close()
                self.reader, self.inode = sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level=None), inode
            return standing(self.reader)
        except FileNotFoundError:
            return Standing()
        except (OSError, sqlite3.Error) as error:
            raise self.failed(error) from error

    def close(self) -> None:
        """Let go of the file."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def record(self, about: str, *, student: bool, teacher: bool) -> Standing:
        """Count an audit of what a verdict was about: who was right; roll back where that shows it worse.

        Raises StoreError.
        """
        with self.writing() as database:
            now = standing(database)
            if now.about != about:
                return now  # another one stands there by now
            row = (about, now.stage, student and not teacher, teacher and not student, student == teacher)
            database.execute(COUNT, row)
            then = standing(database)
            if then.stage != "rolled back" and is_worse(then.counts, then.margin, then.alpha):
                move(database, "rolled back", f"audits: {told(then)}", then)
            return standing(database)

    def promote(self, keys: Trusted, *, to: Stage | None = None, because: str = "") -> Standing:
        """Go one stage on, or to a stage, by the signed verdict in the folder.

        Raises DistillError where the verdict does not say so, or audits have not shown it to be good enough to go live;
        `because` is a person's reason to do that all the same.
        """
        digest, report = self.verdict(keys)
        if report.decision != "promote":
            raise DistillError(f"the gate says {report.decision}: {report.reason}", file=str(self.folder / VERDICT))
        with self.writing() as database:
            now = standing(database)
            now = judged(now, digest, report)
            check(now, goal := to or following(now), because)
            lay(self.folder / kept(digest), (self.folder / VERDICT).read_bytes())
            move(database, goal, because or (report.reason if not now.stage else f"audits: {told(now)}"), now)
            return standing(database)

    def roll_back(self, why: str) -> Standing:
        """Serve it no more, from this moment on and in every process. Raises DistillError where nothing stands."""
        with self.writing() as database:
            now = standing(database)
            if not now.stage:
                raise DistillError("nothing was promoted here", file=str(self.folder))
            move(database, "rolled back", f"by hand: {why}", now)
            return standing(database)

    def verdict(self, keys: Trusted, digest: str = "") -> tuple[str, Report]:
        """The last verdict, or the one by which something stands, and its SHA-256.

        Raises DistillError where there is none, NotAuthentic where none of the keys signed it.
        """
        path = self.folder / (kept(digest) if digest else VERDICT)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DistillError(f"no verdict ({error.strerror}); run `stepwell distill gate`", file=str(path)) from error
        found = sha256(data).hexdigest()
        if digest and found != digest:
            raise DistillError("the verdict was changed after the promotion", file=str(path))
        return found, read(authentic(data, keys), file=str(path))

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when it ends. Raises StoreError."""
        self.make()
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous=FULL")
                database.execute("BEGIN IMMEDIATE")
                with database:
                    yield database
        except sqlite3.Error as error:
            raise self.failed(error) from error

    def make(self) -> None:
        """Create the file, once: made beside its place, and moved there whole."""
        if self.path.exists():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.path):
                if not self.path.exists():
                    begun(self.path)
        except (OSError, sqlite3.Error) as error:
            raise self.failed(error) from error

    def failed(self, error: Exception) -> StoreError:
        """What to say of a file that cannot be used."""
        return StoreError(f"the promotion {self.path} cannot be read or written: {error}")


def begun(path: Path) -> None:
    """Write an empty file to its place."""
    incoming = path.with_name(f".{path.name}")
    incoming.unlink(missing_ok=True)
    with closing(sqlite3.connect(incoming)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript(TABLES)
    incoming.replace(path)


def standing(database: sqlite3.Connection) -> Standing:
    """The last move, with all audits of its verdict."""
    last = database.execute(
        "SELECT stage, reason, at_s, verdict, about, margin, alpha FROM moves ORDER BY rowid DESC LIMIT 1"
    ).fetchone()
    if last is None:
        return Standing()
    stage, reason, at_s, verdict, about, margin, alpha = last
    sums = "SELECT total(gains), total(losses), total(ties) FROM audits WHERE about = ?"
    counts = Counts(*map(int, database.execute(sums, (about,)).fetchone()))
    return Standing(stage, reason, at_s, verdict, about, margin, alpha, counts)


def judged(now: Standing, digest: str, report: Report) -> Standing:
    """The standing under a verdict: what another model did, or this one before it was judged anew, does not count."""
    if now.about == report.about:
        return msgspec.structs.replace(now, verdict=digest, margin=report.margin, alpha=report.alpha)
    return Standing(verdict=digest, about=report.about, margin=report.margin, alpha=report.alpha)


def move(database: sqlite3.Connection, stage: Stage, reason: str, of: Standing) -> None:
    """Put it into another stage."""
    row = (time(), stage, reason, of.verdict, of.about, of.margin, of.alpha)
    database.execute("INSERT INTO moves VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def following(now: Standing) -> Stage:
    """The stage after this one; live stays live, and what was rolled back begins again."""
    return "live" if now.stage == "live" else NEXT.get(now.stage, "shadow")


def check(now: Standing, goal: Stage, because: str) -> None:
    """Raise DistillError where a stage may not follow."""
    if is_worse(now.counts, now.margin, now.alpha):
        raise DistillError(f"audits have shown it to be worse: {told(now)}; train another one, and judge that")
    if goal == "live" and not because and not is_no_worse(now.counts, now.margin, now.alpha):
        what = f"audits have not yet shown it to be good enough: {told(now)}"
        raise DistillError(f"{what}; wait for more, or go live all the same with --because REASON")


def told(now: Standing) -> str:
    """What audits say."""
    counts = now.counts
    if not counts.num:
        return "none yet"
    low, high = bounds(counts, now.alpha)
    only = f"only the teacher right in {counts.losses}, only the student in {counts.gains}"
    return f"{counts.num}, {only}: {low:+.2%} to {high:+.2%}, margin -{now.margin:.2%}"


def kept(digest: str) -> str:
    """The name under which the verdict of a promotion stays."""
    return f"verdict-{digest[:16]}.json"
