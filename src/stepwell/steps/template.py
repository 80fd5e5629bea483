"""The template step: a checked text, filled with the reader's values; whatever it cannot fill goes one step down.

A request says its template in `metadata` (`template`, and `values`, `reader`, `locale` where they are wanted), or its
last message is a JSON object whose keys are the slots of a published structure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.engines.openai import said
from stepwell.engines.replay import in_form
from stepwell.templates.fill import Filled
from stepwell.templates.live import Live, Texts
from stepwell.types import Answer, Defer, Evidence, Form, Proposal, Request, Usage

BYTES_A_TOKEN = 4
"""For what the large model would have cost; marked as estimated."""


class Metadata(Struct):
    """What a request may say of its template."""

    template: str = ""
    values: str = ""
    """A JSON object; by default the last message is one."""
    reader: str = ""
    locale: str = ""


class Message(Struct):
    """A message; its content is looked at only where it is text."""

    content: Any = None


class Asked(Struct):
    """The part of a request that matters here."""

    messages: list[Message] = []
    metadata: Metadata | None = None
    n: int | None = None
    tools: Any = None
    response_format: Any = None


asked_by = msgspec.json.Decoder(Asked).decode
values_by = msgspec.json.Decoder(dict[str, Any]).decode


class Template:
    """The step. `worth` says what an answer of a model would have cost at the large model, in USD."""

    name = "template"

    def __init__(self, live: Live, locale: str, worth: Callable[[str, Usage], float]) -> None:
        self.live, self.locale, self.worth = live, locale, worth

    async def propose(self, request: Request) -> Proposal | Defer:
        """Fill the template that is named or matches; defer with the reason otherwise."""
        if request.kind != "chat":
            return Defer("no chat")
        try:
            asked = asked_by(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Defer("no template is named, and the request is of another shape")
        wanted = asked.metadata or Metadata()
        if (asked.n or 1) > 1 or asked.tools or asked.response_format:
            return Defer("asks for more than a text")
        values = values_of(asked, wanted)
        if values is None:
            return Defer("no values: the last message is no JSON object" if wanted.template else "no template is named")
        texts = self.live.texts(wanted.locale or self.locale)
        if isinstance(texts, str):
            return Defer(texts)
        return self.filled(request, texts, wanted, values)

    def filled(self, request: Request, texts: Texts, wanted: Metadata, values: dict[str, Any]) -> Proposal | Defer:
        """The text, with what it is evidence of."""
        name = wanted.template or texts.index.find(values)
        if name is None:
            return Defer(f"no template says {'+'.join(sorted(values))[:200]}")
        result = texts.filler.fill(name, values, wanted.reader)
        if not isinstance(result, Filled):
            return Defer(f"template {name}: {result.slot} {result.why}" if result.slot else f"no template {name!r}")
        usage = Usage(len(request.canonical) // BYTES_A_TOKEN, -(-len(result.text) // BYTES_A_TOKEN), estimated=True)
        wants: Form = "events" if request.stream else "json"
        body = in_form(said(request, result.text, usage), "json", wants, "chat", include_usage=request.include_usage)
        saved_usd = self.worth(request.model, usage)
        answer = Answer(form=wants, body=body, usage=usage, engine="template", saved_usd=saved_usd)
        return Proposal(answer, Evidence("checked", f"{name}, variant {result.variant}, version {texts.version}"))


def values_of(asked: Asked, wanted: Metadata) -> dict[str, Any] | None:
    """The reader's values, where the request has any."""
    text = wanted.values or (asked.messages[-1].content if asked.messages else None)
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return None
    try:
        return values_by(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
