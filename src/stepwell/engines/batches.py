"""OpenAI's batch interface: many questions in one file, answered within a day for less, fetched when they are done."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from secrets import token_hex

import msgspec
from msgspec import Struct

from stepwell.errors import EngineBadReply, EngineRefusal, EngineUnavailable

PATH = "/v1/chat/completions"
TIMEOUT_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 60.0
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


class NothingAnswered(EngineBadReply):
    """A batch ended as a whole without an answer: it will never have one, and costs nothing."""


class Batches(Struct, frozen=True):
    """A server's batch interface; `url` up to and with `/v1`."""

    url: str
    key: str = ""

    def upload(self, questions: Mapping[str, bytes]) -> str:
        """Lay chat requests down by name; the file's id. Nothing is begun, or owed, by that. Raises EngineError."""
        lines = (
            {"custom_id": name, "method": "POST", "url": PATH, "body": msgspec.Raw(body)}
            for name, body in questions.items()
        )
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        return self.made("/files", *form(data))

    def begin(self, file: str) -> str:
        """Begin the batch of a file; its id. Raises EngineError: EngineRefusal where it surely was not begun."""
        asked = {"input_file_id": file, "endpoint": PATH, "completion_window": "24h"}
        return self.made("/batches", json.dumps(asked).encode(), "application/json")

    def fetch(self, batch: str, pause: Callable[[float], None] = time.sleep) -> dict[str, bytes]:
        """Wait for a batch; its good replies by name. Raises EngineError: NothingAnswered where it has none."""
        wait_s = FIRST_PAUSE_S
        while (state := self.asked(f"/batches/{batch}")).get("status") not in ENDED:
            pause(wait_s)
            wait_s = min(LONGEST_PAUSE_S, wait_s * 1.5)
        file = state.get("output_file_id")
        if not file:
            what = f"the batch {batch} ended as {state.get('status')} without an answer"
            raise NothingAnswered(f"{what}; run again to ask anew", engine="batches")
        return dict(answers(self.bytes_of(f"/files/{file}/content")))

    def made(self, path: str, data: bytes, kind: str) -> str:
        """The id of what one request made."""
        told = self.asked(path, data, kind)
        if "id" not in told:
            raise EngineBadReply(f"{path}: the reply names no id", engine="batches")
        return str(told["id"])

    def asked(self, path: str, data: bytes | None = None, kind: str = "") -> dict[str, object]:
        """One request's JSON."""
        try:
            found = msgspec.json.decode(self.bytes_of(path, data, kind), type=dict[str, object])
        except msgspec.DecodeError as error:
            raise EngineBadReply(f"{path}: {error}", engine="batches") from error
        return found

    def bytes_of(self, path: str, data: bytes | None = None, kind: str = "") -> bytes:
        """One request's reply."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        headers |= {"Content-Type": kind} if kind else {}
        # The configuration lets only http:// and https:// through.
        request = urllib.request.Request(f"{self.url}{path}", data, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:  # noqa: S310
                return bytes(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                said = error.read()
            what = f"{path}: {error.code} {said[:200].decode(errors='replace')}"
            raise EngineRefusal(what, engine="batches", status=error.code, body=said) from error
        except OSError as error:
            raise EngineUnavailable(f"{path}: {error}", engine="batches") from error


def form(data: bytes) -> tuple[bytes, str]:
    """An upload of one file (RFC 7578), and its content type."""
    mark = token_hex(16)
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="batch.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return head.encode() + data + f"\r\n--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


class Response(Struct):
    """A reply within an output file."""

    status_code: int
    body: msgspec.Raw


class Line(Struct):
    """A line of an output file."""

    custom_id: str
    response: Response | None = None


def answers(output: bytes) -> list[tuple[str, bytes]]:
    """The good replies of an output file; junk lines are left out."""
    found = []
    for line in output.splitlines():
        try:
            told = msgspec.json.decode(line, type=Line)
        except msgspec.DecodeError:
            continue
        if told.response is not None and told.response.status_code == 200:  # noqa: PLR2004 - OK
            found.append((told.custom_id, bytes(told.response.body)))
    return found
