"""Whether a completion says what its prompt asks for: the checks that a recipe, a gate and a specialist name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from stepwell.errors import ConfigError
from stepwell.quality import slots, slots_apart
from stepwell.quality.judges import found

Verify = Callable[[str, str], list[str]]
"""Prompt and completion in, complaints out; none: it is right."""
BRACKETED = re.compile(r"([^\W\d_][\w ./-]{0,60})\[([^\[\]\n]*)\]")
"""One fact, `customer rating[5 out of 5]`."""


def verifier(name: str, *, field: str = "verifier") -> Verify:
    """The verifier of a name: slots, slots_apart, values, or a function of your own, `module:function`.

    Raises ConfigError, for `field`, where there is none.
    """
    match name:
        case "slots":
            return lambda prompt, completion: facts_said(slots.errors, prompt, completion)
        case "slots_apart":
            return lambda prompt, completion: facts_said(slots_apart.errors, prompt, completion)
        case "values":
            return values_said
        case _ if ":" in name:
            return yours(name, field)
        case _:
            raise ConfigError(f"no verifier {name!r}: slots, slots_apart, values or module:function", field=field)


def facts_said(
    errors: Callable[[Mapping[str, str], str], slots.Errors | slots_apart.Errors], prompt: str, completion: str
) -> list[str]:
    """Complaints of a slot checker of the restaurant schema about `name[The Eagle], food[French]`."""
    facts = bracketed(prompt)
    if not facts or not completion.strip():
        return ["the prompt has no facts" if not facts else "the completion is empty"]
    complaints = [f"{name} is no slot of the checker" for name in facts if name not in slots.ATTRIBUTES]
    told = errors({name: value for name, value in facts.items() if name in slots.ATTRIBUTES}, completion)
    for what, names in (("missing", told.missing), ("wrong", told.wrong), ("added", told.added)):
        complaints += [f"{name} is {what}" for name in names]
    return complaints


def values_said(prompt: str, completion: str) -> list[str]:
    """A complaint for each bracketed value of the prompt that does not stand in the completion, letter by letter."""
    facts = bracketed(prompt)
    if not facts:
        return ["the prompt has no facts"]
    return [f"{name} is missing: {value}" for name, value in facts.items() if value not in completion]


def bracketed(prompt: str) -> dict[str, str]:
    """The facts of `name[The Eagle], food[French]`; empty where there are none."""
    return {name.strip(): value.strip() for name, value in BRACKETED.findall(prompt)}


def yours(name: str, field: str) -> Verify:
    """A function of your own: it tells a list of complaints, or whether the completion is right."""
    function = found(name, field=field)

    def verify(prompt: str, completion: str) -> list[str]:
        told = function(prompt, completion)
        if isinstance(told, bool):
            return [] if told else [f"{name} says no"]
        if isinstance(told, list | tuple):
            return [str(each) for each in told]
        return [f"{name} told {told!r:.60}, neither a list of complaints nor true or false"]

    return verify
