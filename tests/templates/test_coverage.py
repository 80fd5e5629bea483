"""What readers did decides what is shown; what was asked decides what is written next."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from ledger.made import settled, write
from stepwell.cli.main import main
from stepwell.errors import TemplateError
from stepwell.templates.bandit import TOTAL, Arm, Rules, best, novelty, recovered, weigh, weights
from stepwell.templates.compile import bundle
from stepwell.templates.outcomes import Outcome, read
from stepwell.templates.schema import Schema, Slot
from stepwell.types import Visit

TEMPLATE = Visit("template", "deferred", "no template is named", 0.0)


def test_the_better_variant_is_shown_more_and_nobody_is_judged_unseen() -> None:
    told = [Outcome("t", 0, 30, 1000), Outcome("t", 1, 90, 1000), Outcome("t", 2, 0, 10), Outcome("other", 0, 1, 1)]
    (found,) = weights(told, {"t": 3}).values()
    assert sum(found) == TOTAL
    assert found[1] > found[0]
    assert found[2] >= TOTAL // 3 - 1
    assert weights(told, {"t": 3}, Rules(excluded={"t": frozenset({1})}))["t"][1] == 0
    assert weights(told, {"t": 3}, Rules(segment="x"))["t"] == [334, 333, 333]


def test_chances_of_being_best_are_those_of_thompsons_draws() -> None:
    posteriors = [(31.0, 971.0), (41.0, 961.0), (36.0, 966.0)]
    chance = random.Random(1)
    wins = [0, 0, 0]
    for _ in range(20_000):
        draws = [chance.betavariate(a, b) for a, b in posteriors]
        wins[draws.index(max(draws))] += 1
    for exact, drawn in zip(best(posteriors), wins, strict=True):
        assert abs(exact - drawn / 20_000) < 0.02


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_weights_are_whole_and_add_up(counts: list[tuple[int, int]]) -> None:
    arms = [Arm(float(max(pair)), float(min(pair))) for pair in counts]
    assert sum(weigh(arms, Rules(), frozenset())) == TOTAL


def test_what_was_just_seen_counts_less() -> None:
    assert novelty(None, Rules()) == 1.0
    assert novelty(0.0, Rules()) == 0.5
    assert 0.7 < novelty(15.0, Rules()) < 0.8
    assert recovered([500, 500], {0: 0.0}) == [250, 500]


def test_outcomes_are_read_and_wrong_ones_told(tmp_path: Path) -> None:
    lines = tmp_path / "o.jsonl"
    lines.write_text('{"template": "t", "variant": 1, "success": 1}\n\n{"template": "t", "variant": 0, "days": 2.5}\n')
    assert list(read(lines)) == [Outcome("t", 1, 1), Outcome("t", 0, days=2.5)]
    table = tmp_path / "o.csv"
    table.write_text("template,variant,success,shown\nt,2,3,10\n")
    assert list(read(table)) == [Outcome("t", 2, 3, 10)]
    for text in (
        '{"template": "t"}',
        '{"template": "t", "variant": -1}',
        '{"template": "t", "variant": 0, "success": 9}',
        "x",
    ):
        lines.write_text(text + "\n")
        with pytest.raises(TemplateError, match=r"o\.jsonl:1"):
            list(read(lines))
    with pytest.raises(TemplateError):
        list(read(tmp_path / "none.jsonl"))


def test_coverage_says_what_to_write_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = Schema(name="c", slots=(Slot(name="name", kind="text"), Slot(name="wins", kind="number", high=9, low=0)))
    (tmp_path / "en.json").write_bytes(
        bundle(schema, "en", {"name": ["Hi {$name}"], "name+wins": ["{$name}: {$wins}"]})
    )
    requests = [{"name": "Ann"}] * 6 + [{"name": "Ann", "team": "Ajax"}] * 3 + [{"name": "Ann", "wins": "x"}]
    chats = [{"messages": [{"role": "user", "content": text}]} for text in ("hello", '{"name": "Bo", "wins": 3}')]
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(json.dumps(each) for each in [*requests, *chats]))
    assert main(["templates", "coverage", "--bundle", str(tmp_path / "en.json"), "--requests", str(file)]) == 0
    told = capsys.readouterr().out
    assert "58.3% of 12 requests answered" in told
    assert "name+team" in told
    assert "25.0%" in told
    file.write_text("{broken")
    assert main(["templates", "coverage", "--bundle", str(tmp_path / "en.json"), "--requests", str(file)]) == 2
    assert main(["templates", "coverage", "--ledger", str(tmp_path / "none.db")]) == 2


def test_coverage_counts_what_the_cache_lacked_blanks_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ledger.db"
    lacking = Visit("cache", "refused", "meaning: no blanks for date+money", 0.0)
    miss = Visit("cache", "deferred", "meaning: nothing near is known", 0.0)
    for number, visits in enumerate(((lacking,), (lacking,), (miss,))):
        one = settled(number)
        write(file, structs.replace(one, outcome=structs.replace(one.outcome, visits=(TEMPLATE, *visits))))
    assert main(["templates", "coverage", "--ledger", str(file)]) == 0
    told = capsys.readouterr().out
    assert "blanks for date+money" in told
    assert "66.7%" in told
    assert "nothing near" not in told
