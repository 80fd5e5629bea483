"""[stored], [capture] and [fine_tuning]: names that must exist, with the line of what is wrong."""

from __future__ import annotations

import pytest

from conftest import SCRIPTED
from stepwell.config import parse
from stepwell.errors import ConfigError

KEY = '[[keys]]\ntenant = "acme"\nenv = "KEY_A"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[capture]\ntenants = ["acne"]\n', "no key belongs to a tenant 'acne'; did you mean 'acme'"),
        ('[capture]\ntenants = ["acme"]\nroutes = ["wall"]\n', "no route is called 'wall'; did you mean 'well'"),
        ("[capture]\n", "'tenants' is missing"),
        ("[capture]\ntenants = []\n", "length >= 1"),
        ('[capture]\ntenants = ["acme"]\nrows_s = 0\n', ">= 1"),
        ('[fine_tuning]\nmodels = { a = "a.toml" }\ntenants = ["x"]\n', "no key belongs to a tenant 'x'"),
        ("[fine_tuning]\n", "'models' is missing"),
        ("[fine_tuning]\nmodels = {}\n", "length >= 1"),
        ("[stored]\nkeep_days = 0\n", "> 0"),
        ("[stored]\nkeepdays = 1\n", "did you mean 'keep_days'"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, says: str) -> None:
    before = SCRIPTED + KEY
    with pytest.raises(ConfigError, match=says) as caught:
        parse(before + text, file="stepwell.toml", secrets=False)
    assert before.count("\n") < caught.value.line <= (before + text).count("\n")


def test_without_keys_the_tenant_is_local() -> None:
    assert parse(SCRIPTED + '[capture]\ntenants = ["local"]\n').capture is not None
