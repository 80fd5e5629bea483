"""A wrong recipe is told by file, line and field, before anything is made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import ROOT
from stepwell.errors import ConfigError
from stepwell.synth import recipe
from stepwell.synth.recipe import load
from stepwell.synth.samplers import Slot
from stepwell.toml import Section

GOOD = """\
[synth]
licence = "CC0-1.0"
prompt = "Write: {facts} for {leaf}"
taxonomy = { "billing/refund" = 2, "billing/invoice" = 1 }

[synth.seeds]
paths = ["seeds.jsonl"]
licence = "CC0-1.0"

[synth.slots.food]
choices = { French = 2, Thai = 1 }

[synth.slots.dish]
by = "food"
values = { French = ["quiche"], Thai = ["curry"] }

[synth.sampled]
rows = 10

[synth.recombined]
rows = 5

[synth.generator]
url = "http://127.0.0.1:1/v1"
model = "m"
free = true

[synth.filters]
verify = "slots"
words = [1, 20]

[synth.quota]
by = "food"
most = 10
rows = { Thai = 3 }

[teacher]
whatever = "belongs to others"
"""


def told(tmp_path: Path, text: str) -> str:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load(tmp_path / "recipe.toml")
    return str(error.value).removeprefix(f"{tmp_path}/")


def test_a_good_recipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(GOOD)
    found = load(tmp_path / "recipe.toml")
    assert list(found.synth.drawn) == ["leaf", "food", "dish"]
    assert found.path("seeds.jsonl") == tmp_path / "seeds.jsonl"


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("choices = { F", "choises = { F", "recipe.toml:11: synth.slots.food.choises: unknown key; did you mean 'choices'"),
        ("rows = 10", 'rows = "ten"', "recipe.toml:18: synth.sampled.rows: Expected `int`, got `str`"),
        ("{ French = 2,", "{ French = 0,", "recipe.toml:11: synth.slots.food"),
        ('by = "food"\nvalues', 'by = "fod"\nvalues', "recipe.toml:13: synth.slots.dish: hangs on 'fod', which is no slot; did you mean 'food'"),
        ("{leaf}", "{leave}", "recipe.toml:3: synth.prompt: names {leave}, which is no slot; did you mean 'leaf'"),
        ('licence = "CC0-1.0"\nprompt', "prompt", "recipe.toml:1: synth.licence: say under which licence the made rows"),
        ('[synth.seeds]\npaths = ["seeds.jsonl"]\nlicence = "CC0-1.0"\n', "", "recipe.toml:17: synth.recombined: needs real rows"),
        ('url = "http', 'path = "a.gguf"\nurl = "http', "recipe.toml:23: synth.generator: name either url or path"),
        ('url = "http', 'url = "ftp', "recipe.toml:24: synth.generator.url: Expected `str` matching"),
        ('model = "m"', "", "recipe.toml:23: synth.generator.model: name the server's model"),
        ("free = true", 'free = true\nask = "Say it"', "recipe.toml:27: synth.generator.ask: must hold {prompt}"),
        ('"slots"', '"slotz"', "recipe.toml:29: synth.filters.verify: no verifier 'slotz'"),
        ("words = [1, 20]", "words = [20, 1]", "recipe.toml:30: synth.filters.words: 20 to 1 is no band"),
        ("words = [1, 20]", 'round_trip = "tea"', "recipe.toml:30: synth.filters.round_trip: no 'tea'"),
        ("words = [1, 20]", "leak_words = 7", "recipe.toml:30: synth.filters.leak_words: Expected `int` >= 8"),
        ('by = "food"\nmost', 'by = "fod"\nmost', "recipe.toml:33: synth.quota.by: 'fod' is no slot; did you mean 'food'"),
        ("Thai = 3 }", "Thay = 3 }", "recipe.toml:35: synth.quota.rows.Thay: food is never 'Thay'; did you mean 'Thai'"),
        ("most = 10", "most = 10\nleast = 4", "recipe.toml:35: synth.quota.least: least is more than the most"),
        ("[synth]\n", "[synth\n", "recipe.toml:1: is not TOML"),
        ("[synth.sampled]\nrows = 10\n", "", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, old: str, new: str, error: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if not error:
        (tmp_path / "recipe.toml").write_text(text)
        load(tmp_path / "recipe.toml")
    else:
        assert told(tmp_path, text).startswith(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[other]\n", "the key 'synth' is missing"),
        ("[synth]\n", "no source: add"),
        ('[synth]\nlicence="x"\n[synth.sampled]\nrows = 1\n', "nothing to draw from"),
        ('[synth]\nlicence="x"\n[synth.sampled]\nrows = 1\n[synth.slots.a]\nchoices=["b"]\n', "set real_floor = 0"),
        (
            '[synth]\nlicence="x"\n[synth.captured]\npaths=["x"]\n[synth.grown]\nrows = 1\n',
            r"needs \[synth.generator\]",
        ),
        (
            '[synth]\n[synth.captured]\npaths=["x"]\n[synth.filters]\njudge="model"\n',
            r"model needs \[synth.generator\]",
        ),
        (
            '[synth]\nlicence="x"\nreal_floor=0.0\n[synth.sampled]\nrows = 5\n[synth.slots.a]\nchoices=["b","c"]\n'
            '[synth.quota]\nby="a"\nleast=3\n',
            "2 values with 3 rows each are 6, and 5 are drawn",
        ),
    ],
)
def test_sections_that_do_not_fit_together_are_told(tmp_path: Path, text: str, error: str) -> None:
    assert re.search(error, told(tmp_path, text))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: cannot be read"):
        load(tmp_path / "no.toml")


def test_paths_may_name_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.toml").write_text(GOOD)
    found = load(tmp_path / "recipe.toml")
    monkeypatch.setenv("MY_DATA", "/data")
    assert found.path("${MY_DATA}/x.jsonl") == Path("/data/x.jsonl")
    monkeypatch.delenv("MY_DATA")
    with pytest.raises(ConfigError, match="MY_DATA is not set"):
        found.path("${MY_DATA}/x.jsonl")


@pytest.mark.parametrize(
    "section",
    [recipe.Synth, recipe.Table, recipe.Seeds, recipe.Grown, recipe.Generator, recipe.Filters, recipe.Quota, Slot],
)
def test_every_key_is_documented(section: type[Section]) -> None:
    text = (ROOT / "docs" / "synthetic-data.md").read_text()
    assert [name for name in section.__struct_fields__ if f"`{name}`" not in text] == []


def test_the_documented_recipe_is_right(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "synthetic-data.md").read_text(), re.DOTALL)
    (tmp_path / "recipe.toml").write_text(example)
    assert load(tmp_path / "recipe.toml").synth.generator
