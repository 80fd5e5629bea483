"""stepwell.toml: what is wrong, in which line, and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import ROOT, SCRIPTED
from stepwell.config import Config, HttpEngine, load, parse
from stepwell.errors import ConfigError

GOOD = """[server]
port = 0

[engines.up]
type = "http"
url = "http://127.0.0.1:1/v1"
key_env = "UP_KEY"

[routes.well]
engines = ["up"]
"""


def wrong(text: str, **environment: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, file="stepwell.toml", secrets=bool(environment))
    return caught.value


def test_an_empty_file_is_all_defaults() -> None:
    assert parse("") == Config()
    assert parse("").server.host == "127.0.0.1"


def test_what_is_read_is_typed() -> None:
    engine = parse(GOOD, secrets=False).engines["up"]
    assert isinstance(engine, HttpEngine)
    assert engine.connect_timeout_s == 5.0


@pytest.mark.parametrize(
    ("was", "now", "line", "says"),
    [
        ("port = 0", "prot = 0", 2, "did you mean 'port'"),
        ("port = 0", 'port = "x"', 2, "Expected `int`"),
        ("port = 0", "port = 70000", 2, "65535"),
        ("[routes.well]", "[route.well]", 9, "did you mean 'routes'"),
        ('engines = ["up"]', 'engines = ["upp"]', 10, "did you mean 'up'"),
        ('engines = ["up"]', "engines = []", 10, "length >= 1"),
        ('engines = ["up"]', "", 9, "'engines' is missing"),
        ('url = "http://127.0.0.1:1/v1"', 'url = "ftp://x"', 6, "matching regex"),
        ('url = "http://127.0.0.1:1/v1"', 'urls = "http://x"', 6, "did you mean 'url'"),
        ("[server]", "[server", 1, "not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_line(was: str, now: str, line: int, says: str) -> None:
    error = wrong(GOOD.replace(was, now))
    assert (error.file, error.line) == ("stepwell.toml", line)
    assert says in str(error)
    assert str(error).startswith(f"stepwell.toml:{line}: ")


def test_a_secret_must_be_set_and_is_never_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UP_KEY", raising=False)
    error = wrong(GOOD, yes="1")
    assert "UP_KEY is not set" in str(error)
    assert error.line == 7
    monkeypatch.setenv("UP_KEY", "hush-hush")
    assert "hush-hush" not in repr(parse(GOOD))


def test_a_promise_that_cannot_be_kept_is_refused() -> None:
    assert "no step proposes uncertain answers" in str(wrong(GOOD + "\n[promise]\nerror = 0.02\n"))
    assert "nothing but exact answers passes" in str(wrong(GOOD + "\n[semantic]\n"))
    half = GOOD + '\n[promise]\nerror = 0.02\njudge = "exact+model"\n[semantic]\n'
    assert "name who judges" in str(wrong(half))
    assert "name who judges" in str(wrong(half.replace("exact+model", "exact + model")))
    meant = GOOD + "\n[semantic]\n[promise]\nerror = 0.02\n"
    for blind in ("audit", "label"):
        error = wrong(f"{meant}{blind} = 0\n")
        assert (error.field, error.line) == (f"promise.{blind}", 15)
    assert "keep the promise honest" in str(wrong(meant + "audit = 0.0\n"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name an existing file"):
        load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "latin.toml")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_are_right(path: Path) -> None:
    assert load(path, secrets=False).routes


def test_the_tests_own_configuration_is_right() -> None:
    assert parse(SCRIPTED).routes["well"].price == "gpt-4o-mini"
