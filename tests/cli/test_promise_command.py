"""`stepwell promise`: it looks, makes nothing, and says what it cannot know."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from conftest import SCRIPTED
from stepwell.cli.main import main
from stepwell.quality.promise import Promise, Terms
from stepwell.quality.report import lines

PROMISED = SCRIPTED + "[semantic]\n[promise]\nerror = 0.02\n"


def test_without_a_store_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stepwell.toml").write_text(PROMISED)
    assert main(["promise"]) == 2
    assert "there is no cache at stepwell-data/cache.db" in capsys.readouterr().err
    assert not Path("stepwell-data").exists(), "looking makes nothing"
    Path("stepwell.toml").write_text(PROMISED + '[cache]\npath = ""\n')
    assert main(["promise"]) == 2
    assert "cache.path: empty: answers and labels live in the running gateway's memory only" in capsys.readouterr().err
    Path("stepwell.toml").write_text(SCRIPTED)
    assert main(["promise"]) == 2
    assert "nothing uncertain is served" in capsys.readouterr().err


def test_what_was_never_audited_is_not_called_unserved() -> None:
    promise = Promise(Terms(0.02), Random(0))
    assert "errors          not known yet: nothing uncertain was served" in lines(promise.report())
    promise.num_requests, promise.num_served = 30, 3
    assert "errors          not known yet: none of these answers was audited so far" in lines(promise.report())
