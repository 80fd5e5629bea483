"""What a gateway keeps to learn from: only of tenants who allow it, masked, with where it came from."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from conftest import SCRIPTED, Gateway, Start, Upstream, event_reply, forwarding, json_reply
from stepwell.cli.main import main
from stepwell.config_kept import Capture as Section
from stepwell.synth.capture import Capture
from stepwell.synth.capture_scribe import Writer
from stepwell.synth.captured import is_teachers, row_of
from stepwell.synth.row import Row, lacks, read
from stepwell.synth.seen import Seen
from stepwell.synth.shards import Limits, Shards, finish, folder_of
from stepwell.types import Answer, Caller, Outcome, Request, Settled, Usage, Visit

KEYS = '[[keys]]\ntenant = "a"\nenv = "KEY_A"\n\n[[keys]]\ntenant = "b"\nenv = "KEY_B"\n'
CAPTURE = '[capture]\ntenants = ["{tenant}"]\nflush_ms = 10\n{more}\n'
CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m-2026",
    "system_fingerprint": "fp_1",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Ask bo@example.com."}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}


def client(gateway: Gateway, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0)


def ask(ai: openai.OpenAI, text: str = "How deep?", **more: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return ai.chat.completions.create(**{"model": "well", "messages": messages, "temperature": 0, **more})


def captured(gateway: Gateway, tenant: str = "local") -> list[Row]:
    """Stop the gateway, and read what it kept."""
    gateway.stop()
    folder = gateway.folder / "stepwell-data" / "captured" / tenant
    return list(read(folder)) if folder.exists() and any(folder.iterdir()) else []


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    end_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_row_has_all_that_is_known_and_nothing_personal(serve: Start, upstream: Upstream) -> None:
    upstream.script = json_reply(json.dumps(CHAT).encode())
    gateway = serve(forwarding(upstream) + CAPTURE.format(tenant="local", more=""))
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "I am bo@example.com. Who am I?"},
    ]
    with client(gateway) as ai:
        ask(ai, messages=messages, max_tokens=20)
    (row,) = captured(gateway)
    assert (row.prompt, row.completion) == ("I am <EMAIL_1>. Who am I?", "Ask <EMAIL_1>.")
    assert [each.role for each in row.messages] == ["system", "user", "assistant"]
    assert row.messages[-1].content == row.completion
    assert lacks(row) == []
    assert (row.source, row.licence, row.generator, row.generator_rev) == ("captured", "internal", "m-2026", "fp_1")
    assert (row.tokens_in, row.tokens_out) == (5, 2)
    assert row.usd > 0
    assert {
        "step": "large",
        "engine": "up",
        "route": "well",
        "temperature": 0,
        "max_tokens": 20,
    }.items() <= row.params.items()
    assert is_teachers(row)
    for path in (gateway.folder / "stepwell-data" / "captured").rglob("*"):
        assert path.is_dir() or b"bo@example" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0 or path.is_dir()


def test_every_step_in_both_forms_is_marked(serve: Start) -> None:
    gateway = serve(SCRIPTED + CAPTURE.format(tenant="local", more=""))
    with client(gateway) as ai:
        ask(ai)
        ask(ai)
        assert list(ask(ai, stream=True))
        assert list(ask(ai, "And how cold?", stream=True))
        ai.completions.create(model="well", prompt="The well", temperature=0)
        ai.embeddings.create(model="well", input="water")
    rows = captured(gateway)
    assert [row.params["step"] for row in rows] == ["large", "cache", "cache", "large", "large"]
    assert [is_teachers(row) for row in rows] == [True, False, False, True, True]
    assert {row.completion for row in rows} == {"The well is deep."}
    assert [row.usd > 0 for row in rows] == [True, False, False, True, True]
    assert rows[4].prompt == "The well"
    assert all(lacks(row) == [] for row in rows)


def test_only_of_tenants_who_allow_it(serve: Start) -> None:
    gateway = serve(SCRIPTED + KEYS + CAPTURE.format(tenant="a", more=""), KEY_A="sk-a", KEY_B="sk-b")
    with client(gateway, "sk-a") as a, client(gateway, "sk-b") as b:
        ask(a, "One?")
        ask(b, "Two?")
        ask(a, "Three?", extra_headers={"Cache-Control": "no-store"})
    assert [row.prompt for row in captured(gateway, "a")] == ["One?"]
    assert [each.name for each in (gateway.folder / "stepwell-data" / "captured").iterdir()] == ["a"]


def test_nothing_is_kept_where_nobody_said_so(serve: Start) -> None:
    gateway = serve()
    with client(gateway) as ai:
        ask(ai)
    gateway.stop()
    assert not (gateway.folder / "stepwell-data" / "captured").exists()


def test_only_of_routes_and_steps_that_are_named(serve: Start) -> None:
    other = '[routes.sea]\nengines = ["scripted"]\nprice = "gpt-4o-mini"\n'
    more = 'routes = ["well"]\nsteps = ["large"]'
    gateway = serve(SCRIPTED + other + CAPTURE.format(tenant="local", more=more))
    with client(gateway) as ai:
        ask(ai, "One?")
        ask(ai, "One?")
        ask(ai, "Two?", model="sea")
    assert [row.prompt for row in captured(gateway)] == ["One?"]


def test_only_complete_answers_in_words(serve: Start, upstream: Upstream) -> None:
    gateway = serve(forwarding(upstream) + CAPTURE.format(tenant="local", more=""))
    with client(gateway) as ai:
        upstream.script = event_reply(
            b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"De"}}]}\n\n', ends=False
        )
        with pytest.raises(openai.APIError):
            list(ask(ai, "cut off", stream=True))
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        upstream.script = json_reply(json.dumps({**CHAT, "choices": [{"index": 0, "message": message}]}).encode())
        ask(ai, "a call")
        upstream.script = json_reply(json.dumps(CHAT).encode())
        ask(ai, "tools", tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
        ask(ai, [{"type": "image_url", "image_url": {"url": "data:,x"}}])
        ask(ai, "x" * 40_000)
        ask(ai, [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}])
    assert [row.prompt for row in captured(gateway)] == ["in parts"]


def test_a_file_is_given_to_readers_when_its_time_has_come(serve: Start) -> None:
    gateway = serve(SCRIPTED + CAPTURE.format(tenant="local", more="shard_s = 1"))
    folder = gateway.folder / "stepwell-data" / "captured" / "local"
    with client(gateway) as ai:
        ask(ai)
        until(lambda: list(folder.glob("*.jsonl")))
        assert len(list(read(folder))) == 1


def test_a_kill_loses_nothing_that_was_written(serve: Start) -> None:
    config = SCRIPTED + CAPTURE.format(tenant="local", more="")
    gateway = serve(config)
    folder = gateway.folder / "stepwell-data" / "captured" / "local"
    with client(gateway) as ai:
        for at in range(20):
            ask(ai, f"{at}?")
        until(lambda: sum(path.read_bytes().count(b"\n") for path in folder.glob("*.part")) == 20)
    gateway.stop(signal.SIGKILL)
    gateway = serve(config)
    with client(gateway) as ai:
        ask(ai, "last?")
    assert [row.prompt for row in captured(gateway)] == [*(f"{at}?" for at in range(20)), "last?"]


def test_a_disk_that_refuses_costs_no_answer(serve: Start, tmp_path: Path) -> None:
    folder = tmp_path / "gateway" / "stepwell-data"
    folder.mkdir(parents=True)
    (folder / "captured").write_text("no folder")
    gateway = serve(SCRIPTED + CAPTURE.format(tenant="local", more=""))
    with client(gateway) as ai:
        ask(ai, "One?")
        until(lambda: "captured rows cannot be written" in gateway.log)
        (folder / "captured").unlink()
        ask(ai, "Two?")
        until(lambda: list((folder / "captured" / "local").glob("*")) if (folder / "captured").is_dir() else None)
    assert [row.prompt for row in captured(gateway)] == ["One?", "Two?"]


# --- the settler


def settled(at: int = 0, tenant: str = "a", body: bytes = b'{"choices":[]}') -> Settled:
    asked = b'{"model":"well","messages":[{"role":"user","content":"?"}]}'
    request = Request(id=f"r-{at}", kind="chat", caller=Caller(tenant, "p"), model="well", body=asked, canonical=asked)
    outcome = Outcome(Answer(form="json", engine="e"), (Visit("large", "answered", "", 0.0),))
    return Settled(request=request, outcome=outcome, form="json", body=body, usage=Usage(1, 1), complete=True, status=200, seconds=0.0)  # fmt: skip


async def test_no_more_rows_a_second_than_allowed(tmp_path: Path) -> None:
    section = Section(tenants=["a"], folder=str(tmp_path / "captured"), rows_s=10, flush_ms=60_000)
    capture = Capture(section, lambda *_: 0.0)
    for at in range(100):
        capture.settle(settled(at))
        capture.settle(settled(at, tenant="b"))
    assert 10 <= len(capture.waiting) <= 12
    assert capture.num_lost == 100 - len(capture.waiting)
    await capture.close()


async def test_no_more_bytes_wait_than_allowed(tmp_path: Path) -> None:
    section = Section(tenants=["a"], folder=str(tmp_path / "captured"), rows_s=1000, flush_ms=60_000)
    capture = Capture(section, lambda *_: 0.0)
    for at in range(100):
        capture.settle(settled(at, body=b"x" * 1_000_000))
    assert 30 <= len(capture.waiting) <= 34
    capture.waiting.clear()
    await capture.close()


# --- rows and files


def seen(**more: Any) -> Seen:
    asked = json.dumps({"model": "well", "messages": [{"role": "user", "content": "?"}]}).encode()
    given = {
        "tenant": "a",
        "request": "r",
        "at_s": 0.0,
        "route": "well",
        "kind": "chat",
        "asked": asked,
        "form": "json",
    }
    rest = {"answered": json.dumps(CHAT).encode(), "step": "large", "engine": "e", "usd": 0.1}
    return Seen(**{**given, **rest, "tokens_in": 1, "tokens_out": 1, **more})


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "assistant", "content": "?"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}, {"role": "user", "content": "?"}]},
        {"messages": [{"role": "user", "content": "?"}], "n": 2},
        {"messages": [{"role": "user", "content": "?"}], "response_format": {"type": "json_object"}},
    ],
)
def test_what_is_no_question_and_answer_is_no_row(fields: dict[str, Any]) -> None:
    assert row_of(seen(), "x") is not None
    assert row_of(seen(asked=json.dumps({"model": "well", **fields}).encode()), "x") is None


def test_what_cannot_be_read_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    writer = Writer(Section(tenants=["a"], folder=str(tmp_path)))
    batch = msgspec.msgpack.encode([seen(asked=b"{"), seen(answered=b"\xff"), seen()])
    assert writer.answer(batch) == b""
    writer.close()
    assert len(list(read(tmp_path / "a"))) == 1


LIMITS = Limits(shard_rows=10, shard_s=1000, keep_days=1, tenant_bytes=10_000)


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    shards = Shards(tmp_path, LIMITS)
    shards.write([b'{"at": 1}', b'{"at": 2}'])
    assert shards.file is not None
    shards.file.close()  # as a kill does: the lock is gone, the name is not
    (torn,) = tmp_path.glob("*.part")
    with torn.open("ab") as file:
        file.write(b'{"at": 3, "te')
    (tmp_path / "rows-9-1-1.part").write_bytes(b'{"never": "whol')
    after = Shards(tmp_path, LIMITS)
    after.write([b'{"at": 4}'])
    after.seal()
    lines = [json.loads(line) for path in sorted(tmp_path.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    assert lines == [{"at": 1}, {"at": 2}, {"at": 4}]
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_is_written_to_is_left_alone(tmp_path: Path) -> None:
    shards = Shards(tmp_path, LIMITS)
    shards.write([b"{}"])
    (path,) = tmp_path.glob("*.part")
    finish(path)
    assert path.exists()
    shards.seal()


def test_a_file_that_is_not_yet_locked_may_be_taken_and_no_row_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def late(file: int, how: int) -> None:
        if how == fcntl.LOCK_EX and not taken:  # another process looks just before the lock is there
            taken.extend(tmp_path.glob("*.part"))
            finish(taken[0])
        lock(file, how)

    taken: list[Path] = []
    monkeypatch.setattr(fcntl, "flock", late)
    shards = Shards(tmp_path, LIMITS)
    shards.write([b'{"at": 1}'])
    shards.seal()
    assert taken, "nobody looked"
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b'{"at": 1}\n']


def test_what_is_too_much_or_too_old_is_let_go(tmp_path: Path) -> None:
    shards = Shards(tmp_path, LIMITS)
    for at in range(30):
        shards.write([b'{"at": %d, "text": "%b"}' % (at, b"x" * 90)] * 10)
    shards.tidy()
    left = sorted(tmp_path.glob("*.jsonl"))
    assert 7 <= len(left) <= 9
    assert b'"at": 29' in left[-1].read_bytes()
    os.utime(left[0], (0, 0))
    shards.tidy()
    assert sorted(tmp_path.glob("*.jsonl")) == left[1:]


def test_a_full_disk_leaves_whole_lines_only(tmp_path: Path) -> None:
    shards = Shards(tmp_path, LIMITS)
    shards.write([b'{"at": 1}'])
    file = shards.file

    class Full:
        def write(self, text: Any) -> int:
            assert file is not None
            file.write(bytes(text[:5]))
            raise OSError(28, "No space left on device")

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

    shards.file = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space"):
        shards.write([b'{"at": 2}'])
    shards.file = file
    shards.write([b'{"at": 2}'])
    shards.seal()
    (path,) = tmp_path.glob("*.jsonl")
    assert path.read_bytes() == b'{"at": 1}\n{"at": 2}\n'


@pytest.mark.parametrize("tenant", ["a", "..", ".", "a/b", "../x", "x" * 500, "ä ö", "con\0"])
def test_a_tenant_has_a_folder_of_its_own(tmp_path: Path, tenant: str) -> None:
    folder = folder_of(tmp_path, tenant)
    folder.mkdir()
    assert folder.resolve().parent == tmp_path.resolve()


# --- the command


def test_the_command_counts_by_tenant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = Writer(Section(tenants=["a", "b/c"], folder=str(tmp_path)))
    writer.answer(msgspec.msgpack.encode([seen(), seen(step="cache"), seen(tenant="b/c")]))
    writer.close()
    assert main(["synth", "captured", "--folder", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(each["tenant"], each["rows"], each["prompts"], each["steps"]) for each in told] == [
        ("a", 2, 1, {"large": 1, "cache": 1}),
        ("b/c", 1, 1, {"large": 1}),
    ]
    assert main(["synth", "captured", "--folder", str(tmp_path)]) == 0
    assert "a: 2 rows (1 large, 1 cache), 1 different prompts" in capsys.readouterr().out
    assert main(["synth", "captured", "--folder", str(tmp_path / "nowhere")]) == 0
    (tmp_path / "stepwell.toml").write_text(SCRIPTED)
    assert main(["synth", "captured", "--config", str(tmp_path / "stepwell.toml")]) == 2
    assert "nothing is captured: add [capture]" in capsys.readouterr().err
