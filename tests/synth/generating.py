"""A generator to ask: a real server that says what a test wants, and recipes that ask it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import Upstream
from stepwell.engines.answers import Answers, Budget
from stepwell.quality.verify import bracketed
from stepwell.synth.generator import Paid, opened
from stepwell.synth.recipe import Recipe, load

Say = Callable[[dict[str, Any]], str | dict[str, Any]]

SEEDS = [
    {"prompt": f"name[{name}], food[{food}]", "completion": f"{name} serves {food} food{end}"}
    for name, food, end in [
        ("The Mill", "French", "."),
        ("The Fox", "Indian", " and is worth a visit."),
        ("Blue Heron", "Italian", ", as everybody in town knows."),
        ("The Lamp", "French", ", and people like it a lot."),
        ("Old Anchor", "Japanese", " all day and all night."),
        ("Green Man", "English", ", mostly pies."),
    ]
]


def sentence(body: dict[str, Any]) -> str:
    """A right sentence for the facts of the last message."""
    facts = bracketed(body["messages"][-1]["content"])
    said = " ".join(f"Its {name} is {value}." for name, value in facts.items() if name not in {"name", "food"})
    return f"{facts.get('name')} serves {facts.get('food')} food. {said}".strip()


@dataclass
class Server:
    """An OpenAI-compatible server whose words are `say`; a dict is a whole choice, or an error with its status."""

    upstream: Upstream
    say: Say = sentence
    bodies: list[dict[str, Any]] = field(default_factory=list)
    delay_s: float = 0.0

    @property
    def url(self) -> str:
        return self.upstream.url

    async def answer(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(body)
        self.bodies.append(asked)
        await asyncio.sleep(self.delay_s)
        said = self.say(asked)
        status = said.pop("status", "200 OK") if isinstance(said, dict) else "200 OK"
        choice = said if isinstance(said, dict) else {"message": {"content": said}, "finish_reason": "stop"}
        reply = {
            "model": "writer-2026-11",
            "system_fingerprint": "fp_1",
            "choices": [{"index": 0, **choice}],
            "usage": {"prompt_tokens": len(body) // 4, "completion_tokens": 20},
        }
        data = json.dumps(said if "error" in choice else reply).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()


@dataclass
class Kitchen:
    """A folder with seeds, in which recipes are written."""

    folder: Path
    server: Server

    def recipe(self, more: str = "", *, generator: str = "", synth: str = "", seeds: bool = True) -> Path:
        text = f'[synth]\nlicence = "CC0-1.0"\n{synth}\n'
        if seeds:
            text += '[synth.seeds]\npaths = ["seeds.jsonl"]\nlicence = "CC BY 4.0"\n'
        text += f'[synth.generator]\nurl = "{self.server.url}"\nmodel = "meta-llama/llama-3-3-70b-instruct"\nmax_tokens = 64\n{generator}\n{more}\n'
        path = self.folder / "recipe.toml"
        path.write_text(text)
        return path

    def load(self, more: str = "", **parts: Any) -> Recipe:
        return load(self.recipe(more, **parts))

    def open(self, recipe: Recipe, budget: Budget | None = None) -> Callable[[], Paid]:
        answers = Answers(self.folder / "answers")
        return lambda: opened(recipe, answers, budget or Budget(), lambda _done, _all, _usd: None)


def kitchen_in(folder: Path, upstream: Upstream) -> Kitchen:
    """A folder with seeds, and a server that answers."""
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SEEDS))
    server = Server(upstream)
    upstream.script = server.answer
    return Kitchen(folder, server)
