"""`stepwell quantize` where nothing that trains is installed: it says what it can, and what it needs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from stepwell.cli.main import main

COMMANDS = {
    "sensitivity": ("MODEL", "--task", "t.jsonl"),
    "apply": ("Q4_K", "MODEL", "--task", "t.jsonl", "--out", "x.gguf"),
    "search": ("MODEL", "--task", "t.jsonl", "--margin", "0.01"),
    "verify": ("x.gguf", "--model", "MODEL"),
    "compare": ("x.gguf", "--model", "MODEL", "--task", "t.jsonl"),
}


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed: tests/train runs them")
@pytest.mark.parametrize("name", COMMANDS)
def test_without_torch_it_says_what_to_install(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", name, *COMMANDS[name]]) == 2
    assert "needs torch" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_costs_nothing_heavy(name: str) -> None:
    code = (
        "import sys; from stepwell.cli.main import main\n"
        f"try: main(['quantize', {name!r}, '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'numpy', 'gguf', 'rich', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("wrong", [("--threads", "0"), ("--seed", "-1"), ("--threads", "many")])
def test_numbers_that_are_none_are_said(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["quantize", "search", *COMMANDS["search"], *wrong])
    assert f"{wrong[1]!r} is no whole number from" in capsys.readouterr().err
