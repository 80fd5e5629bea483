"""The command line, as it is typed."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from conftest import SCRIPTED, Start
from stepwell.cli.main import main

ASK = {"model": "well", "messages": [{"role": "user", "content": "How deep?"}], "temperature": 0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stepwell.toml").write_text(SCRIPTED)
    (tmp_path / "request.json").write_text(json.dumps(ASK))
    return tmp_path


def test_explain_prints_the_visits_and_the_second_time_a_hit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "request.json"]) == 0
    told = capsys.readouterr().out
    assert "1. cache       deferred" in told
    assert "2. large       answered" in told
    assert "The well is deep." in told
    assert main(["explain", "request.json"]) == 0
    told = capsys.readouterr().out
    assert "1. cache       answered" in told
    assert "saved 0.0000" in told
    assert (folder / "stepwell-data" / "ledger.db").exists()


def test_explain_dry_run_asks_nobody(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--dry-run", "request.json"]) == 0
    told = capsys.readouterr().out
    assert "large" not in told
    assert main(["ledger"]) == 0
    assert "no entries" in capsys.readouterr().out
    assert folder.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["explain", "none.json"], "cannot be read"),
        (["explain", "request.json", "--tenant", "nobody"], "no key belongs to"),
        (["explain", "request.json", "--config", "none.toml"], "name an existing file"),
        (["serve", "--config", "none.toml"], "name an existing file"),
        (["ledger", "--path", "none.db"], "no ledger at"),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert main(words) == 2
    told = capsys.readouterr()
    assert says in told.err
    assert told.out == ""
    assert "Traceback" not in told.err
    assert folder.exists()


def test_the_ledger_in_every_shape(serve: Start, capsys: pytest.CaptureFixture[str]) -> None:
    gateway = serve()
    with openai.OpenAI(base_url=gateway.url, api_key="none") as ai:
        for _ in range(4):
            ai.chat.completions.create(**ASK)
    gateway.stop()
    path = ["--path", str(gateway.folder / "stepwell-data" / "ledger.db")]
    assert main(["ledger", *path]) == 0
    told = capsys.readouterr().out
    assert "cache" in told
    assert "75.0%" in told
    assert "estimated" in told
    assert main(["ledger", *path, "--by", "tenant", "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert [(line["name"], line["requests"]) for line in read["lines"]] == [("local", 4)]
    assert read["total"]["saved_usd"] > 0
    assert main(["ledger", *path, "--by", "day", "--csv", "--since", "24h"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["requests"] == "4"
    assert main(["ledger", *path, "--since", "2999-01-01"]) == 0
    assert "no entries" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["ledger", *path, "--since", "yesterday"])


def test_the_script_is_installed_and_knows_its_version() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "stepwell.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("stepwell 0.")


PROMISED = "[semantic]\n[promise]\nerror = 0.02\n"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('[cache]\nurl = "redis://u:hush@h/0"\n', "13: cache.url: the store's URL holds a password"),
        ('[cache]\nurl = "ftp://h/0"\n', "13: cache.url: no store speaks ftp://"),
        (
            '[cache]\npath = "stepwell.toml/cache.db"\n',
            "13: cache.path: the cache file stepwell.toml/cache.db cannot be",
        ),
        (f'{PROMISED}judge = "nonsense"\n', "15: promise.judge: 'nonsense' names no function"),
        (
            '[semantic]\npath = "nowhere"\n[promise]\nerror = 0.1\n',
            "13: semantic.path: nowhere/model.safetensors cannot",
        ),
        ('[routes."llm-4.1"]\nengines = ["scripted"]\n', "12: routes.llm-4.1.price: no price for 'llm-4.1'"),
        ("[promise]\nerror = 0.02\n", "13: promise.error: no step proposes"),
    ],
)
def test_whatever_is_wrong_with_the_file_is_told_with_its_line(
    folder: Path, capsys: pytest.CaptureFixture[str], more: str, says: str
) -> None:
    if "semantic" in more:
        pytest.importorskip("onnxruntime")
    (folder / "stepwell.toml").write_text(SCRIPTED + more)
    for command in ("explain request.json", "serve"):
        assert main(command.split()) == 2
        assert f"stepwell: stepwell.toml:{says}" in capsys.readouterr().err
