"""The example configurations are ones that `stepwell serve` takes, the commented block of watsonx.ai included."""

from __future__ import annotations

import re
from pathlib import Path

from stepwell.config import HttpEngine, parse
from stepwell.ledger.prices import load, price_of

REMOTE = Path(__file__).parents[2] / "examples" / "remote.toml"


def test_the_remote_example_is_taken_and_priced() -> None:
    config = parse(REMOTE.read_text(encoding="utf-8"), secrets=False)
    assert [price_of(load(), route.price).input_usd for route in config.routes.values()] == [2.0]


def test_the_block_of_watsonx_is_taken_once_uncommented() -> None:
    head, _, block = REMOTE.read_text(encoding="utf-8").partition("# [engines.watsonx]")
    config = parse(head + re.sub(r"^# ?", "", "# [engines.watsonx]" + block, flags=re.MULTILINE), secrets=False)
    engine = config.engines["watsonx"]
    assert isinstance(engine, HttpEngine)
    assert engine.iam is not None
    assert price_of(load(), config.routes["llama"].price)
