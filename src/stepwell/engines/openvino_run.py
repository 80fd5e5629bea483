"""One request to OpenVINO GenAI: OpenAI's fields into its settings, its tokens into OpenAI's events.

Its own handling of stop strings works on whole tokens, and it gives no text: both are done here.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from secrets import randbits
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from stepwell.engines import openai, replay
from stepwell.engines.openvino_schema import plain
from stepwell.engines.structured import Shape, checked, shape_of, unable, wrong
from stepwell.engines.texts import only_text
from stepwell.errors import EngineBadReply
from stepwell.types import Chunk, Request, Usage

SEED_BITS = 31
MOST_STOPS, MOST_CHOICES = 16, 128
MOST_WHITE_SPACE = 64
"""More of it in JSON, and a model that never saw any would write it for ever."""
MOST_LETTERS = 300
"""Of what OpenVINO says went wrong."""
NUMBERS = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0}
ELSEWHERE = ("logit_bias", "echo", "suffix", "best_of", "grammar", "json_schema", "modalities", "audio")
"""What only llama.cpp, or nobody here, can do."""

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(dict[str, Any]).decode


class Model(Struct, frozen=True):
    """What is loaded: OpenVINO's pipeline and tokenizer, and what the file says of tokens."""

    name: str
    pipeline: Any
    tokenizer: Any
    pieces: Sequence[bytes]
    """The bytes of every token; none for those that only steer."""
    ends: frozenset[int]
    begin: int | None
    """The token that every text begins with."""
    context_tokens: int
    numbers: Iterator[int]
    """A new one for every text that the pipeline is to continue."""


class Voice:
    """One choice on its way: tokens come in, text goes out."""

    def __init__(self, index: int, handle: Any, model: Model, stops: Sequence[str], *, logprobs: bool) -> None:  # noqa: ANN401
        self.index, self.handle, self.model, self.stops = index, handle, model, stops
        self.hold = max((len(stop) for stop in stops), default=1) - 1
        """Letters at the end of the text that may be the beginning of a stop string."""
        self.bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self.text, self.given, self.num_tokens = "", 0, 0
        self.finish: str | None = None
        self.opened = self.closed = False
        self.logprobs: list[dict[str, Any]] | None = [] if logprobs else None

    def read(self) -> None:
        """Take the tokens that were made since the last step."""
        if self.finish is None and self.handle.can_read():
            for output in self.handle.read().values():
                self.take(output.generated_ids, output.generated_log_probs)
                if self.finish is None and output.finish_reason.name != "NONE":
                    self.end(output.finish_reason.name.lower())

    def take(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Turn tokens into text, up to a stop string."""
        for at, logprob in zip(ids, logprobs, strict=True):
            self.num_tokens += 1
            if at in self.model.ends:
                continue
            piece = self.model.pieces[at]
            self.text += self.bytes.decode(piece)
            if self.logprobs is not None:
                token = piece.decode(errors="replace")
                told = {"token": token, "logprob": logprob, "bytes": list(piece), "top_logprobs": []}
                self.logprobs.append(told)
        found = [at for stop in self.stops if (at := self.text.find(stop, max(0, self.given - self.hold))) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.handle.cancel()
            self.end("stop", cut=True)

    def end(self, why: str, *, cut: bool = False) -> None:
        """No more is coming: what was held back is text."""
        self.text += "" if cut else self.bytes.decode(b"", final=True)
        self.finish, self.hold = why, 0

    def news(self) -> str:
        """Text that is sure and was not given yet."""
        sure = max(self.given, len(self.text) - self.hold)
        text, self.given = self.text[self.given : sure], sure
        return text

    def told_logprobs(self) -> dict[str, Any] | None:
        """OpenAI's `logprobs` of the tokens since the last event."""
        if self.logprobs is None:
            return None
        told, self.logprobs = self.logprobs, []
        return {"content": told}


class Run:
    """One request, all of its choices. Raises EngineRefusal on construction."""

    def __init__(self, number: int, request: Request, model: Model) -> None:
        self.number, self.request, self.model = number, request, model
        fields = decode(request.body)
        check(fields, request, model.name)
        self.shape = shape_of(fields, model.name)
        prompts = [prompt_ids(each, request, model) for each in prompts_of(fields, request, model)]
        stops, num = stops_of(fields, model.name), whole(fields, "n", 1, MOST_CHOICES, model.name)
        given = [settings(fields, at, ids, self.shape, model) for ids in prompts for at in range(num)]
        tokens = [ids for ids in prompts for _ in range(num)]
        self.num_input_tokens = sum(map(len, prompts))
        self.voices = [
            Voice(at, begun(ids, each, model), model, stops, logprobs=bool(fields.get("logprobs")))
            for at, (ids, each) in enumerate(zip(tokens, given, strict=True))
        ]
        self.live = request.stream and self.shape is None

    @property
    def ended(self) -> bool:
        """Whether every choice is whole."""
        return all(voice.finish is not None for voice in self.voices)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(self.num_input_tokens, sum(voice.num_tokens for voice in self.voices))

    def moved(self) -> list[Chunk]:
        """What a step has brought. Raises EngineBadReply."""
        for voice in self.voices:
            voice.read()
        if self.shape is not None and self.shape.schema is not None:
            self.watch()
        if self.live:
            chunks = self.events()
            return [*chunks, *self.closing()] if self.ended else chunks
        return self.whole() if self.ended else []

    def stop(self) -> None:
        """Nobody wants it any more."""
        for voice in self.voices:
            voice.handle.cancel()

    def watch(self) -> None:
        """Raises EngineBadReply where JSON is nothing but white space any more."""
        for voice in self.voices:
            if len(voice.text) - len(voice.text.rstrip()) > MOST_WHITE_SPACE:
                raise EngineBadReply(f"white space without end where JSON was asked for: {voice.text[:40]!r}")

    def events(self) -> list[Chunk]:
        """The events of every choice that has something new."""
        told = b"".join(self.spoken(voice) for voice in self.voices)
        return [Chunk(told)] if told else []

    def spoken(self, voice: Voice) -> bytes:
        """The new events of one choice."""
        text, told = voice.news(), b""
        if text or (voice.finish is not None and not voice.opened):
            first, voice.opened = not voice.opened, True
            logprobs = voice.told_logprobs()
            told = openai.event(self.request, text, first=first, index=voice.index, logprobs=logprobs)
        if voice.finish is not None and not voice.closed:
            voice.closed = True
            told += openai.event(self.request, None, voice.finish, index=voice.index)
        return told

    def closing(self) -> list[Chunk]:
        """Usage, and the end mark."""
        return [Chunk(openai.usage_event(self.request, self.usage), self.usage), Chunk(openai.DONE, last=True)]

    def whole(self) -> list[Chunk]:
        """A JSON reply; where a stream was held back until it could be checked, its events. Raises EngineBadReply."""
        events = b"".join(self.spoken(voice) for voice in self.voices)
        body = replay.to_json(events + openai.usage_event(self.request, self.usage), self.request.kind)
        if self.shape is not None:
            checked(body, self.shape, self.model.name)
        if not self.request.stream:
            return [Chunk(body, self.usage, last=True)]
        told = replay.to_events(body, self.request.kind).removesuffix(openai.DONE)
        return [Chunk(told, self.usage), Chunk(openai.DONE, last=True)]


# --- what is asked


def check(fields: Mapping[str, Any], request: Request, engine: str) -> None:
    """Raise EngineRefusal, for the next engine to be asked, where this one cannot do what is asked for."""
    if request.kind == "embedding":
        raise unable("OpenVINO GenAI runs this model for texts, not for embeddings", engine)
    if fields.get("tools") and fields.get("tool_choice") != "none":
        raise unable("OpenVINO GenAI is not asked for calls of tools here", engine)
    if fields.get("top_logprobs") or (request.kind == "completion" and fields.get("logprobs") is not None):
        raise unable("OpenVINO GenAI tells the log probability of the chosen token alone", engine)
    if found := [name for name in ELSEWHERE if fields.get(name)]:
        raise unable(f"OpenVINO GenAI does not know {found[0]}", engine)


def prompts_of(fields: Mapping[str, Any], request: Request, model: Model) -> list[str | list[int]]:
    """The texts, or lists of tokens, that are to be continued. Raises EngineRefusal."""
    if request.kind == "chat":
        return [chat_text(fields["messages"], model)]
    prompt = fields["prompt"]
    many = isinstance(prompt, list) and not all(isinstance(each, int) for each in prompt)
    prompts = prompt if many else [prompt]
    for each in prompts:
        numbers = isinstance(each, list) and all(type(at) is int and 0 <= at < len(model.pieces) for at in each)
        if not (numbers or isinstance(each, str)) or not each:
            raise wrong("must be texts, or lists of this model's tokens", "prompt", model.name)
    if len(prompts) > MOST_CHOICES:
        raise wrong(f"at most {MOST_CHOICES} at once", "prompt", model.name)
    return prompts


def chat_text(messages: Sequence[Mapping[str, Any]], model: Model) -> str:
    """Messages as one text, by the model's own template. Raises EngineRefusal."""
    plain = []
    for message in messages:
        text = only_text(message.get("content"))
        if text is None:
            raise unable("OpenVINO GenAI is given texts alone", model.name)
        plain.append({"role": message["role"], "content": text})
    try:
        return str(model.tokenizer.apply_chat_template(plain, add_generation_prompt=True))
    except RuntimeError as error:
        raise wrong("do not fit the model's chat template", "messages", model.name) from error


def prompt_ids(prompt: str | list[int], request: Request, model: Model) -> list[int]:
    """A prompt in tokens. Raises EngineRefusal where it leaves no room for an answer."""
    ids = prompt
    if isinstance(ids, str):
        ids = [int(at) for at in model.tokenizer.encode(ids, add_special_tokens=False).input_ids.data[0]]
        if request.kind == "completion" and model.begin is not None and ids[:1] != [model.begin]:
            ids = [model.begin, *ids]
    if len(ids) >= model.context_tokens:
        what = f"{len(ids)} tokens, and the context has {model.context_tokens}"
        raise wrong(what, "messages" if request.kind == "chat" else "prompt", model.name)
    return ids


def begun(ids: Sequence[int], given: Any, model: Model) -> Any:  # noqa: ANN401 - OpenVINO's own
    """Hand one prompt to the pipeline. Raises EngineRefusal."""
    from openvino import Tensor  # noqa: PLC0415

    try:
        return model.pipeline.add_request(next(model.numbers), Tensor(np.array([ids], dtype=np.int64)), given)
    except RuntimeError as error:
        raise wrong(first_line(error), "the request", model.name) from error


def settings(fields: Mapping[str, Any], at: int, ids: Sequence[int], shape: Shape | None, model: Model) -> Any:  # noqa: ANN401
    """OpenAI's sampling fields as OpenVINO's settings, for the choice `at`. Raises EngineRefusal."""
    from openvino_genai import GenerationConfig, StructuredOutputConfig  # noqa: PLC0415 - heavy, and an extra

    room = model.context_tokens - len(ids)
    numbers = {name: number(fields, name, usual, model.name) for name, usual in NUMBERS.items()}
    given = GenerationConfig()
    limit = "max_tokens" if fields.get("max_completion_tokens") is None else "max_completion_tokens"
    given.max_new_tokens = min(room, whole(fields, limit, room, 1 << 30, model.name))
    given.do_sample = numbers["temperature"] > 0
    top_k = whole(fields, "top_k", 0, 1 << 30, model.name, least=0)
    seed = whole(fields, "seed", randbits(SEED_BITS), 1 << 63, model.name, least=-(1 << 63))
    if given.do_sample:
        given.temperature, given.top_p, given.min_p = numbers["temperature"], numbers["top_p"], numbers["min_p"]
        given.top_k = top_k or (1 << 30)
        given.rng_seed = (seed + at) % (1 << SEED_BITS)
    given.presence_penalty, given.frequency_penalty = numbers["presence_penalty"], numbers["frequency_penalty"]
    given.stop_token_ids = set() if fields.get("ignore_eos") is True else set(model.ends)
    given.ignore_eos = fields.get("ignore_eos") is True
    given.logprobs = 1 if fields.get("logprobs") else 0
    if shape is not None and shape.schema is not None:
        given.structured_output_config = StructuredOutputConfig(json_schema=encode(plain(shape.schema)).decode())
    return given


def stops_of(fields: Mapping[str, Any], engine: str) -> list[str]:
    """Where a text is to stop. Raises EngineRefusal."""
    told = fields.get("stop") or []
    stops = [told] if isinstance(told, str) else told
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops) or len(stops) > MOST_STOPS:
        raise wrong(f"must be a text or up to {MOST_STOPS} of them", "stop", engine)
    return [stop for stop in stops if stop]


def number(fields: Mapping[str, Any], name: str, usual: float, engine: str) -> float:
    """A number that may be missing. Raises EngineRefusal."""
    value = fields.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong("must be a number", name, engine)
    return float(value)


def whole(fields: Mapping[str, Any], name: str, usual: int, most: int, engine: str, *, least: int = 1) -> int:
    """A whole number that may be missing. Raises EngineRefusal."""
    value = fields.get(name)
    if value is None:
        return usual
    if type(value) is not int or not least <= value <= most:
        raise wrong(f"must be a whole number from {least} to {most}", name, engine)
    return value


def first_line(error: Exception) -> str:
    """What OpenVINO says, without where in its sources."""
    lines = (re.sub(r"^.*\.(?:cc|cpp|hpp|h):\d+:?", "", line).strip() for line in str(error).splitlines())
    return next(filter(None, lines), "it does not say why")[:MOST_LETTERS]
