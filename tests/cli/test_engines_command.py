"""`stepwell engines test`: with whatever engines are installed, and the house student, the smallest model here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import ROOT
from stepwell.cli import main
from stepwell.engines.figures import kept

STUDENT = ROOT / "models" / "house-student" / "house-student.gguf"


def test_it_measures_keeps_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["engines", "test", str(STUDENT), "--rounds", "1", "--tokens", "4"]) == 0
    shown = capsys.readouterr().out
    assert "llama.cpp" in shown
    assert "auto: " in shown
    found = kept("stepwell-data/engines.json")
    assert {each.place.engine for each in found} >= {"llamacpp"}
    assert all(speed.tokens_per_cpu_s > 0 for each in found for speed in each.decode.values())
    toml = f'[engines.student]\ntype = "embedded"\npath = "{STUDENT}"\nthreads = 1\nslots = 2\n'
    Path("stepwell.toml").write_text(toml)
    assert main.main(["engines", "test", "--rounds", "1", "--tokens", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told) == len(kept("stepwell-data/engines.json")), "the same file and settings: in the place of the older"


def test_what_is_wrong_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.gguf").write_text("hello")
    assert main.main(["engines", "test", "text.gguf"]) == 1
    assert "not a GGUF file" in capsys.readouterr().err
    assert main.main(["engines", "test", "none.gguf"]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main.main(["engines", "test"]) == 2
    (tmp_path / "stepwell.toml").write_text("")
    assert main.main(["engines", "test"]) == 2
    assert "no engine of type embedded" in capsys.readouterr().err
