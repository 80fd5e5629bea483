"""The composition root: a Config becomes a Well. The only file that names concrete classes and chooses among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from secrets import token_hex
from time import time

import msgspec
from msgspec import Struct

from stepwell.cache.exact import Exact
from stepwell.config import AnyEngine, Config, EmbeddedEngine, HttpEngine, Route
from stepwell.engines.embedded import Embedded
from stepwell.engines.http import Http
from stepwell.engines.iam import Iam
from stepwell.engines.scripted import Scripted
from stepwell.errors import ConfigError
from stepwell.gateway.admit import bearer
from stepwell.gateway.answer import Door
from stepwell.gateway.http import Limits
from stepwell.ledger.book import Book
from stepwell.ledger.metrics import Metrics
from stepwell.ledger.prices import Prices
from stepwell.protocols import Engine, Step
from stepwell.quality.promise import allows
from stepwell.steps.cache import Cache, Rule
from stepwell.steps.large import Large
from stepwell.store.memory import Memory
from stepwell.store.sqlite import Sqlite
from stepwell.types import Caller, Settler

LOOPBACK = ("127.0.0.1", "::1", "localhost")
