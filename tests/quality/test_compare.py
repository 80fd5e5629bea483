"""The gate's statistics: intervals and tests that are right as often as they say, plans, verdicts."""

from __future__ import annotations

import itertools
import math
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import optimize, stats

from stepwell.errors import ConfigError, DistillError
from stepwell.quality import paired, resample
from stepwell.quality.compare import GatePlan, Pair, judge, pairs_of
from stepwell.quality.text import bleu, counts
from stepwell.quality.verdict import lines, passing, read, written
from stepwell.quality.verify import verifier

WORDS = [f"w{place}" for place in range(40)]
Counts = tuple[int, int, int]


@some.composite
def drawn(draw: some.DrawFn) -> Counts:
    num = draw(some.integers(1, 3000))
    gains = draw(some.integers(0, num))
    return gains, draw(some.integers(0, num - gains)), num


@given(drawn(), some.floats(0.005, 0.2))
def test_an_interval_holds_the_difference_and_turns_with_the_question(told: Counts, alpha: float) -> None:
    gains, losses, num = told
    low, high = paired.interval(gains, losses, num, alpha)
    assert -1 <= low <= (gains - losses) / num <= high <= 1
    turned = paired.interval(losses, gains, num, alpha)
    assert turned == pytest.approx((-high, -low), abs=1e-9)
    wider = paired.interval(gains, losses, num, alpha / 2)
    assert wider[0] <= low
    assert wider[1] >= high


@given(drawn(), some.floats(0.01, 0.2), some.floats(0.005, 0.2))
def test_the_interval_is_what_the_test_does_not_reject(told: Counts, alpha: float, margin: float) -> None:
    gains, losses, num = told
    low, _ = paired.interval(gains, losses, num, alpha)
    p = float(paired.p_value(gains, losses, num, margin))
    if abs(p - alpha) > 1e-6:
        assert (p < alpha) == (low > -margin)


@given(drawn(), some.floats(-0.3, 0.3))
@settings(max_examples=50)
def test_the_variance_is_that_of_the_likeliest_world_with_this_difference(told: Counts, difference: float) -> None:
    gains, losses, num = told

    def unlikely(lost: float) -> float:
        shares = np.maximum([lost + difference, lost, 1 - 2 * lost - difference], 1e-15)
        return -float(np.array([gains, losses, num - gains - losses]) @ np.log(shares))

    least, most = max(0.0, -difference), (1 - difference) / 2
    best = optimize.minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
    expected = num * (2 * best + difference * (1 - difference))
    assert float(paired.variance(gains, losses, num, difference)) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_without_a_difference_it_is_mcnemars_test_with_a_half() -> None:
    gains, losses, num = 31, 52, 700
    expected = (gains - losses - 0.5) / math.sqrt(gains + losses)
    assert float(paired.score(gains, losses, num, 0.0)) == pytest.approx(expected)
    asymptotic = stats.norm.cdf(expected)
    exact = stats.binomtest(gains, gains + losses, alternative="less").pvalue
    assert exact == pytest.approx(asymptotic, abs=0.005)


@pytest.mark.parametrize("num", [40, 120, 400])
@pytest.mark.parametrize("margin", [0.03, 0.08])
@pytest.mark.parametrize("only_one", [0.0, 0.1, 0.4])
def test_a_student_at_the_margin_passes_no_more_often_than_promised(num: int, margin: float, only_one: float) -> None:
    """Exact: every pair of counts with its probability."""
    losses_share, gains_share = margin + only_one / 2, only_one / 2
    most = 3 * int(num * losses_share) + 40
    gains, losses = np.meshgrid(np.arange(min(num, most)), np.arange(min(num, most)), indexing="ij")
    likely = stats.multinomial.pmf(
        np.stack([gains, losses, np.maximum(num - gains - losses, 0)], axis=-1),
        num,
        [gains_share, losses_share, 1 - gains_share - losses_share],
    )
    passes = (paired.p_value(gains, losses, num, margin) <= 0.05) & (gains + losses <= num)
    assert likely[passes].sum() <= 0.05


def test_planned_pairs_let_equals_pass_as_often_as_planned() -> None:
    chance = np.random.default_rng(1)
    for num_tests, margin, discordance in ((1, 0.02, 0.1), (3, 0.05, 0.2), (6, 0.05, 0.05)):
        plan = GatePlan(margin=margin, discordance=discordance, power=0.9, slices=tuple("abcdef"[:num_tests]))
        num = plan.needed()
        shares = [discordance / 2, discordance / 2, 1 - discordance]
        told = chance.multinomial(num, shares, size=(4000, num_tests))
        p = np.sort(paired.p_value(told[..., 0], told[..., 1], num, margin), axis=1)
        levels = 0.05 / np.arange(num_tests, 0, -1)
        assert 0.89 <= (p <= levels).all(axis=1).mean() <= 0.94


@given(some.lists(some.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_is_at_most_bonferroni(p_values: list[float]) -> None:
    adjusted = paired.holm(p_values)
    for one, other in itertools.pairwise(np.argsort(p_values, kind="stable")):
        assert adjusted[one] <= adjusted[other]
    for p, adjusted_p in zip(p_values, adjusted, strict=True):
        assert p <= adjusted_p <= min(1.0, len(p_values) * p) + 1e-12


def test_all_pass_counts_as_a_simulation_does() -> None:
    chance = np.random.default_rng(2)
    chances = [0.5, 0.7, 0.8, 0.95]
    drawn_p = np.sort(chance.random((200_000, 4)), axis=1)
    assert paired.all_pass(chances) == pytest.approx((drawn_p <= np.array(chances)).all(axis=1).mean(), abs=0.005)


# --- BLEU


def texts(num: int, right: float, seed: int) -> tuple[list[str], list[list[str]]]:
    chance = Random(seed)
    said, references = [], []
    for _ in range(num):
        base = [chance.choice(WORDS) for _ in range(chance.randint(1, 25))]
        references.append([" ".join(base), " ".join(base[1:] + base[:1])])
        said.append(" ".join(word if chance.random() < right else chance.choice(WORDS) for word in base))
    return said, references


@given(some.integers(1, 60), some.floats(0, 1), some.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_summed_counts_give_the_corpus_score(num: int, right: float, seed: int) -> None:
    said, references = texts(num, right, seed)
    sums = np.array(counts(said, references), dtype=float).sum(axis=0)
    assert float(resample.bleu(sums)) == pytest.approx(bleu(said, references).score, abs=1e-9)


def test_slopes_are_what_a_small_change_does() -> None:
    said, references = texts(30, 0.8, 5)
    brief = [" ".join(each.split()[1:]) for each in said]
    sums = np.array(counts(brief, references), dtype=float).sum(axis=0)
    for place in range(resample.SIZE):
        step = np.zeros(resample.SIZE)
        step[place] = 1e-4
        rise = (resample.bleu(sums + step) - resample.bleu(sums - step)) / 2e-4
        assert resample.slopes(sums)[place] == pytest.approx(float(rise), rel=1e-4, abs=1e-6)


def test_the_bootstrap_holds_the_truth_as_often_as_it_says() -> None:
    """Samples of a population whose difference is known."""
    chance = np.random.default_rng(3)
    better, references = texts(1500, 0.9, 6)
    worse, _ = texts(1500, 0.87, 7)
    worse = [" ".join(words) for words in ([*one.split()[:-1], "x"] if Random(place).random() < 0.2 else one.split()
             for place, one in enumerate(better))]  # fmt: skip
    first, second = (np.array(counts(each, references), dtype=float) for each in (worse, better))
    truth = float(resample.bleu(first.sum(axis=0)) - resample.bleu(second.sum(axis=0)))
    told = []
    for seed in range(300):
        rows = chance.integers(0, len(first), 120)
        told.append(resample.compare(first[rows], second[rows], margin=-truth, alpha=0.05, resamples=400, seed=seed))
    assert np.mean([each.low > truth for each in told]) <= 0.09
    assert np.mean([each.high < truth for each in told]) <= 0.09
    assert np.mean([each.p <= 0.05 for each in told]) <= 0.09


def test_equal_texts_are_surely_no_worse() -> None:
    said, references = texts(50, 0.8, 8)
    rows = np.array(counts(said, references), dtype=float)
    told = resample.compare(rows, rows, margin=1.0, alpha=0.05, resamples=200, seed=0)
    assert (told.difference, told.low, told.high) == (0, 0, 0)
    assert told.p <= 0.01
    assert resample.compare(rows, rows, margin=-1.0, alpha=0.05, resamples=200, seed=0).p == 1


# --- verdicts


def made(num: int, student: float, teacher: float, *, name: str = "", seed: int = 0) -> list[Pair]:
    chance = Random(seed)
    rows = []
    for place in range(num):
        one, other = ("P" if chance.random() < right else "-" for right in (student, teacher))
        rows.append(Pair(f"{name}{place}", f"x[P] {place}", one, other, name))
    return rows


PLAN = GatePlan(verify="values", margin=0.05, discordance=0.1)


def test_an_equal_student_passes_and_a_worse_one_does_not() -> None:
    assert judge(PLAN, made(600, 0.97, 0.97)).decision == "promote"
    worse = judge(PLAN, made(600, 0.80, 0.97))
    assert (worse.decision, worse.findings[0].found) == ("refuse", "inferior")
    assert "worse by more than the margin" in worse.reason
    unclear = judge(PLAN, made(600, 0.93, 0.97))
    assert (unclear.decision, unclear.findings[0].found) == ("refuse", "not shown")


def test_too_few_pairs_are_not_looked_at() -> None:
    def never(prompt: str, text: str) -> list[str]:
        raise AssertionError((prompt, text))

    report = judge(PLAN, made(100, 1, 1), never)
    assert report.decision == "cannot tell"
    assert report.findings[0].reason == f"only 100 pairs: it needs {PLAN.needed()}"
    assert judge(PLAN, [], never).findings[0].reason == f"no pairs: it needs {PLAN.needed()}"


def test_every_slice_counts_and_is_named() -> None:
    plan = GatePlan(verify="values", margin=0.05, slices=("a", "b", "c"))
    num = plan.needed()
    rows = made(num, 1, 1, name="a") + made(num, 0.7, 1, name="b")
    report = judge(plan, rows + made(num, 1, 1, name="c"))
    assert [each.found for each in report.findings] == ["non-inferior", "inferior", "non-inferior"]
    assert report.decision == "refuse"
    assert report.reason.startswith("b, right: inferior")
    with pytest.raises(DistillError, match="no slice 'd'"):
        judge(plan, made(3, 1, 1, name="d"))


def test_no_slice_is_looked_at_before_all_can_be() -> None:
    plan = GatePlan(verify="values", margin=0.05, slices=("a", "b"))
    num = plan.needed()
    report = judge(plan, made(num, 0.5, 1, name="a") + made(num - 1, 1, 1, name="b"))
    assert report.decision == "cannot tell"
    assert [each.reason for each in report.findings] == [
        f"{num} pairs, enough: it is looked at once every slice has as many",
        f"only {num - 1} pairs: it needs {num}",
    ]


def test_slices_that_are_known_from_the_prompt_pass_apart() -> None:
    plan = GatePlan(verify="values", margin=0.05, slices=("pub", "cafe"), slice_by="slot:kind")
    num = plan.needed()
    rows = [
        Pair(f"{kind}{place}", f"kind[{kind}], n[{place}]", f"{kind} {place}" if good else "", f"{kind} {place}")
        for kind, good in (("pub", True), ("cafe", False))
        for place in range(num)
    ]
    report = judge(plan, rows)
    assert (report.decision, passing(report.findings)) == ("promote", ["pub"])
    assert report.reason.startswith("for pub; not for cafe, right: inferior")
    assert judge(plan, rows[num:]).decision == "refuse"
    assert judge(plan, rows[:num]).decision == "promote"
    assert judge(plan, rows[: num - 1]).decision == "cannot tell"
    with pytest.raises(ConfigError, match=r"gate\.slice_by: needs `slices`"):
        msgspec.structs.replace(plan, slices=())
    with pytest.raises(ConfigError, match=r"gate\.slice_by: 'kind' names no function"):
        judge(msgspec.structs.replace(plan, slice_by="kind"), rows)


def test_a_prompt_counts_once() -> None:
    rows = made(600, 1, 1)
    doubled = rows + [msgspec.structs.replace(row, id=f"again {row.id}") for row in rows[:50]]
    report = judge(PLAN, doubled)
    assert (report.num_repeated, report.findings[0].num_pairs) == (50, 600)


def test_the_same_as_the_teacher_is_a_metric_too() -> None:
    plan = GatePlan(verify="same", margin=0.05)
    rows = [Pair(str(place), f"q{place}", "Yes, sir!", "yes sir") for place in range(600)]
    assert judge(plan, rows).decision == "promote"
    rows[:100] = [msgspec.structs.replace(row, student="No") for row in rows[:100]]
    assert judge(plan, rows).findings[0].found == "inferior"


def test_bleu_is_a_second_test_of_every_slice() -> None:
    plan = GatePlan(verify="values", margin=0.05, bleu_margin=5.0, bleu_spread=20.0, resamples=300)
    num = plan.needed()
    assert num > PLAN.needed(), "two tests take more pairs"
    said, references = texts(num, 0.9, 9)
    rows = [
        Pair(str(place), f"x[w] {place}", one, one, references=tuple(others))
        for place, (one, others) in enumerate(zip(said, references, strict=True))
    ]
    report = judge(plan, rows)
    assert [(each.metric, each.found) for each in report.findings] == [
        ("right", "non-inferior"),
        ("bleu", "non-inferior"),
    ]
    worse = [msgspec.structs.replace(row, student=row.student + " and more words") for row in rows]
    assert judge(plan, worse).findings[1].found == "inferior"
    with pytest.raises(DistillError, match="has no references"):
        judge(plan, [msgspec.structs.replace(row, references=()) for row in rows])


def test_a_report_is_read_as_it_was_written_and_names_its_reasons() -> None:
    report = judge(PLAN, made(600, 0.97, 0.97), model="abc", tries=2)
    assert read(written(report)) == report
    assert (report.margin, report.alpha, report.model) == (0.05, 0.05, "abc")
    shown = "\n".join(lines(report))
    for part in ("promote", "against 96.83 %", "margin 5.00", "number 2", report.plan_sha256[:16]):
        assert part in shown
    with pytest.raises(DistillError, match="no verdict"):
        read("{}")


@pytest.mark.parametrize(
    ("row", "what"),
    [({"prompt": "a", "student": "b"}, "teacher"), ({"prompt": 1, "student": "b", "teacher": "c"}, "prompt")],
)
def test_a_row_that_is_no_pair_is_told_with_its_line(row: dict[str, object], what: str) -> None:
    good = {"id": 7, "prompt": "a", "student": "b", "teacher": "c", "slice": "x", "more": 1}
    assert pairs_of([good])[0].id == "7"
    with pytest.raises(DistillError, match=f"rows.jsonl:2: is no pair: .*{what}"):
        pairs_of([good, row], file="rows.jsonl")
    with pytest.raises(DistillError, match="2: the id '7' comes twice"):
        pairs_of([good, good])


def test_an_unknown_verifier_is_an_error_of_the_plan() -> None:
    with pytest.raises(ConfigError, match=r"gate\.verify"):
        judge(GatePlan(verify="nobody"), made(1, 1, 1))
    assert judge(PLAN, made(600, 1, 1), verifier("values")) == msgspec.structs.replace(
        judge(PLAN, made(600, 1, 1)), at=judge(PLAN, made(600, 1, 1), verifier("values")).at
    )


@pytest.mark.parametrize("verify", ["same", "anything"])
def test_a_teacher_without_an_answer_is_wrong_and_counted(verify: str) -> None:
    plan = msgspec.structs.replace(PLAN, verify="same")
    pairs = made(plan.needed(), 1, 1)
    silent = [msgspec.structs.replace(pair, teacher=" ", student="") for pair in pairs[:9]]
    report = judge(plan, [*silent, *pairs[9:]], None if verify == "same" else lambda *_: [])
    assert report.num_unanswered == 9
    assert report.findings[0].teacher == pytest.approx(1 - 9 / len(pairs))
    assert "9 prompts have no answer of the teacher" in "\n".join(lines(report))
