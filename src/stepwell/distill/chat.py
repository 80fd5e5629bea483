"""A folder's tokenizer and chat template: texts become token ids as they do at serving, and come back.

A text is data: where it holds the name of a special token ("</s>"), that is letters, not the token.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from stepwell.errors import DistillError

BARE = "{{ bos_token }}{{ messages[-1]['content'] }}"
"""The template of a folder that has none."""
HERE = "\ue0f0stepwell\ue0f1"
"""Stands for the text while a template is cut into what lies before and behind it (private use area)."""


@dataclass(frozen=True)
class Words:
    """A tokenizer with its chat template and ends."""

    tokenizer: Tokenizer
    tokenizer_hash: str
    """sha256 of tokenizer.json, hex."""
    template: str
    specials: dict[str, str]
    """bos_token, eos_token and so on, as the template names them."""
    end: int
    """The token that is learned behind a text."""
    ends: frozenset[int]
    """Tokens that end a text at generation."""
    pad: int

    @cached_property
    def literal(self) -> Tokenizer:
        """The same tokenizer, blind for the names of special tokens."""
        blind = Tokenizer.from_str(self.tokenizer.to_str())
        blind.encode_special_tokens = True
        return blind

    @cached_property
    def names(self) -> re.Pattern[str] | None:
        """Finds the names of special tokens in a text."""
        names = [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]
        return re.compile("|".join(map(re.escape, names))) if names else None

    @cached_property
    def render(self) -> Callable[..., str]:
        """The compiled chat template."""
        return compiled(self.template)

    def prompt(self, text: str) -> str:
        """The text as the one user message, with what invites an answer. Raises DistillError."""
        messages = [{"role": "user", "content": text}]
        try:
            return self.render(messages=messages, add_generation_prompt=True, **self.specials)
        except TemplateError as error:
            raise DistillError(f"the chat template refuses a user message: {error}") from error

    def prompt_ids(self, text: str) -> list[int]:
        """Token ids of a prompt, as a server makes them from a request."""
        if self.names is None or not self.names.search(text):
            return list(self.tokenizer.encode(self.prompt(text), add_special_tokens=False).ids)
        before, _, behind = self.prompt(HERE).partition(HERE)
        parts = ((self.tokenizer, before), (self.literal, text), (self.tokenizer, behind))
        return [id_ for words, part in parts for id_ in words.encode(part, add_special_tokens=False).ids]

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text to be learned, its end token included."""
        return [*self.literal.encode(text, add_special_tokens=False).ids, self.end]

    def text(self, ids: list[int]) -> str:
        """Token ids of an answer as text, up to its end."""
        return str(self.tokenizer.decode(ids)).strip()


def words_of(folder: Path) -> Words:
    """The tokenizer of a Hugging Face folder. Raises DistillError."""
    file = folder / "tokenizer.json"
    try:
        raw = file.read_bytes()
        tokenizer = Tokenizer.from_str(raw.decode())
    except Exception as error:
        raise DistillError(f"no tokenizer can be read: {error}", file=str(file)) from error
    said = read_json(folder / "tokenizer_config.json")
    ends = ends_of(folder)
    specials = {name: name_of(value) for name, value in said.items() if name.endswith("_token") and value}
    end = tokenizer.token_to_id(specials.get("eos_token", ""))
    if end is None and not ends:
        raise DistillError("the folder names no end token: set eos_token in tokenizer_config.json", file=str(folder))
    end = ends[0] if end is None else end
    pad = tokenizer.token_to_id(specials.get("pad_token", ""))
    return Words(
        tokenizer=tokenizer,
        tokenizer_hash=hashlib.sha256(raw).hexdigest(),
        template=template_of(folder, said),
        specials={"bos_token": "", "eos_token": "", **specials},
        end=end,
        ends=frozenset({end, *ends}),
        pad=end if pad is None else pad,
    )


def ends_of(folder: Path) -> list[int]:
    """The ids that end a text, from generation_config.json and config.json."""
    found: list[int] = []
    for file in ("generation_config.json", "config.json"):
        ids = read_json(folder / file).get("eos_token_id")
        found += ids if isinstance(ids, list) else [] if ids is None else [ids]
    return found


def template_of(folder: Path, said: dict[str, Any]) -> str:
    """The chat template: chat_template.jinja, or the key of tokenizer_config.json (one, or a list of named ones)."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    template = said.get("chat_template") or BARE
    if isinstance(template, list):
        named = {one["name"]: one["template"] for one in template}
        template = named.get("default") or next(iter(named.values()))
    return str(template)


def compiled(template: str) -> Callable[..., str]:
    """A template with what Hugging Face's own renderer gives it; the folder's author cannot reach beyond it."""
    rooms = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    rooms.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    rooms.globals["raise_exception"] = refuse
    rooms.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    try:
        return rooms.from_string(template).render
    except TemplateError as error:
        raise DistillError(f"the chat template is no Jinja: {error}") from error


def refuse(message: str) -> NoReturn:
    """What a template calls where it cannot write the messages."""
    raise TemplateError(message)


def name_of(token: Any) -> str:  # noqa: ANN401 - JSON
    """A special token's text: a string, or an object with `content`."""
    return str(token["content"] if isinstance(token, dict) else token)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file. Raises DistillError."""
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DistillError(f"cannot be read: {error}", file=str(file)) from error
    return dict(found)
