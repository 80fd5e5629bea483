"""`stepwell ledger` as a user runs it: a table, JSON, CSV, and one clear line where something is wrong."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from stepwell.cli.ledger import decimals, since
from stepwell.cli.main import main
from stepwell.ledger.entry import Entry
from stepwell.ledger.file import insert, opened

NOON_S = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC).timestamp()
ENTRY = Entry(
    id="req",
    at_s=NOON_S,
    tenant="acme",
    principal="ada",
    model="well",
    kind="chat",
    stream=0,
    step="large",
    engine="up",
    status=200,
    complete=1,
    input_tokens=1000,
    output_tokens=500,
    tokens_estimated=0,
    seconds=0.2,
    first_s=0.1,
    usd=0.5,
    large_usd=0.5,
    large_estimated=0,
    visits='[["cache","deferred","miss",0.001,0],["large","answered","up",0.1,0]]',
)
HIT = msgspec.structs.replace(
    ENTRY, step="cache", usd=0.0, seconds=0.001, large_estimated=1, visits='[["cache","answered","hit",0.001,0]]'
)
LATER = msgspec.structs.replace(HIT, tenant="zeta", at_s=NOON_S + 86_400)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    database = opened(path)
    with database:
        insert(database, list(map(astuple, (ENTRY, HIT, HIT, LATER))))
    database.close()
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["ledger", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_the_table_has_a_row_a_step_and_a_total(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "--path", ledger).splitlines()
    assert lines[0].split("  ")[-1] == "failed"
    assert " ".join(lines[2].split()) == "cache 4 3 75.0% 1.00 1.00 3,000 1,500 0.0000 1.5000 1.5000 100.0% 0"
    assert " ".join(lines[3].split()) == "large 1 1 25.0% 200.00 200.00 1,000 500 0.5000 0.5000 0.0000 0.0% 0"
    assert " ".join(lines[5].split()) == "total 5 4 100.0% 4,000 2,000 0.5000 2.0000 1.5000 75.0% 0"
    assert len({len(line) for line in lines[:6]}) == 1
    assert lines[-1] == "75.0% of requests: what the large model would have cost is estimated."
    assert lines[0].isascii(), "a terminal that knows only ASCII can show it"
    assert lines[1].isascii()


def test_by_tenant_since_a_day_as_json(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(shown(capsys, "--path", ledger, "--by", "tenant", "--json"))
    assert [(line["name"], line["requests"]) for line in told["lines"]] == [("acme", 3), ("zeta", 1)]
    assert told["total"]["saved_usd"] == 1.5
    told = json.loads(shown(capsys, "--path", ledger, "--by", "tenant", "--since", "2026-11-02", "--json"))
    assert [line["name"] for line in told["lines"]] == ["zeta"]


def test_by_day_as_csv(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(capsys, "--path", ledger, "--by", "day", "--csv"))))
    assert [(row["name"], row["requests"], row["saved_share"]) for row in rows] == [
        ("2026-11-01", "3", str(2 / 3)),
        ("2026-11-02", "1", "1.0"),
    ]


def test_one_sentence_where_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened(tmp_path / "new.db").close()
    assert shown(capsys, "--path", tmp_path / "new.db").endswith("has no entries yet.\n")
    assert shown(capsys, "--path", tmp_path / "new.db", "--since", "1h").endswith("has no entries since then.\n")


def test_the_configuration_says_where_the_ledger_is(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stepwell.toml").write_text(f"[ledger]\npath = {json.dumps(str(ledger))}\n")
    assert "total" in shown(capsys, "--config", tmp_path / "stepwell.toml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--path", "none.db"], "stepwell: there is no ledger at none.db; start `stepwell serve`"),
        (["--config", "none.toml"], "stepwell: none.toml: cannot be read"),
        (["--since", "yesterday"], "is neither a date (2026-11-01) nor a span (90m, 24h, 7d, 4w)"),
        (["--since", f"{'9' * 400}d"], "is neither a date"),
        (["--by", "moon"], "invalid choice: 'moon'"),
        (["--json", "--csv"], "not allowed with argument"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(words: list[str], said: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "stepwell.cli", "ledger", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.stdout


def test_a_terminal_of_another_tongue_gets_the_table_too(ledger: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "stepwell.cli", "ledger", "--path", str(ledger)],
        capture_output=True,
        check=True,
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert b"total" in ended.stdout


@given(st.integers(0, 999_999), st.sampled_from("mhdw"))
def test_a_span_goes_back_from_now(num: int, unit: str) -> None:
    seconds = num * {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}[unit]
    assert since(f"{num}{unit}") == pytest.approx(dt.datetime.now(dt.UTC).timestamp() - seconds, abs=60)


@given(st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2200, 1, 1)))  # noqa: DTZ001 - as a user writes it
def test_a_date_without_a_zone_is_utc(moment: dt.datetime) -> None:
    assert since(moment.isoformat()) == moment.replace(tzinfo=dt.UTC).timestamp()


@given(st.text(max_size=12))
def test_any_other_text_is_refused_and_nothing_else(text: str) -> None:
    try:
        assert isinstance(since(text), float)
    except ArgumentTypeError as error:
        assert "neither" in str(error)  # noqa: PT017 - both ways are right


@given(st.floats(0, 1e9))
def test_larger_sums_show_fewer_digits(most_usd: float) -> None:
    assert decimals(most_usd) in (2, 4, 6)
    assert decimals(most_usd) >= decimals(most_usd * 10)
