"""What a caller wants a reply to be (`response_format`, `tools`): read, turned into a grammar, and checked at the end.

An engine's grammar is a help, never a proof: what it cannot express it leaves out without a word, and a reply may be
cut off. So every reply is checked against the whole schema, by jsonschema-rs: patterns in linear time, nothing fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.errors import EngineBadReply, EngineRefusal

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
MOST_SCHEMA_BYTES, MOST_DEPTH = 256 * 1024, 64
"""A schema goes to three parsers in other languages: none is asked more than this."""
SHOWN = 200

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


class Shape(Struct, frozen=True):
    """What each text of a reply must be: JSON that `schema` allows; and the arguments of each tool's calls."""

    schema: Mapping[str, Any] | None = None
    check: Any = None
    """jsonschema-rs's validator of `schema`."""
    tools: Mapping[str, Any] = {}
    """A validator of its arguments for every tool by name."""
    must_call: bool = False
    """Whether an answer in words is none (`tool_choice`)."""

    def complaint(self, choice: Mapping[str, Any]) -> str:
        """What is wrong with one choice of a whole reply; empty: nothing."""
        message = choice.get("message", choice)
        calls = message.get("tool_calls") or []
        fault = next((each for call in calls if (each := self.call_complaint(call.get("function") or {}))), "")
        if not calls and self.must_call:
            fault = "it calls no tool"
        elif not calls and self.check is not None:
            text = message.get("content") if "message" in choice else choice.get("text")
            fault = complaint(text or "", self.check)
        cut = fault and choice.get("finish_reason") == "length"
        return f"cut off at the token limit: {fault}" if cut else fault

    def call_complaint(self, function: Mapping[str, Any]) -> str:
        """What is wrong with one call of a tool."""
        name = str(function.get("name"))
        if name not in self.tools:
            return f"it calls a tool {name!r} that is not there"
        fault = complaint(str(function.get("arguments", "")), self.tools[name])
        return f"arguments of {name}: {fault}" if fault else ""


def shape_of(fields: Mapping[str, Any], engine: str) -> Shape | None:
    """What a request wants its reply to be; None: any text. Raises EngineRefusal where it says that wrongly."""
    schema = wanted(fields.get("response_format"), engine)
    tools = {} if fields.get("tool_choice") == "none" else tools_of(fields.get("tools"), engine)
    if schema is None and not tools:
        return None
    check = None if schema is None else checker(schema, "response_format.json_schema.schema", engine)
    return Shape(schema, check, tools, must_call=bool(tools) and fields.get("tool_choice") not in (None, "auto"))


def wanted(told: object, engine: str) -> Mapping[str, Any] | None:
    """The schema that `response_format` asks for; None: any text. Raises EngineRefusal."""
    match told:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return ANY_OBJECT
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case {"type": "json_schema"}:
            raise wrong("needs json_schema with a schema that is an object", "response_format.json_schema", engine)
        case _:
            raise wrong("must be of type text, json_object or json_schema", "response_format.type", engine)


def tools_of(told: object, engine: str) -> dict[str, Any]:
    """A validator for every tool's arguments. Raises EngineRefusal."""
    if not told:
        return {}
    checks = {}
    for at, tool in enumerate(told if isinstance(told, list) else [told]):
        match tool:
            case {"type": "function", "function": {"name": str(name), **rest}}:
                schema = rest.get("parameters") or ANY_OBJECT
                checks[name] = checker(schema, f"tools[{at}].function.parameters", engine)
            case _:
                raise wrong("must be of type function, with a name", f"tools[{at}]", engine)
    return checks


def checker(schema: object, param: str, engine: str) -> Any:  # noqa: ANN401 - jsonschema-rs's own class
    """Compile a schema that a stranger wrote. Raises EngineRefusal where it is none, too large, or reaches outside."""
    from jsonschema_rs import ReferencingError, RegexOptions, ValidationError, validator_for  # noqa: PLC0415 - an extra

    if not isinstance(schema, dict):
        raise wrong("must be a JSON Schema, an object", param, engine)
    if len(encode(schema)) > MOST_SCHEMA_BYTES or depth(schema) > MOST_DEPTH:
        raise wrong(f"may have {MOST_SCHEMA_BYTES // 1024} KB and be {MOST_DEPTH} levels deep", param, engine)
    try:
        return validator_for(schema, offline=True, pattern_options=RegexOptions())
    except (ValidationError, ReferencingError, ValueError) as error:
        raise wrong(f"is no JSON Schema that can be checked here: {first_line(error)}", param, engine) from error


def depth(value: object) -> int:
    """Levels of a JSON value; counts no further than the limit."""
    level, num = [value], 0
    while level and num <= MOST_DEPTH:
        inner: list[object] = []
        for each in level:
            inner += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        level, num = inner, num + 1
    return num


def complaint(text: str, check: Any) -> str:  # noqa: ANN401
    """What is wrong with a text that should be JSON; empty: nothing."""
    try:
        value = decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"no JSON ({error}): {text[:SHOWN]!r}"
    found = next(check.iter_errors(value), None)
    return "" if found is None else f"not what the schema says: {first_line(found)}"


def checked(body: bytes, shape: Shape, engine: str) -> None:
    """Check a whole JSON reply, each of its choices. Raises EngineBadReply, so that another engine can be asked."""
    for choice in decode(body)["choices"]:
        if fault := shape.complaint(choice):
            raise EngineBadReply(f"not what was asked for: {fault}", engine=engine)


def first_line(error: Exception) -> str:
    """The first line of what another library says, not too long."""
    return (str(error).splitlines() or [type(error).__name__])[0][:SHOWN]


def wrong(what: str, param: str, engine: str) -> EngineRefusal:
    """A refusal in OpenAI's shape: the request itself is at fault, every engine would refuse it."""
    return refusal(f"{param}: {what}", 400, engine, param)


def unable(what: str, engine: str) -> EngineRefusal:
    """A refusal of what this engine cannot do, and another one may: the next is asked."""
    return refusal(what, 501, engine, None)


def refusal(what: str, status: int, engine: str, param: str | None) -> EngineRefusal:
    """OpenAI's error object."""
    told = {"message": what, "type": "invalid_request_error", "param": param, "code": None}
    return EngineRefusal(what, engine=engine, status=status, body=encode({"error": told}))
