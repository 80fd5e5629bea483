"""The judge that a configuration names, and the one that is a user's own function."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from stepwell.errors import ConfigError
from stepwell.quality.judge import Embed, Judge, Verdict, agreement, both, exact
from stepwell.quality.judge_model import Ask, Marks, model, new_marks


def named(names: str, *, embed: Embed | None = None, ask: Ask | None = None, marks: Marks = new_marks) -> Judge:
    """The judge that a configuration names: exact, agreement, model, module:function; joined by `+`, all must agree.

    Raises ConfigError where a name is unknown, or needs an embedder or a model that is not there.
    """
    return reduce(both, [_one(name.strip(), embed, ask, marks) for name in names.split("+")])


def _one(name: str, embed: Embed | None, ask: Ask | None, marks: Marks) -> Judge:
    if name == "exact":
        return exact
    if name == "agreement":
        if embed is None:
            raise ConfigError("agreement needs an embedder: configure [semantic]", field="promise.judge")
        return agreement(embed)
    if name == "model":
        if ask is None:
            raise ConfigError("model needs an engine: name it in judge_engine", field="promise.judge")
        return model(ask, marks)
    return yours(name)


def yours(name: str) -> Judge:
    """A function of your own, `module:function`; it tells true, false, None or a Verdict. Raises ConfigError.

    What it raises is no verdict. One that is not async runs in a thread.
    """
    function = found(name)

    async def judge(question: str, proposed: str, fresh: str) -> Verdict:
        try:
            if inspect.iscoroutinefunction(function):
                told = await function(question, proposed, fresh)
            else:
                told = await asyncio.to_thread(function, question, proposed, fresh)
        except Exception as error:  # noqa: BLE001 - somebody else's code, about which nothing is known
            return Verdict(None, f"{name} failed: {error!r}")
        if isinstance(told, Verdict):
            return told
        return Verdict(told, name) if told is None or isinstance(told, bool) else Verdict(None, f"{name} told {told!r}")

    return judge


def source_of(name: str, *, field: str) -> bytes:
    """The text of the module of `module:function`: what it says hangs on it. Nothing for any other name.

    What that module imports in its turn is not known by it. Raises ConfigError.
    """
    if ":" not in name:
        return b""
    found(name, field=field)
    file = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    return Path(file).read_bytes() if file else b""


def found(name: str, *, field: str = "promise.judge") -> Callable[..., Any]:
    """The function of a name. Raises ConfigError, for `field`."""
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ConfigError(f"{name!r} names no function; write module:function", field=field)
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name!r} cannot be loaded ({error}); is its folder on PYTHONPATH?", field=field) from error
    if not callable(function):
        raise ConfigError(f"{name!r} is no function", field=field)
    return cast("Callable[..., Any]", function)
