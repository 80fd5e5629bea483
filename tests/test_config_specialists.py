"""`[specialists.NAME]`: what does not fit together is told with its line, before anything is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SCRIPTED
from stepwell import config
from stepwell.errors import ConfigError

GOOD = """
[engines.big]
type = "scripted"
[engines.small]
type = "scripted"
[routes.well]
engines = ["big"]
price = "gpt-4o-mini"
[promise]
error = 0.02
[specialists.writer]
engine = "small"
routes = ["well"]
promotion = "p"
public_keys = ["k"]
verify = "slots"
judge = "verify:slots_apart"
"""


def test_a_specialist_alone_makes_a_promise_worth_having() -> None:
    found = config.parse(GOOD).specialists["writer"]
    assert (found.tries, found.canary, found.shadow) == (1, 0.05, 0.1)
    with pytest.raises(ConfigError, match="no step proposes uncertain answers"):
        config.parse(GOOD[: GOOD.index("[specialists")])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('engine = "small"', 'engine = "smal"', "12: specialists.writer.engine: .* did you mean 'small'"),
        (
            'engine = "small"',
            'engine = "big"',
            "13: specialists.writer.routes: the route 'well' already ends at the engine",
        ),
        (
            'routes = ["well"]',
            'routes = ["wel"]',
            "13: specialists.writer.routes: no route is called 'wel'; did you mean",
        ),
        ('routes = ["well"]', "routes = []", "13: specialists.writer.routes: "),
        ("verify:slots_apart", "verify:slots", "17: specialists.writer.judge: every answer has passed this very check"),
        ("error = 0.02", "error = 0.02\naudit = 0", "11: promise.audit: nothing would keep a specialist honest"),
        ('verify = "slots"', "tries = 0", "16: specialists.writer"),
        ('verify = "slots"\n', "", "the key 'verify' is missing"),
    ],
)
def test_what_does_not_fit_is_told(old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config.parse(GOOD.replace(old, new, 1))


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['cryptography'] = None; from stepwell.cli.main import main; sys.exit(main(sys.argv[1:]))"
    (tmp_path / "stepwell.toml").write_text(SCRIPTED + GOOD[GOOD.index("[promise]") :].replace("small", "student")
        + '[engines.student]\ntype = "scripted"\n')  # fmt: skip
    (tmp_path / "ask.json").write_text('{"model": "well", "messages": [{"role": "user", "content": "hi"}]}')
    words = [sys.executable, "-c", code, "explain", "ask.json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "specialists: needs cryptography: pip install 'stepwell[gate]'" in done.stderr
