from __future__ import annotations

import pytest

from stepwell.engines.terms import UNKNOWN, catalogue, check, terms_of
from stepwell.errors import DistillError


def test_every_row_says_where_it_is_from_and_when() -> None:
    for name, row in catalogue().items():
        assert row.source, name
        assert row.date.year >= 2025, name
        assert row.says, name
        assert row.hosts or row.models, name


@pytest.mark.parametrize(
    ("url", "model", "training"),
    [
        ("https://api.openai.com/v1", "some-new-model", "restricted"),
        ("http://localhost/v1", "gpt-4o-mini", "restricted"),
        ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-5", "restricted"),
        ("http://localhost/v1", "meta-llama/Llama-3-70b-instruct", "restricted"),
        ("http://localhost/v1", "meta-llama/Llama-3-3-70b-instruct", "allowed"),
        ("http://localhost/v1", "meta-llama/Llama-3.1-8B-Instruct", "allowed"),
        ("", "house-writer", "allowed"),
    ],
)
def test_models_are_known_by_their_names_and_servers_by_their_hosts(url: str, model: str, training: str) -> None:
    row = terms_of(url, model)
    assert row is not None
    assert row.training == training


def test_who_is_not_known_is_said_to_be_so() -> None:
    assert terms_of("http://localhost/v1", "mine") is None
    assert check("http://localhost/v1", "mine", i_may=False) == UNKNOWN


def test_restricted_needs_a_word() -> None:
    with pytest.raises(DistillError, match="--i-may"):
        check("", "claude-opus-5", i_may=False)
    assert check("", "claude-opus-5", i_may=True).startswith("restricted")
