"""One run of a search: parent, many recipes by KL, few by score in the engine, times, gate.

Whatever was computed lies under `work/` by the hash of all that it hangs on, so a search that was killed or ran out of
time goes on. The gate split is read once, in an order that is written down before.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from stepwell.campaigns import quantize_engine, quantize_score
from stepwell.campaigns.quantize_files import Files
from stepwell.campaigns.quantize_job import Board, Clock, Job, Results, TimeIsUpError, Train
from stepwell.campaigns.quantize_model import NUM_JUDGED, Parent
from stepwell.campaigns.quantize_task import Row
from stepwell.errors import DistillError
from stepwell.quality.files import lay
from stepwell.quantize import candidates, search
from stepwell.quantize.frontier import Difference, Point, divergence, expected_of, measure_of, size, spread, unbeaten
from stepwell.quantize.halving import better, promising, rungs
from stepwell.quantize.recipe import uniform
from stepwell.quantize.search import Found, Plan, Status

PLAN, POINTS, FOUND, ORDER, WORK = "plan.json", "points.json", "found.json", "order.json", "work"
PARENT, PARENT_FORMAT = "parent", "F16"
FINALISTS = 8
"""Recipes that the halving by KL leaves."""
PART = 3
"""One in so many search rows is asked first."""
SCORED = 4
"""Recipes that are then asked all of them."""
REFINED = 2
"""Times that further ones are asked, between the smallest that passes and the largest that does not."""
STEPS = 4
"""Times that those which the gate would test, by what is known then, are asked all search rows."""
SIDE_BY_SIDE = 2
"""Files that answer at the same time, each on one core."""
KL_SHARE = 0.5
"""Of the budget, at most, for what needs no engine."""
RESERVE = 1.2
"""What is asked may take so much longer than expected."""
LEAST_TRAINING_S = 30.0
LEAST_GATED = 2
"""Candidates for which the gate's time is kept from the beginning."""


class Search:
    """The run."""

    def __init__(self, job: Job, plan: Plan, clock: Clock) -> None:
        self.job, self.plan, self.clock = job, plan, clock
        (job.out / WORK).mkdir(exist_ok=True)
        known = msgspec.json.encode((plan.model_sha256, plan.seed, plan.stepwell))
        self.results = Results(job.out / WORK, known + job.task.identity)
        self.model = Parent(job, self.results, clock)
        self.files = Files(job, self.results, self.model)
        self.board = Board(job.out / POINTS)
        self.parent = Point(name=PARENT, recipe=uniform(PARENT_FORMAT, "round"), bits=16.0, num_bytes=0, kl=0.0)
        self.expected, self.measure = expected_of(job.target), measure_of(job.target)
        self.left_out: list[str] = []
        self.scoring_s = 0.0
        """What asking one file all search rows took."""

    def run(self) -> Found:
        """Search until there is a verdict, or the budget ends."""
        try:
            return self.verdict()
        except TimeIsUpError:
            best = min((each for each in self.full if each.passes), key=self.expected, default=None)
            kind = "CPU seconds" if self.clock.cpu else "seconds"
            why = f"the budget of {self.job.budget_s:.0f} {kind} ended before the verdict; the same command goes on"
            return self.found("incomplete", why, best, ())
        finally:
            self.board.write()

    def verdict(self) -> Found:
        """The phases, in order."""
        self.begin()
        ordered = self.stated()
        if ordered is None:
            self.by_score(self.by_divergence())
            self.refine()
            self.presets()
            self.steps()
            self.time()
            self.train()
            ordered = self.state()
        return self.gate(ordered)

    def found(self, status: Status, why: str, winner: Point | None, tested: Sequence[Point]) -> Found:
        """What stands."""
        return Found(
            status=status,
            why=why,
            parent=self.parent,
            winner=winner,
            points=tuple(sorted(self.board.points.values(), key=size)),
            tested=tuple(each.name for each in tested),
            left_out=tuple(self.left_out),
            spent_s=self.clock.spent_s,
        )

    # --- what things take

    @property
    def num_rows(self) -> int:
        """Search rows."""
        return len(self.job.task.search)

    @property
    def full(self) -> list[Point]:
        """What was asked all of them."""
        return [each for each in self.board.points.values() if each.num_searched == self.num_rows]

    def seconds(self, rows: Sequence[Row]) -> float:
        """What asking a file these rows is expected to take."""
        return RESERVE * self.scoring_s * len(rows) / self.num_rows

    @property
    def reserve_s(self) -> float:
        """What the gate takes at least: the parent, and some candidates."""
        return (1 + LEAST_GATED) * self.seconds(self.job.task.gate)

    def fits(self, rows: Sequence[Row]) -> int:
        """How many files can be asked these rows, the gate's time aside."""
        return int((self.clock.left_s - self.reserve_s) / max(self.seconds(rows), 1e-3))

    def room(self, what: str, need_s: float) -> bool:
        """Whether there is time for something that can be left out, the gate's aside."""
        enough = self.clock.left_s > need_s + self.reserve_s
        if not enough and what not in self.left_out:
            self.left_out.append(what)
        return enough

    # --- the phases

    def begin(self) -> None:
        """The parent's 16-bit file, and what it says."""
        self.job.watch("parent")
        file = self.files.made(self.parent)
        said = quantize_engine.answers(self.job, self.results, self.clock, file, self.job.task.search)
        self.scoring_s = said.cpu_s if self.clock.cpu else said.wall_s
        told = self.compared(self.job.task.search, file)
        check_parent(told)
        self.parent = replace(self.parent, num_bytes=file.stat().st_size, searched=told, num_searched=self.num_rows)

    def by_divergence(self) -> list[Point]:
        """The finalists of the halving by KL."""
        self.job.watch("divergence")
        shapes, until_s = self.model.shapes, self.clock.left_s - KL_SHARE * self.job.budget_s
        points = candidates.distinct([*candidates.uniforms(shapes), *self.mixtures()], shapes)
        points = [replace(each, nanoseconds=self.model.nanoseconds(each.recipe)) for each in points]
        plan = rungs(len(points), FINALISTS, min(NUM_JUDGED, self.num_rows))
        for rung, num in zip(plan, [*(each.num for each in plan[1:]), FINALISTS], strict=True):
            points = better(self.looked(points, rung.rows), num, self.expected, divergence)
            if self.clock.left_s < until_s:
                self.left_out.append("rungs of the halving by KL")
                break
        self.looked(candidates.presets(shapes), rung.rows)
        return points[: 2 * FINALISTS]

    def mixtures(self) -> list[Point]:
        """Mixtures of all sizes, by the sensitivities."""
        table = self.model.table()
        choices = table.choices(self.model.cost)
        picks = candidates.picks(choices, candidates.budgets(choices, self.job.num_mixed))
        return [candidates.mixed(table.recipe(each), self.model.shapes) for each in picks]

    def looked(self, points: Sequence[Point], num_rows: int) -> list[Point]:
        """The same points with their divergence on so many rows."""
        found = []
        for at, each in enumerate(points, 1):
            moved = self.model.moved(each.recipe, num_rows)
            found.append(self.board.put(replace(each, kl=moved.kl, kl_error=moved.error)))
            self.job.tell(at, len(points), f"KL on {num_rows} texts")
        return found

    def by_score(self, points: Sequence[Point]) -> None:
        """Ask the finalists a part of the rows, and all of them whoever is promising then."""
        self.job.watch("score")
        part, every = self.job.task.search[::PART], self.job.task.search
        num = min(len(points), max(2, self.fits(part) // 2))
        asked = self.scores(spread(sorted(points, key=self.expected), num), part)
        self.scores(promising(asked, max(1, min(SCORED, self.fits(every))), self.expected), every)

    def scores(self, points: Sequence[Point], rows: Sequence[Row]) -> list[Point]:
        """Points with their scores on these search rows, some files answering side by side."""
        found = []
        for at in range(0, len(points), SIDE_BY_SIDE):
            self.clock.check(self.seconds(rows) + self.reserve_s)
            now = points[at : at + SIDE_BY_SIDE]
            self.ask(now, rows)
            found += [self.scored(each, rows) for each in now]
        return found

    def ask(self, points: Sequence[Point], rows: Sequence[Row]) -> None:
        """Have files answer side by side, each in one thread; their answers are kept."""
        files = [self.files.made(each) for each in points]
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            list(pool.map(lambda file: quantize_engine.answers(self.job, self.results, self.clock, file, rows), files))

    def scored(self, point: Point, rows: Sequence[Row]) -> Point:
        """The point with its score on these search rows."""
        file = self.files.made(point)
        told = self.compared(rows, file)
        size_bytes, named = file.stat().st_size, self.files.sha256(point)
        return self.board.update(point.name, num_bytes=size_bytes, sha256=named, searched=told, num_searched=len(rows))

    def compared(self, rows: Sequence[Row], file: Path) -> tuple[Difference, ...]:
        """A file's answers beside the parent's."""
        plan = self.plan
        said, parent = (
            quantize_engine.answers(self.job, self.results, self.clock, each, rows).texts
            for each in (file, self.files.made(self.parent))
        )
        return quantize_score.compared(rows, said, parent, plan)

    def refine(self) -> None:
        """Halve the gap between the smallest that passes and the largest that does not, a few times."""
        self.job.watch("refine")
        for _ in range(REFINED):
            gap = self.gap()
            if not gap or not self.room("refining", self.seconds(self.job.task.search)):
                return
            inner = {gap[len(gap) // 3].name: gap[len(gap) // 3], gap[2 * len(gap) // 3].name: gap[2 * len(gap) // 3]}
            self.scores(list(inner.values()), self.job.task.search)

    def gap(self) -> list[Point]:
        """What was not fully asked yet, between the smallest that passes and the next smaller one that does not."""
        full, every = self.full, list(self.board.points.values())
        most = min((self.expected(each) for each in full if each.passes), default=float("inf"))
        failed = [each for each in every if each.hopeless or (each in full and not each.passes)]
        least = max((self.expected(each) for each in failed if self.expected(each) < most), default=0.0)
        return [each for each in unbeaten(self.open, self.expected, divergence) if least < self.expected(each) < most]

    def steps(self) -> None:
        """Ask all search rows of what the gate would test, until that is what it will test."""
        self.job.watch("steps")
        for _ in range(STEPS):
            known = self.board.points.values()
            ordered = search.order(known, self.expected, alpha=self.plan.alpha, num_gated=self.plan.num_rows["gate"])
            left = [each for each in ordered if each not in self.full]
            if not left or not self.room("steps", self.seconds(self.job.task.search)):
                return
            self.scores(left[: self.fits(self.job.task.search)], self.job.task.search)

    @property
    def open(self) -> list[Point]:
        """What was not asked all rows yet, and may still pass."""
        full = self.full
        return [each for each in self.board.points.values() if each not in full and not (each.preset or each.hopeless)]

    def presets(self) -> None:
        """Ask what anybody would take, too: it may win, and the picture shows it."""
        self.job.watch("presets")
        every = [each for each in self.board.points.values() if each.preset]
        for at in range(0, len(every), SIDE_BY_SIDE):
            if self.room("some presets", self.seconds(self.job.task.search)):
                self.scores(every[at : at + SIDE_BY_SIDE], self.job.task.search)

    def time(self) -> None:
        """Time whatever was fully asked, and the parent, in turns."""
        self.job.watch("time")
        full = self.full
        need_s = len(full) * self.seconds(self.job.task.search) / 2
        if self.job.target == "size" and not self.room("timing", need_s):
            return
        files = {each.name: self.files.made(each) for each in [self.parent, *full]}
        told = quantize_engine.timed(self.job, self.results, self.clock, files, self.plan.cpu_hour_usd)
        self.parent = replace(self.parent, speed=told[PARENT])
        for each in full:
            self.board.update(each.name, speed=told[each.name])

    def train(self) -> None:
        """Train for a smaller file, where nothing that passes is small enough."""
        wanted = self.wanted()
        need_s, teach = self.seconds(self.job.task.search), self.job.train
        if wanted is None or teach is None or not self.room("training", LEAST_TRAINING_S + need_s):
            return
        self.job.watch("train")
        point = replace(wanted, name=f"{wanted.name} trained", trained=True, searched=(), num_searched=0, preset=False)
        self.board.put(self.taught(point, teach, need_s))
        self.scores([point], self.job.task.search)
        self.time()

    def taught(self, point: Point, teach: Train, need_s: float) -> Point:
        """A point's file, made of what training finds, and how far that has moved; `need_s`: kept for the rest."""
        judged = min(NUM_JUDGED, self.num_rows)
        if not self.files.path(point).is_file():
            left_s = self.clock.left_s - self.reserve_s - need_s
            folder = self.results.path("train", point.recipe, "")
            codes = teach(self.job.model, point.recipe, self.job.task, folder, left_s)
            self.model.trained(point.recipe, judged, codes)
            self.files.made(point, codes)
        moved = self.model.trained(point.recipe, judged)
        return replace(point, kl=moved.kl, kl_error=moved.error)

    def wanted(self) -> Point | None:
        """What is to be trained for: the nearest to the parent of what is small enough; None where something passes."""
        limit = self.job.at_most * self.measure(self.parent) or float("inf")
        if any(each.passes and self.measure(each) <= limit for each in self.full):
            return None
        every = [each for each in self.board.points.values() if not each.preset]
        if self.job.at_most:
            share = limit / self.measure(self.parent)
            every = [each for each in every if self.share(each) <= share]
        return min(every, key=divergence, default=None)

    def share(self, point: Point) -> float:
        """What a recipe is expected to take, beside the parent's 16-bit file."""
        if self.job.target != "size":
            return point.nanoseconds / max(1, self.model.nanoseconds(self.parent.recipe))
        weights = sum(rows * width for rows, width in self.model.shapes.values())
        return 1 - (16 - point.bits) * weights / 8 / self.parent.num_bytes

    # --- the gate

    def stated(self) -> list[Point] | None:
        """The gate's order, where it was written down already."""
        path = self.job.out / ORDER
        if not path.is_file():
            return None
        for each in msgspec.json.decode((self.job.out / POINTS).read_bytes(), type=list[Point]):
            self.board.put(each)
        parent, *ordered = msgspec.json.decode(path.read_bytes(), type=list[Point])
        self.parent = parent
        return ordered

    def state(self) -> list[Point]:
        """Write down in what order the gate will test, before it is read."""
        fitting = int(self.clock.left_s / max(self.seconds(self.job.task.gate), 1e-3)) - 1
        most = max(1, min(search.MOST_GATED, fitting))
        sizes = self.plan.num_rows
        order = partial(search.order, alpha=self.plan.alpha, num_gated=sizes["gate"], num_searched=sizes["search"])
        left = list(self.board.points.values())
        ordered = order(left, self.measure, most)
        while unsound := [each for each in ordered if not self.sound(each)]:
            left = [each for each in left if each not in unsound]
            ordered = order(left, self.measure, most)
        self.board.write()
        lay(self.job.out / ORDER, msgspec.json.format(msgspec.json.encode([self.parent, *ordered]), indent=1) + b"\n")
        return ordered

    def sound(self, point: Point) -> bool:
        """Whether the engine computes with a file what it should; else it takes no part."""
        self.clock.check()
        complaint = self.files.complaint(point)
        if complaint:
            self.left_out.append(f"{point.name}: {complaint}")
        return not complaint

    def gate(self, ordered: Sequence[Point]) -> Found:
        """The verdict."""
        self.job.watch("gate")
        rows, places = self.job.task.gate, {each.name: at for at, each in enumerate(ordered, 1)}

        def test(point: Point) -> tuple[Difference, ...]:
            at = places[point.name]
            if at == 1 or not at % SIDE_BY_SIDE:
                begin = at - at % SIDE_BY_SIDE
                self.ask([self.parent, *ordered][begin : begin + SIDE_BY_SIDE], rows)
            return self.compared(rows, self.files.made(point))

        tested, winner = search.gated(ordered, test)
        for each in tested:
            self.board.put(each)
        if winner is None:
            what = (
                "the gate split did not confirm the first candidate" if tested else "all are worse on the search split"
            )
            return self.found("none", f"no recipe qualifies: {what}; the model stays as it is", None, tested)
        passed = "; ".join(f"{told.metric} {told.score:.4g} against {told.parent:.4g}" for told in winner.gated)
        return self.found("found", f"{winner.name} keeps the quality on the gate split: {passed}", winner, tested)


def check_parent(told: Sequence[Difference]) -> None:
    """Raise DistillError where the parent itself is so bad at the task that anything would be within the margin."""
    for each in told:
        if each.parent <= each.margin:
            what = f"the model itself has {each.parent:.3g} of {each.metric} on the search split: with a margin of"
            raise DistillError(f"{what} {each.margin:g} anything passes; train it, or see to scorer and prompts")
