"""The specialist step: a small model's answer, checked by a verifier before anybody sees it.

It answers what it was gated for: chats of one user message, in text. Its first answer is greedy; where the verifier
complains it tries again with samples (n-best, the first that is right), and where all fail the request goes on to the
large model, with what the tries cost. How far it may answer at all is its trial's to say (`trial.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.breaker import Breaker
from stepwell.config import Specialist as Section
from stepwell.engines.openai import said
from stepwell.engines.replay import in_form
from stepwell.engines.talk import ask
from stepwell.engines.texts import only_text
from stepwell.errors import EngineError, EngineRefusal
from stepwell.protocols import Engine
from stepwell.quality.verify import Verify
from stepwell.steps.occupied import Occupied
from stepwell.steps.stand import Stand
from stepwell.types import Answer, Case, Defer, Evidence, Form, Proposal, Request, Usage

log = logging.getLogger(__name__)

HARMLESS = frozenset({
    "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "metadata", "store",
    "presence_penalty", "frequency_penalty", "service_tier", "safety_identifier", "prompt_cache_key",
})  # fmt: skip
"""Fields under which a greedy answer is as good as any."""
FAILURES, OPEN_S = 5, 10.0
"""Late or broken so many times in a row it is left alone for a while: nobody waits for it in vain."""
LIMITS = ("max_tokens", "max_completion_tokens")
BYTES_A_TOKEN = 4
"""For what the large model would have cost, whose tokens are not the student's; marked as estimated."""
CHANCE_BYTES = 8
MOST_PROMPT_LETTERS = 32_768
"""A longer prompt is none for a small model, nor for what looks at it on the event loop: slices and verifier."""

decode = msgspec.json.Decoder(dict[str, Any]).decode
Price = Callable[[Usage | None, float], float]
"""USD of one try, from its tokens and processor seconds."""


class Text(Struct, frozen=True):
    """An answer that passed."""

    text: str
    num_tries: int
    usd: float


class Asked(Struct, frozen=True):
    """What a request asks, in the one form that the student knows."""

    prompt: str
    max_tokens: int


@dataclass(slots=True)
class Spent:
    """What the tries for one request have cost so far."""

    usd: float = 0.0


class Specialist:
    """The step of one specialist."""

    name = "specialist"

    def __init__(
        self,
        title: str,
        section: Section,
        engine: Engine,
        stand: Stand,
        *,
        verify: Verify,
        price: Price,
        occupied: Occupied,
        worth: Callable[[str, Usage], float],
    ) -> None:
        """`title`: its name in the file; `worth`: what an answer would have cost at the large model, in USD."""
        self.title, self.section, self.engine, self.stand = title, section, engine, stand
        self.verify, self.price, self.occupied, self.worth = verify, price, occupied, worth
        self.breaker = Breaker(FAILURES, OPEN_S)

    async def propose(self, request: Request) -> Proposal | Defer:
        """A verified answer, as far as the promotion goes; else why there is none."""
        stage, why = self.stand.stage()
        if stage not in ("canary", "live"):
            return Defer(f"{self.title}: {why}")
        if stage == "canary" and not self.chosen(request):
            return Defer(f"{self.title}: a canary, and not for this request")
        asked = question(request, self.section.max_tokens)
        if isinstance(asked, str):
            return Defer(f"{self.title}: {asked}")
        if outside := self.stand.outside(asked.prompt):
            return Defer(f"{self.title}: {outside}")
        told = await asyncio.get_running_loop().create_task(self.answered(asked, request))
        return told if isinstance(told, Defer) else self.proposal(told, asked, request)

    def chosen(self, request: Request) -> bool:
        """Whether a canary may answer a request: equal ones always the same way."""
        digest = sha256(self.title.encode() + b"\0" + request.canonical).digest()[:CHANCE_BYTES]
        return bool(int.from_bytes(digest) < self.section.canary * 256**CHANCE_BYTES)

    async def answered(self, asked: Asked, request: Request) -> Text | Defer:
        """The first answer that passes, in time; to be awaited in a task."""
        if wait_s := self.breaker.wait_s():
            return Defer(f"{self.title}: too slow or broken too often, left alone for {wait_s:.1f} s")
        spent = Spent()
        try:
            async with asyncio.timeout(self.section.deadline_ms / 1000):
                told = await self.first_right(asked, request, spent)
        except (TimeoutError, EngineError) as error:
            self.noted(error)
            late = f"no answer within {self.section.deadline_ms} ms"
            failed = None if isinstance(error, TimeoutError) else error
            return Defer(f"{self.title}: {failed or late}", spent.usd, failed)
        except BaseException:
            self.breaker.undecided()
            raise
        self.breaker.succeeded()
        return told

    def noted(self, error: Exception) -> None:
        """Count a failure; a refusal of one question says nothing of the next."""
        if isinstance(error, EngineRefusal):
            self.breaker.undecided()
        else:
            self.breaker.failed()

    async def first_right(self, asked: Asked, request: Request, spent: Spent) -> Text | Defer:
        """Greedy, then samples, until one passes. Raises EngineError."""
        complaints: list[str] = []
        for number in range(self.section.tries):
            text = await self.said(asked, request, number, spent)
            complaints = self.complaints(asked.prompt, text)
            if not complaints:
                return Text(text, number + 1, spent.usd)
        num = f"{self.section.tries} tries" if self.section.tries > 1 else "its answer"
        return Defer(f"{self.title}: {num} did not pass: {'; '.join(complaints)[:200]}", spent.usd)

    async def said(self, asked: Asked, request: Request, number: int, spent: Spent) -> str:
        """One answer; empty where it was cut off. Raises EngineError."""
        fields = {
            "model": request.model,
            "messages": [{"role": "user", "content": asked.prompt}],
            "temperature": self.section.temperature if number else 0,
            "seed": number,
            "max_tokens": asked.max_tokens,
        }
        usage: Usage | None = None
        begun = self.occupied.begin()
        try:
            text, usage = await ask(self.engine, fields, request.caller)
        finally:
            spent.usd += self.price(usage, self.occupied.end(begun))
        return text.strip()

    def complaints(self, prompt: str, text: str) -> list[str]:
        """What speaks against an answer; a verifier that breaks lets nothing pass."""
        if not text:
            return ["empty, refused or cut off"]
        try:
            return self.verify(prompt, text)
        except Exception as error:  # somebody else's code, about which nothing is known
            log.exception("the verifier of the specialist %s broke", self.title)
            return [f"the verifier broke: {error!r}"]

    def proposal(self, told: Text, asked: Asked, request: Request) -> Proposal:
        """The answer in the form that the caller wants, with what it is evidence of."""
        usage = Usage(len(request.canonical) // BYTES_A_TOKEN, -(-len(told.text) // BYTES_A_TOKEN), estimated=True)
        wants: Form = "events" if request.stream else "json"
        body = in_form(said(request, told.text, usage), "json", wants, "chat", include_usage=request.include_usage)
        answer = Answer(
            form=wants,
            body=body,
            usage=usage,
            engine=self.engine.name,
            saved_usd=max(0.0, self.worth(request.model, usage) - told.usd),
        )
        tries = f", try {told.num_tries} of {self.section.tries}" if told.num_tries > 1 else ""
        case = Case(question=asked.prompt, partition=self.title.encode(), version=0)
        return Proposal(answer, Evidence("specialist", f"{self.title}{tries}", case=case), usd=told.usd)


def question(request: Request, most_tokens: int) -> Asked | str:
    """What is asked, where it is a chat of one user message in text; else why it is nothing for a specialist."""
    if request.kind != "chat":
        return f"no chat but a {request.kind}"
    fields = decode(request.canonical)
    if more := fields.keys() - HARMLESS:
        return f"asks for {min(more)}"
    messages = fields["messages"]
    if len(messages) != 1 or messages[0].get("role") != "user":
        return "more than one user message"
    text = only_text(messages[0].get("content"))
    if text is None or not text.strip():
        return "the message is no text alone"
    if len(text) > MOST_PROMPT_LETTERS:
        return f"the prompt is longer than {MOST_PROMPT_LETTERS} letters"
    limits = [fields[name] for name in LIMITS if isinstance(fields.get(name), int)]
    return Asked(text, min([most_tokens, *limits]))
