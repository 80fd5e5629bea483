"""A teacher on loopback: an OpenAI-compatible server that writes by rule, counts its calls, and can misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

OPENINGS = ("Hello", "News", "Look", "Guess what", "For today", "Good evening", "By the way", "Well")
PER_CALL = 8


@dataclass
class Teacher:
    """What it was asked, and how it answers."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    junk: bool = False
    """Answer nonsense."""
    flawed: bool = False
    """Write one text that the check refuses, until asked to mend it."""
    say: Callable[[dict[str, Any]], Any] | None = None
    """Answers in place of the templates: a chat completion, or an error's status."""
    batches: bool = False
    dead: bool = False
    """End batches without an answer."""
    refused: dict[str, int] = field(default_factory=dict)
    """Paths that are refused, with the status."""
    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return len(self.asked)


def texts(wanted: dict[str, Any], *, flawed: bool) -> list[str]:
    """Messages that say what is wanted."""
    slots = [fact["slot"].removeprefix("$") for fact in wanted["say"] if "slot" in fact]
    counted = [fact["slot"].removeprefix("$") for fact in wanted["say"] if fact.get("kind") == "number"]
    head = "".join(f".input {{${slot} :integer}}\n" for slot in counted)
    said = ", ".join(f"{slot.replace('_', ' ')} {{${slot}}}" for slot in slots)
    made = [
        f"{opening}: {said}{end}"
        for opening, end in zip(OPENINGS, ("", ".", "!", " now", " today", "!", ".", ""), strict=True)
    ]
    sources = [f"{head}{{{{{text}}}}}" if head else text for text in made]
    return ["Only {$nothing}.", *sources[1:]] if flawed else sources


def answer(teacher: Teacher, body: dict[str, Any]) -> Any:
    """A chat completion, or an error's status."""
    teacher.asked.append(body)
    if teacher.say is not None:
        return teacher.say(body)
    wanted = json.loads(body["messages"][1]["content"])
    mending = len(body["messages"]) > 2
    told = {"templates": texts(wanted, flawed=teacher.flawed and not mending)}
    content = "I would rather not." if teacher.junk else json.dumps(told)
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 400, "completion_tokens": 200, "total_tokens": 600}
    return completion(body, choice, usage)


def completion(body: dict[str, Any], choice: dict[str, Any], usage: dict[str, int]) -> dict[str, Any]:
    """The frame of a reply."""
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [choice],
        "usage": usage,
    }


@contextmanager
def teaching(**how: Any) -> Iterator[Teacher]:
    """A running teacher."""
    teacher = Teacher(**how)
    numbers = count(1)

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Quiet."""

        def reply(self, told: Any, status: int = 200) -> None:
            data = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(teacher.refused.get(self.path, status))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/chat/completions":
                told = answer(teacher, json.loads(data))
                self.reply({"error": {"message": "no"}}, told) if isinstance(told, int) else self.reply(told)
            elif self.path == "/v1/files" and teacher.batches:
                name = f"file-{next(numbers)}"
                teacher.files[name] = part_of(data)
                self.reply({"id": name, "object": "file"})
            elif self.path == "/v1/batches" and teacher.batches:
                name = f"batch-{next(numbers)}"
                teacher.jobs[name] = {"id": name, "status": "in_progress", "input": json.loads(data)["input_file_id"]}
                self.reply(teacher.jobs[name])
            else:
                self.reply({"error": {"message": "no such path"}}, 404)

        def do_GET(self) -> None:
            kind, _, name = self.path.removeprefix("/v1/").partition("/")
            if kind == "batches" and name in teacher.jobs:
                self.reply(finished(teacher, name))
            elif kind == "files" and name.removesuffix("/content") in teacher.files:
                self.reply(teacher.files[name.removesuffix("/content")])
            else:
                self.reply({"error": {"message": "no such thing"}}, 404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    teacher.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield teacher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        time.sleep(0)


def finished(teacher: Teacher, name: str) -> dict[str, Any]:
    """A batch's state; it is done when it is looked at."""
    job = teacher.jobs[name]
    if teacher.dead:
        job["status"] = "failed"
    elif job["status"] != "completed":
        lines = [json.loads(line) for line in teacher.files[job["input"]].splitlines()]
        done = [
            {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": answer(teacher, line["body"])}}
            for line in lines
        ]
        teacher.files[f"out-{name}"] = b"".join(json.dumps(each).encode() + b"\n" for each in done)
        job |= {"status": "completed", "output_file_id": f"out-{name}"}
    return job


def part_of(multipart: bytes) -> bytes:
    """The file in a form of several parts."""
    boundary = multipart.partition(b"\r\n")[0]
    for part in multipart.split(boundary):
        head, _, body = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            return body.removesuffix(b"\r\n")
    return b""
