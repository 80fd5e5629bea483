"""What tokens and processors cost: one dated, sourced table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from msgspec import Meta, field

from stepwell.errors import ConfigError
from stepwell.toml import Section, nearest, typed
from stepwell.types import Usage

SHIPPED = "prices.toml"
MILLION = 1_000_000
Usd = Annotated[float, Meta(ge=0)]


class Price(Section, frozen=True):
    """USD for a million tokens of one model."""

    input_usd: Usd
    output_usd: Usd
    source: str
    date: dt.date

    def of(self, usage: Usage | None) -> float:
        """USD for the tokens of one answer."""
        if usage is None:
            return 0.0
        return (usage.input_tokens * self.input_usd + usage.output_tokens * self.output_usd) / MILLION


class Prices(Section, frozen=True):
    """The whole table; `stands_for` says as which model one without a price of its own is priced."""

    date: dt.date
    cpu_hour_usd: Usd
    cpu_hour_source: str
    models: dict[str, Price]
    stands_for: dict[str, str] = field(name="as", default_factory=dict)


class Own(Section, frozen=True):
    """A prices.toml of the operator's: what it says goes before the table that ships, what it leaves out stays."""

    date: dt.date | None = None
    cpu_hour_usd: Usd | None = None
    cpu_hour_source: str = "the operator"
    models: dict[str, Price] = field(default_factory=dict)
    stands_for: dict[str, str] = field(name="as", default_factory=dict)


def load(path: str = "") -> Prices:
    """Read the table that ships, and lay one of the operator's over it. Raises ConfigError."""
    prices: Prices = typed((files("stepwell.ledger") / SHIPPED).read_text(encoding="utf-8"), Prices, file=SHIPPED)
    if path:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read ({error}); mend ledger.prices", file=path) from error
        prices = laid_over(prices, typed(text, Own, file=path))
    for model, other in prices.stands_for.items():
        if other not in prices.models:
            what = f"{model!r} is priced as {other!r}, which has no price{nearest(other, prices.models)}"
            raise ConfigError(what, file=path or SHIPPED, field="as")
    return prices


def laid_over(shipped: Prices, own: Own) -> Prices:
    """The table that ships, with the operator's own rows in place of its."""
    cpu = shipped if own.cpu_hour_usd is None else own
    return Prices(
        date=own.date or shipped.date,
        cpu_hour_usd=cpu.cpu_hour_usd or 0.0,
        cpu_hour_source=cpu.cpu_hour_source,
        models={**shipped.models, **own.models},
        stands_for={**shipped.stands_for, **own.stands_for},
    )


def price_of(prices: Prices, model: str) -> Price:
    """The price of a model, or of the one it stands for. Raises ConfigError where there is none."""
    price = prices.models.get(model) or prices.models.get(prices.stands_for.get(model, ""))
    if price is None:
        known: Mapping[str, object] = {**prices.models, **prices.stands_for}
        what = f"no price for {model!r}{nearest(model, known)}; name a row of prices.toml, or add one (ledger.prices)"
        raise ConfigError(what)
    return price
