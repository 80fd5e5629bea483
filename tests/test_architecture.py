"""The house keeps its shape: imports go downwards, files and functions stay short, names stay plain."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

SRC = ROOT / "src" / "stepwell"
STOREYS = (
    {"types", "errors", "drive", "alone", "breaker"},
    {"protocols", "signing", "toml", "verified"},
    {"config_kept", "config_embedded"},
    {"config"},
    {"facts"},
    {"quality", "engines", "store", "ledger", "index"},
    {"templates", "cache", "agents", "synth", "distill", "quantize", "plan"},
    {"steps"},
    {"gateway", "campaigns", "console"},
    {"meaning", "specialists", "kept"},
    {"well", "client"},
    {"demo"},
    {"cli", "deploy"},
)
FLOOR = {room: floor for floor, rooms in enumerate(STOREYS) for room in rooms}
BANNED = ("manager", "handler", "helper", "util", "common", "factory", "registry", "strategy", "wrapper")
HEAVY = {"torch", "xllamacpp", "jsonschema_rs", "sacrebleu", "rich", "uvloop", "transformers"}
VECTORS = {"numpy", "onnxruntime", "tokenizers", "usearch", "numkong", "redis", "asyncpg"}
"""What whole files are made of that are themselves imported only where a configuration asks for them."""
FILES = sorted(SRC.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            if node.module == "stepwell":
                names += [f"stepwell.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def walls_broken(me: str, names: list[str]) -> list[str]:
    rooms = {name.split(".")[1] for name in names if name.startswith("stepwell.")} - {me}
    return [other for other in rooms if other in FLOOR and FLOOR[other] >= FLOOR[me]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_file_imports_downwards_only_and_stays_short(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    if path.name != "__init__.py" or path.parent != SRC:
        assert room(path) in FLOOR, f"{room(path)} has no storey: add it here and to docs/architecture.md"
        assert walls_broken(room(path), imported(tree)) == []
    assert text.count("\n") <= 400
    assert not any(word in path.stem for word in BANNED)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60] == []
    assert ast.get_docstring(tree), "a file says what it is"


def test_the_check_itself_sees_a_wall_that_is_broken() -> None:
    assert walls_broken("cache", imported(ast.parse("from stepwell.steps.descend import descend"))) == ["steps"]
    assert walls_broken("engines", imported(ast.parse("from stepwell import ledger"))) == ["ledger"]
    assert walls_broken("steps", imported(ast.parse("from stepwell.cache.key import key"))) == []


def test_heavy_packages_are_imported_at_the_top_of_no_file_that_serves() -> None:
    found = {}
    for path in FILES:
        if room(path) in {"demo", "distill", "quantize"} or path.name == "told.py":  # imported when their commands run
            continue
        tops = {name.split(".")[0] for node in ast.parse(path.read_text()).body for name in imported(ast.Module([node], []))
                if isinstance(node, ast.Import | ast.ImportFrom)}  # fmt: skip
        if tops & HEAVY:
            found[str(path)] = tops & HEAVY
    assert found == {}


def test_importing_stepwell_is_quick_and_light() -> None:
    code = "import sys, time; t = time.process_time(); import stepwell; s = time.process_time() - t; print(s, len(sys.modules))"
    seconds = min(
        float(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[0]
        )
        for _ in range(5)
    )
    assert seconds < 0.1


def test_serving_needs_no_extra() -> None:
    code = "import stepwell.cli.serve, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert (HEAVY | VECTORS) & set(loaded) == set()


def test_no_secret_no_path_of_a_machine_in_the_source() -> None:
    for path in [*FILES, *ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "Makefile"]:
        assert f"/{'work'}/" not in path.read_text(), path
