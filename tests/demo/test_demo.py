"""`stepwell demo` as a user runs it: the real command, the real gateway, the real house writer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stepwell.ledger.rollup import rollup, total

COMMAND = [sys.executable, "-c", "import sys; from stepwell.cli.main import main; sys.exit(main())", "demo"]
TEXTS = (
    'mr,ref\n"name[The Amber Fox], eatType[pub], area[riverside]",The Amber Fox is a pub by the river.\n'
    '"name[The Amber Fox], eatType[pub], area[riverside]",A riverside pub is The Amber Fox.\n'
    '"name[Heron Table], food[Indian], familyFriendly[no]",Heron Table serves Indian food and is not family friendly.\n'
    '"name[Heron Table], food[Indian], familyFriendly[no]",Indian food without children: Heron Table.\n'
)


def demo(*options: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False, cwd=folder, timeout=55)


def test_a_city_guide_is_played_and_shown(tmp_path: Path) -> None:
    done = demo("--requests", "300", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not answered" not in done.stdout
    lines = rollup(tmp_path / "stepwell-demo" / "ledger.db", "step")
    assert [line.name for line in lines] == ["cache", "large"]
    assert total(lines).requests == 300
    assert all(line.failed == 0 for line in lines)
    assert f"{lines[0].share:.1%}" in done.stdout
    page = (tmp_path / "stepwell-demo" / "descents.html").read_text(encoding="utf-8")
    assert f"300 questions, {lines[1].requests} went all the way down." in page


def test_real_inputs_are_played_and_scored(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text(TEXTS, encoding="utf-8")
    done = demo("--requests", "40", "--data", "texts.csv", "--out", "out", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 inputs" in done.stdout
    assert "slot errors, apart" in done.stdout
    assert "tok:13a" in done.stdout
    assert (tmp_path / "out" / "descents.html").is_file()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--data", "none.csv"), "none.csv: cannot be read"),
        (("--model", "none.gguf"), "--model none.gguf: there is no such file"),
        (("--out", "/proc/none"), "--out /proc/none: cannot be made"),
        (("--requests", "0"), "0 is less than 1"),
    ],
)
def test_bad_options_are_said(tmp_path: Path, options: tuple[str, ...], what: str) -> None:
    done = demo(*options, folder=tmp_path)
    assert done.returncode == 2
    assert what in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gateway_that_does_not_start_is_said_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    done = demo("--model", "broken.gguf", folder=tmp_path)
    assert done.returncode == 2
    assert "serve.log says:" in done.stderr
    assert "broken.gguf" in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr
