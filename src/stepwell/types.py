"""What travels: frozen values that every room knows. They hold no behaviour and no wire format.

A reply's bytes are opaque here: only the files named `openai.py` and `replay.py` look inside them. None of these
values can be part of a reference cycle, so the garbage collector is told to leave them alone (`gc=False`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

Kind = Literal["chat", "completion", "embedding"]
Form = Literal["json", "events"]
"""How a reply's bytes are written: one JSON document, or the events of a stream."""
Verdict = Literal["answered", "deferred", "refused", "audited", "failed"]


class Caller(Struct, frozen=True, cache_hash=True, gc=False):
    """Who asks: always from the authenticated key, never from the text of a request."""

    tenant: str
    principal: str


class Request(Struct, frozen=True, kw_only=True, gc=False):
    """One question, as received (`body`) and in the form that makes equal questions equal (`canonical`)."""

    id: str
    kind: Kind
    caller: Caller
    model: str
    body: bytes
    canonical: bytes
    stream: bool = False
    include_usage: bool = False
    sampled: bool = True
    """True where the same question may rightly have many answers (temperature above 0)."""
    started_s: float = 0.0
    """`time.perf_counter()` at the first byte of the request."""
    cache_control: bytes = b""
    """The header, as received: a caller may want fresher answers than the route gives."""
    tags: tuple[str, ...] = ()
    """What the caller says its answer depends on (documents, prompts): invalidated by name."""
    aside: bool = False
    """Whether the body says what is for the gateway alone (`store`, `metadata`): engines are not given that."""
    stored: bytes | None = None
    """Where the caller wants the answer stored (`store: true`): its metadata as JSON."""


class Usage(Struct, frozen=True, gc=False):
    """Tokens of one answer; `estimated` where the engine did not count them."""

    input_tokens: int
    output_tokens: int
    estimated: bool = False


class Chunk(Struct, frozen=True, gc=False):
    """A piece of a reply: the whole JSON document, or one or more whole events of a stream."""

    data: bytes
    usage: Usage | None = None
    last: bool = False
    """True for the chunk after which the answer is complete; a stream that ends without one was cut off."""


class Answer(Struct, frozen=True, kw_only=True, gc=False):
    """A reply: what is there of it (`body`) and, for a stream still coming, the rest (`chunks`)."""

    form: Form
    body: bytes = b""
    chunks: Any = None
    """`protocols.Chunks`, which cannot be named down here; None for a reply that is all there."""
    usage: Usage | None = None
    engine: str = ""
    expires_s: float = 0.0
    """Seconds since 1970 at which a kept answer expires; 0 for a fresh one."""
    saved_usd: float | None = None
    """USD that not asking the large model saved, where known before the first byte."""
    made_s: float = 0.0
    """Seconds since 1970 at which a kept answer was made; 0 for a fresh one."""


class Case(Struct, frozen=True, kw_only=True, gc=False):
    """What is proposed on uncertain evidence, and to whom: the judge reads it, and a label carries it on."""

    question: str
    partition: bytes
    version: int
    """Of the features."""
    exact: bytes = b""
    answer: bytes = b""
    """The proposed answer's name."""
    principal: bytes = b""
    """Who asked, as a keyed hash: no single one may shape the promise."""
    learned: bool = True
    """Whether the features come from a learned metric: without one they mean something else."""


class Evidence(Struct, frozen=True, gc=False):
    """Why a step believes its answer: the promise decides on this alone."""

    kind: Literal["checked", "exact", "large", "semantic", "slot_fill", "specialist"]
    """checked: a text that passed every gate with every value, and a person's eyes; semantic: an answer to another
    wording; slot_fill: the same with this caller's values put in; specialist: a verified answer of a gated model."""
    detail: str = ""
    features: tuple[float, ...] = ()
    """What uncertain evidence is weighed by, in an order that its step fixes; empty where it is certain."""
    case: Case | None = None
    """What an audit needs to know of uncertain evidence."""


class Proposal(Struct, frozen=True, gc=False):
    """A step's answer with its evidence."""

    answer: Answer
    evidence: Evidence
    onward: Any = None
    """As in `Defer`, for the case that the promise withholds the answer."""
    usd: float = 0.0
    """What making it cost, whether it is served or not."""


class Ruling(Struct, frozen=True, gc=False):
    """What the promise says of one proposal."""

    verdict: Literal["serve", "audit", "refuse"]
    """audit: good enough to serve, but the large model answers too, and a judge compares."""
    reason: str = ""
    right: float = 1.0
    """The probability that the proposed answer is right, as the promise sees it."""
    share: float = 1.0
    """The probability with which a proposal like this one is audited; an audit stands for 1/share of them."""


class Withheld(Struct, frozen=True, gc=False):
    """A proposal that did not answer: audited or refused. The large model's answer shows whether it was right."""

    step: str
    proposal: Proposal
    ruling: Ruling


class Label(Struct, frozen=True, array_like=True, gc=False):
    """One proposal whose truth is known: what the promise learns from. Kept in the log `labels`, by place."""

    step: str
    partition: bytes
    features: tuple[float, ...]
    right: bool
    predicted: float
    """The promise's probability at the time."""
    share: float
    """The probability with which this label was observed."""
    would_serve: bool
    at_s: float
    version: int
    """Of the features: labels of another version are not learned from."""
    key: bytes = b""
    cluster: bytes = b""


class Defer(Struct, frozen=True, gc=False):
    """A step's refusal to answer: why, and what finding that out cost."""

    reason: str
    usd: float = 0.0
    error: Exception | None = None
    """Set where the step did not merely pass but failed."""
    final: bool = False
    """True where the same question has just failed below: going down would only repeat that."""
    onward: Any = None
    """`protocols.Onward`, where the answer from below is for others, too: this step sees to the rest of the descent."""


class Visit(Struct, frozen=True, array_like=True, gc=False):
    """One step tried; `seconds` run until it proposed (for a stream: to its first chunk) or deferred."""

    step: str
    verdict: Verdict
    reason: str
    seconds: float
    usd: float = 0.0


class Outcome(Struct, frozen=True, gc=False):
    """How a descent ended: an answer, or the error of the last step; and every visit on the way."""

    answer: Answer | None
    visits: tuple[Visit, ...]
    error: Exception | None = None
    withheld: tuple[Withheld, ...] = ()


class Settled(Struct, frozen=True, kw_only=True, gc=False):
    """A request that is over, as the settlers see it. `body` is whole only where `complete` is true."""

    request: Request
    outcome: Outcome
    form: Form
    body: bytes
    usage: Usage | None
    complete: bool
    status: int
    seconds: float


Settler = Callable[[Settled], None]
"""Runs after the reply. Must return at once: what is slow goes to a thread or a queue of its own."""
