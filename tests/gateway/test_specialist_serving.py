"""A gated specialist behind a real front door: who answers, what it costs, and how it is stopped."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest
from test_faults import eventually

from conftest import WRITER, Gateway, Start, Upstream, forwarding
from promoted import promoted, public
from stepwell.cli.main import main
from stepwell.quality.promotion import Promotion
from stepwell.signing import SigningKey, new_key

FACTS = "name[The Eagle], eatType[pub], food[French]"
GOOD = "The Eagle is a pub that serves French food."
STUDENT = """
[engines.student]
type = "scripted"
reply = "{reply}"

[promise]
error = 0.05
audit = {audit}

[specialists.writer]
engine = "student"
routes = ["well"]
promotion = "{folder}"
public_keys = ["{key}"]
verify = "values"
judge = "{judge}"
shadow = 1.0
{more}
"""


@pytest.fixture
def key() -> SigningKey:
    return new_key()


def config(
    upstream: Upstream,
    folder: Path,
    key: SigningKey,
    *,
    reply: str = GOOD,
    audit: float = 1e-9,
    judge: str = "verify:slots",
    more: str = "",
    server: str = "",
) -> str:
    section = STUDENT.format(reply=reply, audit=audit, folder=folder, key=public(key), judge=judge, more=more)
    return forwarding(upstream, server=server) + section


def saying(text: str) -> Callable[..., object]:
    """A large model that always says the same, as JSON or as a stream."""

    async def script(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
        about = {"id": "1", "created": 1, "model": "m"}
        if json.loads(body).get("stream"):
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
            frames = [
                {**about, "object": "chat.completion.chunk", "choices": [choice]},
                {**about, "choices": [], "usage": usage},
            ]
            told = b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames) + b"data: [DONE]\n\n"
            kind = b"text/event-stream"
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            told = json.dumps({**about, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
            kind = b"application/json"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(told), told))
        await writer.drain()

    return script


def ask(gateway: Gateway, content: str = FACTS, **more: Any) -> tuple[str, str]:
    with openai.OpenAI(base_url=gateway.url, api_key="none", max_retries=0) as ai:
        messages = more.pop("messages", [{"role": "user", "content": content}])
        raw = ai.chat.completions.with_raw_response.create(model="well", messages=messages, **more)
        return raw.headers["stepwell-step"], raw.parse().choices[0].message.content or ""


def rows(gateway: Gateway, num: int) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]]:
        with closing(sqlite3.connect(gateway.folder / "stepwell-data" / "ledger.db")) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM entries ORDER BY at_s")]

    eventually(lambda: (gateway.folder / "stepwell-data" / "ledger.db").exists() and len(found()) >= num)
    return found()


def metrics(gateway: Gateway) -> str:
    with urllib.request.urlopen(gateway.url.removesuffix("/v1") + "/metrics", timeout=10) as reply:
        return str(reply.read().decode())


def test_a_live_specialist_answers_and_the_ledger_says_what_it_cost(
    serve: Start, upstream: Upstream, tmp_path: Path, key: SigningKey, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.script = saying("the large model")  # type: ignore[assignment]
    promoted(tmp_path / "p", key, GOOD, "live")
    gateway = serve(config(upstream, tmp_path / "p", key))
    assert ask(gateway) == ("specialist", GOOD)
    with openai.OpenAI(base_url=gateway.url, api_key="none") as ai:
        stream = ai.chat.completions.create(
            model="well",
            messages=[{"role": "user", "content": FACTS}],
            stream=True,
            stream_options={"include_usage": True},
        )
        parts = list(stream)
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == GOOD
    assert parts[-1].usage is not None
    assert ask(gateway, FACTS, temperature=0) == ("specialist", GOOD)
    assert ask(gateway, FACTS, temperature=0) == ("cache", GOOD)
    assert upstream.requests == []
    told = rows(gateway, 4)
    assert [row["step"] for row in told] == ["specialist", "specialist", "specialist", "cache"]
    visit = json.loads(told[0]["visits"])[-1]
    assert visit[:3] == ["specialist", "answered", "writer, live"]
    assert told[0]["usd"] == 0 == visit[4], "a scripted engine keeps no thread busy"
    assert told[0]["large_usd"] > 0
    assert told[0]["engine"] == "student"
    assert main(["ledger", "--path", str(gateway.folder / "stepwell-data" / "ledger.db")]) == 0
    assert "specialist" in capsys.readouterr().out


def test_what_is_no_task_of_it_goes_on_with_a_reason(
    serve: Start, upstream: Upstream, tmp_path: Path, key: SigningKey
) -> None:
    upstream.script = saying("the large model")  # type: ignore[assignment]
    promoted(tmp_path / "p", key, GOOD, "live")
    gateway = serve(config(upstream, tmp_path / "p", key, more="tries = 3"))
    user = {"role": "user", "content": FACTS}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"content": "name[The Falcon]"}, "3 tries did not pass: name is missing: The Falcon"),
        ({"messages": [{"role": "system", "content": "x"}, user]}, "more than one user message"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "no text alone",
        ),
        ({"response_format": {"type": "json_object"}}, "asks for response_format"),
        ({"stop": ["x"]}, "asks for stop"),
    ]
    for asked, _ in cases:
        assert ask(gateway, **asked) == ("large", "the large model")
    visits = [json.loads(row["visits"]) for row in rows(gateway, len(cases))]
    for (_, reason), visited in zip(cases, visits, strict=True):
        assert [visit[0] for visit in visited] == ["cache", "specialist", "large"]
        assert visited[1][1] == "deferred"
        assert reason in visited[1][2]


def test_in_the_shadow_it_is_judged_and_never_served(
    serve: Start, upstream: Upstream, tmp_path: Path, key: SigningKey
) -> None:
    upstream.script = saying("The Eagle serves French food.")  # type: ignore[assignment]
    promotion = promoted(tmp_path / "p", key, GOOD, "shadow")
    gateway = serve(config(upstream, tmp_path / "p", key))
    for _ in range(5):
        assert ask(gateway)[0] == "large"
    eventually(lambda: promotion.standing().counts.num == 5)
    assert promotion.standing().counts.gains == 5, "the large model left out the pub"
    assert 'stepwell_specialist_stage{specialist="writer",stage="shadow"} 1' in metrics(gateway)
    eventually(lambda: 'audits_total{specialist="writer",right="student"} 5' in metrics(gateway))


def test_a_canary_answers_its_share_always_the_same(
    serve: Start, upstream: Upstream, tmp_path: Path, key: SigningKey
) -> None:
    upstream.script = saying("the large model")  # type: ignore[assignment]
    promotion = promoted(tmp_path / "p", key, GOOD, "canary")
    gateway = serve(config(upstream, tmp_path / "p", key, judge="verify:slots", more="canary = 0.5"))
    asked = [f"name[The Eagle], eatType[pub]{' ' * place}" for place in range(40)]
    first = [ask(gateway, each)[0] for each in asked]
    again = [ask(gateway, each)[0] for each in asked]
    ever = [{one, other} for one, other in zip(first, again, strict=True)]
    assert 8 <= sum("specialist" in each for each in ever) <= 32
    audits = promotion.standing().counts.num
    served = first.count("specialist") + again.count("specialist")
    eventually(lambda: promotion.standing().counts.num > 0)
    assert 0 < served + audits <= 80


def test_audits_roll_it_back_in_every_worker_for_good(
    serve: Start, upstream: Upstream, tmp_path: Path, key: SigningKey
) -> None:
    upstream.script = saying("Something quite different.")  # type: ignore[assignment]
    promotion = promoted(tmp_path / "p", key, GOOD, "live")
    text = config(upstream, tmp_path / "p", key, audit=0.5, judge="exact", server="workers = 2")
    gateway = serve(text)
    kept = "name[The Eagle], eatType[pub], near[The Eagle]"
    while ask(gateway, kept, temperature=0)[1] != GOOD:
        kept += " "
    for _ in range(200):
        ask(gateway)
        if promotion.standing().stage == "rolled back":
            break
    standing = promotion.standing()
    assert standing.stage == "rolled back"
    assert "only the teacher right in" in standing.reason
    eventually(lambda: {ask(gateway)[0] for _ in range(6)} == {"large"})
    # what was kept of it is let go
    eventually(lambda: ask(gateway, kept, temperature=0)[1] != GOOD)
    gateway.stop(signal.SIGKILL)
    again = serve(text, name="again")
    assert {ask(again)[0] for _ in range(6)} == {"large"}
    assert "rolled back: audits" in rows(again, 6)[0]["visits"]


def test_a_verdict_on_another_file_or_by_a_stranger_serves_nothing(
    serve: Start, upstream: Upstream, tmp_path: Path, key: SigningKey
) -> None:
    upstream.script = saying("the large model")  # type: ignore[assignment]
    promoted(tmp_path / "other", key, "another model", "live")
    promoted(tmp_path / "stranger", new_key(), GOOD, "live")
    promoted(tmp_path / "wide", key, GOOD, "live", margin=0.2)
    changed = promoted(tmp_path / "changed", key, GOOD, "live")
    (file,) = (tmp_path / "changed").glob("verdict-*.json")
    file.write_bytes(file.read_bytes().replace(b"promote", b"refused"))
    reasons = {
        "other": "the gate judged the model another model",
        "stranger": "which is not trusted here",
        "wide": "margin is 20.00%, and the promise allows 5.00%",
        "changed": "the verdict was changed after the promotion",
        "nothing": "nothing was promoted",
    }
    assert changed.standing().stage == "live"
    for name, reason in reasons.items():
        gateway = serve(config(upstream, tmp_path / name, key), name=name)
        assert ask(gateway)[0] == "large"
        assert reason in rows(gateway, 1)[0]["visits"]
        gateway.stop()


def test_a_roll_back_by_hand_is_known_at_once(
    serve: Start, upstream: Upstream, tmp_path: Path, key: SigningKey
) -> None:
    upstream.script = saying("the large model")  # type: ignore[assignment]
    promoted(tmp_path / "p", key, GOOD, "live")
    gateway = serve(config(upstream, tmp_path / "p", key))
    assert ask(gateway)[0] == "specialist"
    assert main(["distill", "rollback", str(tmp_path / "p"), "--because", "a complaint"]) == 0
    eventually(lambda: ask(gateway)[0] == "large")
    assert Promotion(tmp_path / "p").standing().reason == "by hand: a complaint"


def test_a_real_model_is_served_by_the_hash_of_its_file(
    serve: Start, upstream: Upstream, tmp_path: Path, key: SigningKey
) -> None:
    pytest.importorskip("xllamacpp")
    upstream.script = saying("the large model")  # type: ignore[assignment]
    promoted(tmp_path / "p", key, sha256(WRITER.read_bytes()).hexdigest(), "live")
    text = config(upstream, tmp_path / "p", key).replace(
        'verify = "values"', 'verify = "slots"\ntries = 4\nmax_tokens = 80'
    )
    text = text.replace(f'type = "scripted"\nreply = "{GOOD}"', f'type = "embedded"\npath = "{WRITER}"\nthreads = 1')
    text = text.replace('judge = "verify:slots"', 'judge = "verify:slots_apart"')
    gateway = serve(text)
    step, said = ask(gateway)
    assert step == "specialist"
    assert "Eagle" in said
    (row,) = rows(gateway, 1)
    assert 0 < row["usd"] < row["large_usd"]
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"model": "well", "messages": [{"role": "user", "content": FACTS}]}))
    words = [sys.executable, "-m", "stepwell.cli", "explain", str(request)]
    done = subprocess.run(words, cwd=gateway.folder, capture_output=True, text=True, check=False)
    assert re.search(r"specialist  answered .* writer.*, live, 0\.\d{9} USD\n", done.stdout), done.stdout + done.stderr
