"""OpenAI's wire shape at the front door: a body becomes a Request, an error becomes OpenAI's error object.

Beside `replay.py` and the engines' `openai.py` this is the only file that knows OpenAI's field names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.engines.openai import ASIDE
from stepwell.errors import AdmitError, BadRequest, EngineRefusal, StepwellError
from stepwell.gateway import numbers
from stepwell.types import Caller, Form, Kind, Request, Usage

PATHS: dict[bytes, Kind] = {
    b"/v1/chat/completions": "chat",
    b"/v1/completions": "completion",
    b"/v1/embeddings": "embedding",
}
ASKS: dict[Kind, str] = {"chat": "messages", "completion": "prompt", "embedding": "input"}
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

OUTSIDE = frozenset({"stream", "stream_options", "user", *ASIDE})
"""Fields that do not change the answer, only its delivery or its bookkeeping."""
DEFAULTS: dict[str, Any] = {
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "n": 1,
    "logprobs": False,
    "parallel_tool_calls": True,
    "encoding_format": "float",
    "logit_bias": {},
}
NOTHING: Mapping[bytes, bytes] = {}
MOST_TAGS, MOST_TAG_LETTERS = 64, 200
MOST_PAIRS, MOST_NAME_LETTERS, MOST_VALUE_LETTERS = 16, 64, 512
"""What OpenAI takes as metadata."""
NUMBERS = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"})


def parse(
    kind: Kind,
    body: bytes,
    *,
    id: str,  # noqa: A002 - OpenAI's word
    caller: Caller,
    started_s: float,
    headers: Mapping[bytes, bytes] = NOTHING,
) -> Request:
    """Check a body and bring it into its canonical form. Raises BadRequest naming the field at fault."""
    fields = decoded(body)
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("name the model to ask, as a string", param="model")
    check_question(kind, fields)
    stream = flag(fields, "stream")
    if stream and kind == "embedding":
        raise BadRequest("embeddings are not streamed", param="stream")
    options = fields.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequest("must be an object", param="stream_options")
    return Request(
        id=id,
        kind=kind,
        caller=caller,
        model=model,
        body=body,
        canonical=canonical(fields),
        stream=stream,
        include_usage=bool(options and options.get("include_usage")),
        sampled=kind != "embedding" and fields.get("temperature", 1) != 0,
        started_s=started_s,
        cache_control=headers.get(b"cache-control", b""),
        tags=tags(fields.get("metadata"), headers.get(b"stepwell-tags")),
        aside="store" in fields or "metadata" in fields,
        stored=stored(fields) if "store" in fields and kind == "chat" else None,
    )


def stored(fields: dict[str, Any]) -> bytes | None:
    """The metadata under which an answer is to be stored, as JSON; None where it is not. Raises BadRequest."""
    return msgspec.json.encode(metadata_of(fields)) if flag(fields, "store") else None


def metadata_of(fields: Mapping[str, Any]) -> dict[str, str]:
    """Read `metadata`, which may be missing or null. Raises BadRequest."""
    pairs = fields.get("metadata")
    if pairs is None:
        return {}
    if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
        raise BadRequest("must be an object of strings", param="metadata")
    if len(pairs) > MOST_PAIRS:
        raise BadRequest(f"at most {MOST_PAIRS} pairs", param="metadata")
    if any(len(name) > MOST_NAME_LETTERS or len(value) > MOST_VALUE_LETTERS for name, value in pairs.items()):
        what = f"names of at most {MOST_NAME_LETTERS} letters, values of at most {MOST_VALUE_LETTERS}"
        raise BadRequest(what, param="metadata")
    return pairs


def tags(metadata: object, header: bytes | None) -> tuple[str, ...]:
    """What an answer depends on, as its caller says: names with commas between. Raises BadRequest."""
    said = metadata.get("stepwell_tags", "") if isinstance(metadata, dict) else ""
    if header is None and said == "":
        return ()
    if not isinstance(said, str):
        raise BadRequest("must be a string: names with commas between", param="metadata.stepwell_tags")
    names = [each.strip() for each in f"{said},{(header or b'').decode('latin-1')}".split(",")]
    if len(names) > MOST_TAGS or any(len(each) > MOST_TAG_LETTERS for each in names):
        what = f"at most {MOST_TAGS} names of {MOST_TAG_LETTERS} letters"
        raise BadRequest(what, param="metadata.stepwell_tags")
    return tuple(sorted({each for each in names if each}))


def decoded(body: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises BadRequest."""
    try:
        fields = numbers.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    if not isinstance(fields, dict):
        raise BadRequest("the body must be a JSON object")
    return fields


def canonical(fields: dict[str, Any]) -> bytes:
    """The form that makes equal questions equal bytes: no defaults, no nulls, keys sorted, numbers in one form.

    A specification with test vectors is in docs/digest.md: clients compute it, too.

    Raises BadRequest where a sampling number is none, for they decide about the cache.
    """
    kept = {name: value for name, value in fields.items() if value is not None and name not in OUTSIDE}
    for name in [name for name in kept if name in DEFAULTS]:
        if name in NUMBERS:
            kept[name] = number(name, kept[name])
        if kept[name] == DEFAULTS[name] and isinstance(kept[name], bool) == isinstance(DEFAULTS[name], bool):
            del kept[name]
    canonical_form: bytes = numbers.encode(kept)
    return canonical_form


def number(name: str, value: object) -> int | float | numbers.Odd:
    """A double in its one form: 0 and 0.0 ask the same. Raises BadRequest for what is no number."""
    if isinstance(value, numbers.Odd) or type(value) is float:
        return value
    if type(value) is not int:
        raise BadRequest("must be a number", param=name)
    try:
        return numbers.plain(float(value))
    except OverflowError:
        raise BadRequest("is too large a number", param=name) from None


def check_question(kind: Kind, fields: dict[str, Any]) -> None:
    """What is asked must be there and of the right type."""
    name = ASKS[kind]
    asked = fields.get(name)
    if kind == "chat":
        check_messages(asked)
    elif not isinstance(asked, str | list) or not asked:
        raise BadRequest("must be a string or a list, and not empty", param=name)


def check_messages(messages: Any) -> None:  # noqa: ANN401 - that is what is being found out
    """Roles and content only: everything else in a message is between the caller and the engine."""
    if not isinstance(messages, list) or not messages:
        raise BadRequest("must be a list of at least one message", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise BadRequest("must be an object", param=f"messages[{index}]")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise BadRequest(f"must be one of {', '.join(sorted(ROLES))}", param=f"messages[{index}].role")
        content = message.get("content")
        if content is not None and not isinstance(content, (str, list)):
            raise BadRequest("must be a string or a list of parts", param=f"messages[{index}].content")


def flag(fields: dict[str, Any], name: str) -> bool:
    """Read a boolean that may be missing or null."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadRequest("must be true or false", param=name)
    return bool(value)


def known(error: Exception | None) -> StepwellError:
    """An error of our own tree, with a status; anything else is a defect, and none of the caller's business."""
    return error if isinstance(error, StepwellError) else StepwellError("an internal error; the log has it")


def error_body(error: StepwellError) -> bytes:
    """OpenAI's error object; what an engine said of its own accord goes on unchanged."""
    if isinstance(error, EngineRefusal) and error.body:
        return error.body
    told = {
        "message": str(error),
        "type": "invalid_request_error" if isinstance(error, AdmitError) and error.status < 500 else "server_error",  # noqa: PLR2004
        "param": error.param if isinstance(error, AdmitError) else None,
        "code": error.code,
    }
    return msgspec.json.encode({"error": told})


def error_event(error: StepwellError) -> bytes:
    """The same as an event, for a stream that broke off."""
    return b"data: " + error_body(error).replace(b"\n", b" ") + b"\n\n"


def models_body(models: list[str], created_s: int) -> bytes:
    """The list that GET /v1/models gives."""
    return msgspec.json.encode({"object": "list", "data": [described(model, created_s) for model in models]})


def model_body(model: str, created_s: int) -> bytes:
    """What GET /v1/models/NAME gives."""
    return msgspec.json.encode(described(model, created_s))


def described(model: str, created_s: int) -> dict[str, Any]:
    """One model, as OpenAI describes it."""
    return {"id": model, "object": "model", "created": created_s, "owned_by": "stepwell"}


def is_usage_event(event: bytes) -> bool:
    """Say whether an event carries usage and no choices: only callers who asked for it are given it."""
    return b'"choices":[]' in event or b'"choices": []' in event


def with_saved(event: bytes, usd: bytes) -> bytes:
    """A usage event that says what was saved, too: for a stream whose head had to go out before anybody knew."""
    if not event.startswith(b"data:") or not event.endswith(b"}\n\n") or event.count(b"\n") > 2:  # noqa: PLR2004
        return event
    return b'%b,"stepwell_saved_usd":%b}\n\n' % (event[:-3], usd)


def estimated_usage(request: Request, body: bytes, form: Form) -> Usage:
    """Tokens where the engine counted none: one a stream event, else four bytes a token. Marked `estimated`."""
    output_tokens = body.count(b"\ndata: ") if form == "events" else len(body) // 4
    return Usage(len(request.canonical) // 4 + 1, output_tokens, estimated=True)
