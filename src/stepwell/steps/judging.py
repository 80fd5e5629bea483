"""How a judge that is a model is asked, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stepwell.config import Config
from stepwell.engines.talk import talk
from stepwell.errors import ConfigError
from stepwell.protocols import Engine
from stepwell.quality.judge_model import Ask, Said
from stepwell.types import Usage

Worth = Callable[[str, Usage | None], float]
"""USD that an answer of a model costs at the large model."""
VERDICT_TOKENS = 200


def asking(config: Config, engines: Mapping[str, Engine], worth: Worth) -> Ask | None:
    """How a judge that is a model is asked, priced as the first route it serves; None where no engine is named."""
    name = config.promise.judge_engine
    if not name:
        return None
    route = next((each for each, route in config.routes.items() if name in route.engines), "")
    if not route:
        raise ConfigError(f"no route asks the engine {name!r}: its price is not known", field="promise.judge_engine")

    async def ask(instructions: str, text: str) -> Said:
        said, usage = await talk(engines[name], route, instructions, text, max_tokens=VERDICT_TOKENS)
        return Said(said, worth(route, usage))

    return ask
