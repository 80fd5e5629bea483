"""The rule of a search, what halving keeps, the frontier, and the picture and card that people see."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, pairwise
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.errors import ConfigError
from stepwell.quantize import candidates
from stepwell.quantize.allocate import Choice
from stepwell.quantize.card import card
from stepwell.quantize.frontier import Difference, Point, Speed, divergence, layers, measure_of, size, spread, unbeaten
from stepwell.quantize.halving import better, promising, rungs
from stepwell.quantize.picture import Axis, picture, rounded
from stepwell.quantize.recipe import Recipe, Rule, uniform
from stepwell.quantize.search import Found, Margins, Plan, best_from, differing, gated, likely, margins, order

SHAPES = {"embed_tokens.weight": (2048, 256), "layers.0.mlp.up_proj.weight": (768, 256)}


def difference(gap: float, half: float = 0.2, margin: float = 0.5) -> Difference:
    return Difference("bleu", 60 + gap, 60.0, gap - half, gap + half, 0.01, margin)


def point(name: str, num_bytes: int = 1000, kl: float = 0.1, gap: float = 0.0, **known: object) -> Point:
    fields = {"searched": (difference(gap),), "num_searched": 10, **known}
    return msgspec.structs.replace(
        Point(name=name, recipe=uniform("Q4_0"), bits=4.5, num_bytes=num_bytes, kl=kl),
        **fields,
    )


POINTS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40), st.floats(-2, 1)), min_size=1, max_size=30).map(
    lambda told: [point(f"p{at}", a, b / 10, gap) for at, (a, b, gap) in enumerate(told)]
)


# --- the frontier and the halving


@given(POINTS)
def test_the_unbeaten_are_those_that_nothing_beats(points: list[Point]) -> None:
    kept = unbeaten(points, size, divergence)
    for each in points:
        beaten = any(
            size(other) <= size(each)
            and divergence(other) <= divergence(each)
            and (size(other), divergence(other)) != (size(each), divergence(each))
            for other in points
        )
        twin = any((size(other), divergence(other)) == (size(each), divergence(each)) for other in kept)
        assert twin is not beaten
    assert [size(each) for each in kept] == sorted(size(each) for each in kept)


@given(POINTS, st.integers(1, 30))
def test_the_better_ones_are_never_beaten_by_one_that_was_left_out_of_a_full_layer(
    points: list[Point], num: int
) -> None:
    kept = better(points, num, size, divergence)
    assert len(kept) == min(num, len(points))
    assert len({each.name for each in kept}) == len(kept)
    depth = {each.name: at for at, layer in enumerate(layers(points, size, divergence)) for each in layer}
    left = [each for each in points if each.name not in {one.name for one in kept}]
    assert all(depth[one.name] <= depth[other.name] for one in kept for other in left)


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 600))
def test_rungs_ask_less_of_fewer_and_end_with_all_rows(num: int, finalists: int, rows: int) -> None:
    found = rungs(num, finalists, rows)
    assert found[0].num == num and found[-1].rows == rows  # noqa: PT018
    assert all(one.num >= other.num and one.rows <= other.rows for one, other in pairwise(found))
    assert all(each.rows >= min(rows, 16) for each in found)
    assert found[-1].num >= min(num, finalists)


@given(POINTS, st.integers(1, 8))
def test_the_promising_hold_the_nearest_and_the_smallest_that_may_pass(points: list[Point], num: int) -> None:
    kept = promising(points, num, size)
    hopeful = [each for each in points if not each.hopeless]
    assert all(not each.hopeless for each in kept)
    assert len(kept) <= max(2, num)
    if hopeful:
        assert min(map(size, hopeful)) in {size(each) for each in kept}
        assert min(map(divergence, hopeful)) in {divergence(each) for each in kept}


@given(st.lists(st.integers(), min_size=1, max_size=40), st.integers(1, 50))
def test_what_is_spread_has_both_ends(values: list[int], num: int) -> None:
    kept = spread([point(str(at)) for at in range(len(values))], num)
    assert len(kept) == min(num, len(values))
    assert kept[0].name == "0"
    assert num == 1 or kept[-1].name == str(len(values) - 1)


# --- the rule


@given(POINTS, st.integers(1, 6))
def test_the_gate_tests_the_nearest_first_then_smaller_and_smaller(points: list[Point], most: int) -> None:
    ordered = order(points, size, most, alpha=0.05, num_gated=10)
    hopeful = [each for each in points if not each.hopeless]
    assert len(ordered) <= most
    assert bool(ordered) is bool(hopeful)
    assert all(not each.hopeless for each in ordered)
    if ordered:
        assert divergence(ordered[0]) == min(map(divergence, hopeful))
        assert all(size(one) > size(other) for one, other in pairwise(ordered))
        assert all(divergence(one) < divergence(other) for one, other in pairwise(ordered))


def promised(points: Sequence[Point], chances: dict[str, float]) -> float:
    """What testing these in this order is expected to spare, beside the first."""
    total, reached = 0.0, 1.0
    for one, other in pairwise(points):
        reached *= chances[other.name]
        total += reached * (size(one) - size(other))
    return total


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0.01, 1.0)), min_size=1, max_size=6), st.integers(1, 4))
def test_no_other_order_promises_more(told: list[tuple[int, float]], most: int) -> None:
    points = sorted((point(f"p{at}", a) for at, (a, _) in enumerate(told)), key=size, reverse=True)
    chances = {f"p{at}": b for at, (_, b) in enumerate(told)}
    found = best_from(points, [chances[each.name] for each in points], size, most)
    others = [promised([points[0], *some], chances) for num in range(most) for some in combinations(points[1:], num)]
    assert promised(found, chances) == pytest.approx(max(others))
    assert len(found) <= most


def test_luck_on_the_search_split_is_not_believed() -> None:
    """A file far from the parent that happened to score well is tried last, and what is surely good before it."""
    points = [
        point("Q8_0", 670, 0.00002, 0.0, searched=(difference(0.0, 0.07),)),
        point("5.6", 465, 0.0011, -0.1, searched=(difference(-0.1, 0.16),)),
        point("4.5", 386, 0.012, 0.55, searched=(difference(0.55, 0.4),)),
    ]
    chances = likely(points, 0.05, 10)
    assert chances["Q8_0"] > 0.99
    assert chances["5.6"] > 0.99
    assert 0.3 < chances["4.5"] < 0.8
    assert [each.name for each in order(points, size, alpha=0.05, num_gated=10)] == ["Q8_0", "5.6", "4.5"]


def test_what_was_asked_little_is_no_step_and_still_beats_others() -> None:
    points = [point("Q8_0", 670, 0.0001), point("rounded", 465, 0.006), point("mixed", 440, 0.004, num_searched=3)]
    assert [each.name for each in order(points, size, alpha=0.05, num_gated=10, num_searched=10)] == ["Q8_0"]


def test_what_falls_with_kl_is_expected_of_all() -> None:
    points = [point(f"p{at}", 100 - at, at / 10, -at / 5, searched=(difference(-at / 5, 0.1),)) for at in range(1, 5)]
    chances = likely(points, 0.05, 10)
    assert chances["p1"] > 0.99
    assert chances["p4"] < 0.001
    assert likely(points, 0.05, 40)["p2"] > chances["p2"]  # more rows tell more


def test_what_a_smaller_file_beats_in_kl_is_no_step() -> None:
    """A rounded file that a smaller one beats would only be one more that can fail by chance."""
    points = [point("Q8_0", 670, 0.0001), point("rounded", 465, 0.006), point("mixed", 440, 0.004)]
    assert [each.name for each in order(points, size, alpha=0.05, num_gated=10)] == ["Q8_0", "mixed"]


@given(st.lists(st.booleans(), max_size=8))
def test_the_first_that_fails_ends_it_and_the_last_that_passed_wins(passes: list[bool]) -> None:
    asked: list[str] = []

    def test(each: Point) -> tuple[Difference, ...]:
        asked.append(each.name)
        return (difference(0.0 if passes[int(each.name)] else -2.0),)

    tested, winner = gated([point(str(at)) for at in range(len(passes))], test)
    first = passes.index(False) if False in passes else len(passes)
    assert asked == [str(at) for at in range(min(first + 1, len(passes)))]
    assert [each.name for each in tested] == asked
    assert (winner.name if winner else None) == (str(first - 1) if first else None)


def test_a_bad_file_wins_no_more_often_than_alpha() -> None:
    chance, alpha, margin, wins, runs = random.Random(0), 0.05, 0.5, 0, 4000
    for _ in range(runs):

        def test(each: Point) -> tuple[Difference, ...]:
            true = 0.0 if each.name == "good" else -margin  # worse by the whole margin: the hardest that must not win
            return (difference(chance.gauss(true, 0.1), half=1.645 * 0.1),)

        _, winner = gated([point("good"), point("bad"), point("bad"), point("bad")], test)
        wins += winner is not None and winner.name == "bad"
    assert wins / runs < alpha + 3 * (alpha * (1 - alpha) / runs) ** 0.5


def test_every_metric_must_pass() -> None:
    right = Difference("right", 0.9, 1.0, -0.12, -0.08, 0.9, 0.01)
    assert not point("a", searched=(difference(0.0), right)).passes
    assert point("a", searched=(difference(0.0), right)).hopeless
    assert not point("a", searched=()).passes


@pytest.mark.parametrize(
    ("told", "bleu", "facts", "wanted"),
    [
        ("0.5bleu", True, False, Margins(bleu=0.5)),
        (" .5 BLEU", True, True, Margins(bleu=0.5, right=0.01)),
        ("0.01", False, False, Margins(right=0.01)),
    ],
)
def test_margins_are_read_as_people_write_them(told: str, bleu: bool, facts: bool, wanted: Margins) -> None:  # noqa: FBT001
    assert margins(told, bleu=bleu, facts=facts) == wanted


@pytest.mark.parametrize(
    ("told", "bleu", "said"),
    [
        ("much", True, "write a share such as 0.01, or points of BLEU"),
        ("-0.1", False, "write a share"),
        ("0", False, "write a share"),
        ("0.01", True, "points of BLEU"),
        ("0.5bleu", False, "a share of right answers"),
        ("1", False, "anything passes"),
        ("100bleu", True, "anything passes"),
        ("nan", False, "write a share"),
    ],
)
def test_a_margin_that_says_nothing_is_refused(told: str, bleu: bool, said: str) -> None:  # noqa: FBT001
    with pytest.raises(ConfigError, match=said):
        margins(told, bleu=bleu, facts=False)


# --- candidates


def test_budgets_rise_evenly_from_the_least_to_the_most() -> None:
    choices = {"a": [Choice("Q2_K", 100, 1.0), Choice("Q8_0", 400, 0.1)]}
    found = candidates.budgets(choices, 5)
    assert (found[0], found[-1], len(found)) == (100, 400, 5)
    assert candidates.budgets({"a": [Choice("Q8_0", 7, 0.0)]}, 5) == [7]


def test_every_preset_that_fits_is_a_candidate_and_twins_are_one() -> None:
    found = candidates.presets(SHAPES)
    assert [each.recipe.default.format for each in found] == list(candidates.PRESETS)
    narrow = candidates.presets({"a": (10, 96)})
    assert [each.recipe.default.format for each in narrow] == ["Q8_0", "Q5_0", "Q4_0"]
    twin = candidates.mixed(Recipe(Rule("Q4_0"), (Rule("Q4_0", match="embed*"),)), SHAPES)
    kept = candidates.distinct([*candidates.uniforms(SHAPES), twin], SHAPES)
    assert twin not in kept
    assert len(kept) == len(candidates.PRESETS)


# --- what people see


def plan(**other: object) -> Plan:
    told = Plan(
        model="a <model>",
        model_sha256="0" * 64,
        task="e2e",
        scorer="bleu",
        splits={"calibration": "1" * 64, "search": "2" * 64, "gate": "3" * 64},
        num_rows={"calibration": 10, "search": 5, "gate": 5},
        margins=Margins(0.5, 0.01),
        alpha=0.05,
        target="size",
        at_most=0.0,
        seed=0,
        resamples=1000,
        max_tokens=96,
        cpu_hour_usd=0.04,
        stepwell="0",
        rule="the smallest",
    )
    return msgspec.structs.replace(told, **other)


def found(winner: Point | None, points: tuple[Point, ...]) -> Found:
    return Found(
        status="found" if winner else "none",
        why="it keeps the quality",
        parent=point("parent", 7_900_000, 0.0),
        winner=winner,
        points=points,
        tested=("a",),
        left_out=("timing",),
        spent_s=1.0,
    )


def test_the_picture_holds_every_scored_point_and_marks_the_winner() -> None:
    timed = Speed(0.5, 90.0, 0.0001)
    points = tuple(
        point(f"p<{at}>", 900_000 + 300_000 * at, 0.3 / (at + 1), at / 10 - 0.3, speed=timed, preset=at == 2)
        for at in range(5)
    )
    drawn = picture(points, point("parent", 7_900_000, 0.0), "p<1>", "a <title>")
    tree = ET.fromstring(drawn)  # noqa: S314 - our own text
    circles = [each for each in tree.iter() if each.tag.endswith("circle") and len(each)]
    assert len(circles) == 5 * 5 + 1  # size, three times, KL, and the 16-bit file, which was not timed
    assert sum("winner" in (each.get("class") or "") for each in circles) == 5
    assert tree.get("aria-label") == "a <title>"


def test_a_picture_of_little_is_a_picture() -> None:
    for points in ((), (point("a", kl=0.0),), (point("a", searched=(), num_searched=0),)):
        ET.fromstring(picture(points, point("parent"), "", "nothing yet"))  # noqa: S314


def test_the_card_says_what_won_by_which_rule_on_which_rows() -> None:
    won = point("mixed 3.1", 1_500_000, gated=(difference(-0.1),), sha256="ab" * 32)
    told = card(plan(), found(won, (won, point("Q8_0"))), "model.gguf")
    assert "**found**" in told
    assert "19.0% of the 16-bit file's bytes" in told
    assert "`model.gguf`: 1,500,000 bytes" in told
    assert "-0.30 to +0.10" in told
    assert "the smallest" in told
    assert "`3333333333333333`" in told
    assert "Left out for want of time: timing." in told
    assert "**none**" in card(plan(), found(None, ()), "model.gguf")
    trained = msgspec.structs.replace(won, trained=True)
    assert "keep the file" in card(plan(), found(trained, (trained,)), "model.gguf")


def test_plans_tell_in_what_they_differ() -> None:
    assert differing(plan(), plan()) == []
    assert differing(plan(), plan(alpha=0.1, target="cost")) == ["alpha", "target"]
    assert plan().sha256 != plan(seed=1).sha256


@given(st.floats(1e-9, 1e9), st.floats(1.0001, 1e6))
def test_axes_have_few_round_ticks_within_them(low: float, ratio: float) -> None:
    plain, log = Axis(low, low * ratio, 0, 100), Axis(low, low * ratio, 0, 100, log=True)
    assert all(low <= each <= low * ratio * (1 + 1e-9) for each in (*plain.ticks, *log.ticks))
    assert len(plain.ticks) <= 6
    assert 0 <= plain.at(low / 2) <= plain.at(low * ratio * 2) <= 100
    assert rounded(ratio) >= ratio * (1 - 1e-6)


def test_what_was_not_timed_is_never_the_fastest() -> None:
    slow = point("slow", speed=Speed(9.0, 1.0, 1.0))
    for target in ("latency", "cost"):
        assert min([point("unknown"), slow], key=measure_of(target)) is slow
