"""The documents keep up with the code."""

from __future__ import annotations

import re
import tomllib

import msgspec
import pytest

from conftest import ROOT
from stepwell import config
from stepwell.toml import Section

DOCS = sorted((ROOT / "docs").glob("*.md"))


TABLES = [
    each
    for each in Section.__subclasses__()
    if each.__module__.startswith("stepwell.config") and each is not config.Config
]


@pytest.mark.parametrize("section", TABLES, ids=lambda section: section.__name__)
def test_every_key_of_the_configuration_is_documented(section: type[Section]) -> None:
    text = (ROOT / "docs" / "config.md").read_text()
    assert [field.name for field in msgspec.structs.fields(section) if f"| `{field.name}` |" not in text] == []


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    wanted += [each for extra in project["project"]["optional-dependencies"].values() for each in extra]
    names = {re.split(r"[<>=;\[ ]", each)[0] for each in wanted} - {"stepwell"}
    text = (ROOT / "docs" / "dependencies.md").read_text()
    assert {name for name in names if name not in text} == set()


def test_the_readme_is_short_and_its_example_is_right() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert config.parse(example).routes


@pytest.mark.parametrize("path", [*DOCS, ROOT / "README.md"], ids=lambda path: path.name)
def test_files_that_are_named_exist(path: object) -> None:
    text = path.read_text()  # type: ignore[attr-defined]
    named = re.findall(r"\]\(([\w./-]+)\)", text)
    assert [name for name in named if not ((path.parent / name).exists())] == []  # type: ignore[attr-defined]
