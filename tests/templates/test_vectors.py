"""The three runtimes fill every bundle to the same bytes, and say what foreign ones say."""

from __future__ import annotations

import shutil

import pytest
from bench.templates.vectors import LOCALES, columnar_results, icu_oracle, javascript_results, python_results

NUM_CASES = 120
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed: apt-get install nodejs")


@needs_node
def test_python_and_javascript_agree_to_the_byte() -> None:
    ours, theirs = python_results(500), javascript_results(500)
    assert len(ours) == len(theirs) == 500 * len(LOCALES)
    assert [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]] == []
    assert sum("text" in each for each in ours) > len(ours) / 3


def test_columns_agree_with_rows_to_the_byte() -> None:
    ours, theirs = python_results(NUM_CASES), columnar_results(NUM_CASES)
    pairs = [(one, other) for one, other in zip(ours, theirs, strict=True) if other is not None]
    assert len(pairs) > len(ours) / 2
    assert [pair for pair in pairs if pair[0] != pair[1]] == []


def test_icu_says_the_same_of_plurals_and_ranks() -> None:
    same, others = icu_oracle()
    assert same > 550
    # ICU groups Polish and Slovenian thousands that CLDR does not; the categories are the same.
    ours_and_theirs = [each.partition(": ")[2].partition(" for ")[::2] for each in others]
    assert [pair for pair in ours_and_theirs if pair[0].replace("\\xa0", "").replace("1.0", "10") != pair[1]] == []
