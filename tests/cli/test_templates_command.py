"""`stepwell templates …` as an operator types it."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest

from stepwell.cli.main import main
from stepwell.templates.compile import bundle
from stepwell.templates.schema import Schema, Slot

SCHEMA = """
name = "cup"
channel = "page"
[slots.name]
kind = "text"
[slots.wins]
kind = "number"
low = 0
high = 100
"""


def texts(folder: Path, source: str) -> Path:
    schema = Schema(name="cup", slots=(Slot(name="name", kind="text"),))
    (folder / "en.json").write_bytes(bundle(schema, "en", {"t": [source]}))
    return folder / "en.json"


@pytest.fixture
def _signing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["templates", "key"]) == 0
    key = capsys.readouterr().out.strip()
    assert len(b64decode(key)) == 32
    monkeypatch.setenv("STEPWELL_SIGNING_KEY", key)


@pytest.mark.usefixtures("_signing")
def test_publish_status_kill_and_rollback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = str(tmp_path / "site")
    assert main(["templates", "status", site]) == 1
    assert main(["templates", "publish", site, str(texts(tmp_path, "Hi {$name}"))]) == 0
    assert main(["templates", "publish", site, str(texts(tmp_path, "Ho {$name}"))]) == 0
    assert main(["templates", "status", site]) == 0
    assert main(["templates", "kill", site]) == 0
    assert main(["templates", "status", site]) == 1
    assert main(["templates", "rollback", site, "1"]) == 0
    assert main(["templates", "rollback", site, "99"]) == 2
    assert main(["templates", "key", "--public"]) == 0
    told = capsys.readouterr()
    assert "version 2 of cup is live" in told.out
    assert "killed: version 3" in told.out
    assert "the content of version 1 is live as version 4" in told.out
    assert "there is no version 99" in told.err


@pytest.mark.usefixtures("_signing")
def test_fill_takes_what_is_live(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site, users, out = str(tmp_path / "site"), tmp_path / "users.csv", tmp_path / "out.jsonl"
    assert main(["templates", "publish", site, str(texts(tmp_path, "Hi {$name}"))]) == 0
    users.write_text("reader,name\nr1,007\nr2,\n")
    fill = ["templates", "fill", "--site", site, "--template", "t", "--audience", str(users), "--out", str(out)]
    assert main(fill) == 0
    assert out.read_text().splitlines() == [
        '{"reader":"r1","text":"Hi 007","variant":0,"reason":null}',
        '{"reader":"r2","text":null,"variant":null,"reason":"name: missing"}',
    ]
    assert main([*fill, "--locale", "fr"]) == 2
    assert main(["templates", "kill", site]) == 0
    assert main(fill) == 2
    assert "killed" in capsys.readouterr().err


def test_without_a_key_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STEPWELL_SIGNING_KEY", raising=False)
    assert main(["templates", "publish", str(tmp_path / "site"), str(texts(tmp_path, "Hi {$name}"))]) == 2
    assert "`stepwell templates key` makes one" in capsys.readouterr().err


def test_check_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema, good, bad = tmp_path / "schema.toml", tmp_path / "good.mf2", tmp_path / "bad.mf2"
    schema.write_text(SCHEMA)
    good.write_text("Well done, {$name}: {$wins}!\n")
    bad.write_text("Well done, {$name}: {$wins} wins!\n")
    assert main(["templates", "check", str(schema), str(good), "--name", "name+wins"]) == 0
    assert main(["templates", "check", str(schema), str(good), str(bad), "--name", "name+wins"]) == 1
    assert "bad.mf2: refused (plurals)" in capsys.readouterr().out
    assert main(["templates", "check", str(schema), str(tmp_path / "none.mf2")]) == 2


def test_review_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    checked = tmp_path / "3-check-x"
    checked.mkdir()
    lines = [
        f'{{"locale":"en","name":"t","source":"{text}","origin":"writer"}}' for text in ("one", "two", "three", "four")
    ]
    (checked / "drafts.jsonl").write_text("\n".join(lines))
    typed = iter(["a", "x", "r", "dull", "e", "three, better", "q"])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    assert main(["templates", "review", str(tmp_path)]) == 0
    assert "3 of 4 decided" in capsys.readouterr().out
    kept = (tmp_path / "review.jsonl").read_text()
    assert [word in kept for word in ("approve", "dull", "three, better", "four")] == [True, True, True, False]
    assert main(["templates", "review", str(tmp_path / "nowhere")]) == 2


MEASURED = """
import resource, sys
from pathlib import Path
import polars as pl
from stepwell.templates.audience import Wanted, run
num = int(sys.argv[2])
folder = Path(sys.argv[1])
pl.DataFrame({"reader": pl.int_range(num, eager=True).cast(pl.String), "name": "Name " + pl.int_range(num, eager=True).cast(pl.String)}).lazy().sink_parquet(folder / "users.parquet", row_group_size=100_000)
"""
FILLED = """
import resource, sys
from pathlib import Path
from stepwell.templates.audience import Wanted, run
folder = Path(sys.argv[1])
counts = run(folder / "users.parquet", folder / "out.parquet", Wanted((folder / "en.json").read_bytes(), "t"))
print(counts.filled, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_an_audience_ten_times_as_large_needs_no_ten_times_the_memory(tmp_path: Path) -> None:
    texts(tmp_path, "Hi {$name}, " + "a long text that takes its room in memory, " * 3)
    peaks_mb = {}
    for num in (300_000, 3_000_000):
        subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path), str(num)], check=True)
        done = subprocess.run([sys.executable, "-c", FILLED, str(tmp_path)], check=True, capture_output=True, text=True)
        filled, peaks_mb[num] = map(int, done.stdout.split())
        assert filled == num
    # Three million such texts are half a gigabyte.
    assert peaks_mb[3_000_000] < peaks_mb[300_000] + 250, peaks_mb
