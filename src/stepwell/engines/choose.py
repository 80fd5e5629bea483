"""The engine that a section of stepwell.toml describes."""

from __future__ import annotations

import os
from pathlib import Path

from stepwell import verified
from stepwell.config import AnyEngine, EmbeddedEngine, HttpEngine
from stepwell.engines.auto import embedded
from stepwell.engines.bearer import bearer
from stepwell.engines.http import Http, Key
from stepwell.engines.iam import Iam
from stepwell.engines.scripted import Scripted
from stepwell.errors import ConfigError
from stepwell.protocols import Engine


def chosen(name: str, config: AnyEngine) -> Engine:
    """Choose the engine that a section of the file describes."""
    match config:
        case HttpEngine():
            return Http(name, config, bearer_key(config))
        case EmbeddedEngine():
            if config.verified:
                check(Path(config.path))
            return embedded(name, config)
        case _:
            return Scripted(name, config)


def check(file: Path) -> None:
    """Raise ConfigError for a model file that was not verified as it is."""
    complaint = verified.complaint(file)
    if complaint:
        raise ConfigError(complaint, file=str(file), field="verified")


def bearer_key(config: HttpEngine) -> Key | None:
    """How an engine proves who we are: a key as it is, or one exchanged for tokens."""
    if config.iam is not None:
        return Iam(config.iam.url, os.environ[config.iam.api_key_env]).token
    return bearer(os.environ[config.key_env]) if config.key_env else None
