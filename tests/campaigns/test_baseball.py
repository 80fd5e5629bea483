"""The sports campaigns: real seasons and players, from the Lahman database to texts."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from conftest import ROOT
from stepwell.cli.main import main
from stepwell.signing import new_key

needs_data = pytest.mark.skipif(
    not os.environ.get("STEPWELL_DATA"),
    reason="STEPWELL_DATA is not set: point it to a folder with baseball/Teams.csv in it (the Lahman database)",
)


@needs_data
@pytest.mark.parametrize(("name", "least"), [("season", 2500), ("player", 300)])
def test_every_row_gets_a_text_with_its_own_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, least: int
) -> None:
    monkeypatch.setenv("STEPWELL_SIGNING_KEY", b64encode(new_key().private.private_bytes_raw()).decode())
    script = ROOT / "examples" / "baseball" / "catalogue.py"
    subprocess.run([sys.executable, script, "--out", tmp_path], check=True, capture_output=True)
    for each in (f"{name}.toml", f"{name}.jsonl"):
        text = (script.parent / each).read_text().replace("../../runs/baseball/", "")
        (tmp_path / each).write_text(text)
    assert (
        main(["campaign", "run", str(tmp_path / f"{name}.toml"), "--root", str(tmp_path / "root"), "--auto-approve"])
        == 0
    )
    (bundle,) = (tmp_path / "root").glob("5-compile-*/en.json")
    out = tmp_path / "out.jsonl"
    fill = [
        "templates",
        "fill",
        "--bundle",
        str(bundle),
        "--audience",
        str(tmp_path / f"{name}.csv"),
        "--out",
        str(out),
    ]
    assert main(fill) == 0
    texts = [json.loads(line)["text"] for line in out.read_text().splitlines()]
    with (tmp_path / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(texts) == len(rows) > least
    said = ("team", "season", "wins", "losses") if name == "season" else ("player", "stars", "homers")
    for text, row in zip(texts, rows, strict=True):
        assert text is not None
        assert all(row[slot] in text for slot in said)
        assert len(text) <= 178


def test_without_the_data_it_says_what_is_needed(tmp_path: Path) -> None:
    script = ROOT / "examples" / "baseball" / "catalogue.py"
    environment = {name: value for name, value in os.environ.items() if name != "STEPWELL_DATA"}
    done = subprocess.run(
        [sys.executable, script, "--out", tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "STEPWELL_DATA must name" in done.stderr
