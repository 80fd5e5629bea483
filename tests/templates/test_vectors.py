"""Python and JavaScript fill every bundle to the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from vectors import LOCALES, bundles, cases

from stepwell.templates.fill import load

NUM_CASES = 500
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed (make test installs it)")


def python_results(num: int) -> list[dict[str, Any]]:
    results = []
    for locale, data in bundles():
        for case in cases(num, seed=LOCALES.index(locale)):
            filled = load_once(data, case["sink"]).fill(case["template"], case["values"], case["reader"])
            results.append(msgspec.to_builtins(filled))
    return results


def load_once(data: bytes, sink: Any, known: dict[Any, Any] = {}) -> Any:  # noqa: B006 - remembers on purpose
    return known.get((data, sink)) or known.setdefault((data, sink), load(data, sink))


def javascript_results(num: int) -> list[dict[str, Any]]:
    lines = [json.dumps({locale: json.loads(data) for locale, data in bundles()})]
    lines += [json.dumps(case | {"locale": each}) for each in LOCALES for case in cases(num, seed=LOCALES.index(each))]
    script = Path(__file__).with_name("vectors.mjs")
    done = subprocess.run(["node", script], input="\n".join(lines), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_node
def test_python_and_javascript_agree_to_the_byte() -> None:
    ours, theirs = python_results(NUM_CASES), javascript_results(NUM_CASES)
    assert len(ours) == len(theirs) == NUM_CASES * len(LOCALES)
    wrong = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    assert wrong == []
    assert sum("text" in each for each in ours) > len(ours) / 3
