"""The public names, frozen: a change here is a change for everybody who imports Stepwell."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import stepwell
from conftest import ROOT


def test_public_names() -> None:
    code = "import stepwell; print([name for name in dir(stepwell) if not name.startswith('_')])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(told) == []
    assert re.fullmatch(r"\d+\.\d+\.\d+", stepwell.__version__)


def test_version_is_the_same_everywhere() -> None:
    assert f'version = "{stepwell.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {stepwell.__version__}" in (ROOT / "CHANGELOG.md").read_text()
