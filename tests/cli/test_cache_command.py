"""`stepwell cache …` as an operator types it, beside a gateway that runs."""

from __future__ import annotations

import importlib.util
import json
import math
import time
import urllib.request
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import SCRIPTED, Gateway, Start
from servers import RedisServer
from stepwell.cache.warm import Budget, most_common, num_of, question
from stepwell.cli.cache.told import span
from stepwell.cli.main import main
from stepwell.errors import BadRequest

TENANT = SCRIPTED + 'share = "tenant"\n'
BY_MEANING = TENANT + "[semantic]\n[promise]\nerror = 0.02\n"
needs_vectors = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("numkong", "onnxruntime", "tokenizers"))),
    reason="pip install 'stepwell[cache]'",
)


def body(content: str, **fields: Any) -> dict[str, Any]:
    return {"model": "well", "messages": [{"role": "user", "content": content}], "temperature": 0, **fields}


def ask(gateway: Gateway, content: str) -> str:
    """Its Cache-Status."""
    request = urllib.request.Request(f"{gateway.url}/chat/completions", json.dumps(body(content)).encode())
    with urllib.request.urlopen(request) as reply:
        reply.read()
        return str(reply.headers["Cache-Status"])


class Shell:
    """Commands in the gateway's folder, and what they print."""

    def __init__(self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.chdir(gateway.folder)
        self.folder, self.capsys = gateway.folder, capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        self.capsys.readouterr()
        assert main(["cache", *words]) == code
        told = self.capsys.readouterr()
        return told.err if code == 2 else told.out

    def json(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*words, "--json", code=code).splitlines()]

    def file(self, name: str, *lines: Any) -> str:
        (self.folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return name


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda gateway: Shell(gateway, monkeypatch, capsys)


def kept(run: Shell, file: str) -> list[dict[str, Any]]:
    """What is kept, as soon as it is on disk."""
    for _ in range(100):
        if main(["cache", "get", file, "--json"]) == 0:
            return [json.loads(line) for line in run.capsys.readouterr().out.splitlines()]
        time.sleep(0.05)
    raise AssertionError(run.capsys.readouterr().err)


def test_get_then_report_bad(serve: Start, shell: Any) -> None:
    gateway = serve(TENANT)
    run = shell(gateway)
    asked = run.file("asked.json", body("How deep?"))
    assert "fwd=miss" in ask(gateway, "How deep?")
    (told,) = kept(run, asked)
    assert (told["whose"], told["state"], told["engine"]) == ("tenant", "fresh", "scripted")
    assert "The well is deep." in told["body"]
    assert "model:well" in told["tags"]
    assert f"answer          {told['answer']}" in run("get", told["answer"])
    assert "no answer is kept" in run("get", run.file("other.json", body("How old?")), code=2)
    assert "no answer is kept" in run("get", "0" * 64, code=2)
    assert "cannot be read" in run("get", "nowhere.json", code=2)

    assert "hit" in ask(gateway, "How deep?")
    (told,) = run.json("report-bad", asked, "--reason", "it is not")
    assert len(told["killed"]) == 1
    assert kept(run, asked)[0]["state"] == "invalidated"
    time.sleep(0.6)
    assert "fwd=miss" in ask(gateway, "How deep?"), "the gateway has heard of it"
    assert run.json("stats")[0]["labels"] == {"wrong": 1}


def test_invalidate_reaches_a_gateway_that_runs(serve: Start, shell: Any) -> None:
    gateway = serve(TENANT)
    run = shell(gateway)
    asked = run.file("asked.json", body("How deep?"))
    ask(gateway, "How deep?")
    kept(run, asked)
    (told,) = run.json("invalidate", "--tag", "model:well", "--dry-run")
    assert not told["invalidated"]
    time.sleep(0.6)
    assert "hit" in ask(gateway, "How deep?")
    (told,) = run.json("invalidate", "--tag", "model:well", "--tag", "doc:7")
    assert told["invalidated"]
    assert len(told["purge_at_the_cdn"]) == 2
    time.sleep(0.6)
    assert "fwd=miss" in ask(gateway, "How deep?")
    stats = run.json("stats")[0]
    assert stats["invalidated"] == {"model:well": 1, "doc:7": 1}
    assert stats["store"] == "sqlite"
    assert "only [semantic] keeps a log" in stats["answers"]


@needs_vectors
def test_stats_and_export_know_every_wording(serve: Start, shell: Any) -> None:
    gateway = serve(BY_MEANING)
    run = shell(gateway)
    for content in ("How deep is the well?", "Who dug the well, and why?"):
        ask(gateway, content)
    kept(run, run.file("asked.json", body("Who dug the well, and why?")))
    stats = run.json("stats")[0]
    assert (stats["wordings"], stats["answers"], stats["states"]) == (2, 2, {"fresh": 2})
    assert run.json("invalidate", "--tag", "model:well", "--dry-run")[0]["answers_reached"] == 2

    rows = [json.loads(line) for line in run("export", "-").splitlines()]
    assert {row["question"] for row in rows} == {"How deep is the well?", "Who dug the well, and why?"}
    assert {row["answer"] for row in rows} == {"The well is deep."}
    run("export", "answers.jsonl")
    run("export", "answers.parquet")
    assert pl.read_parquet("answers.parquet").to_dicts() == rows == pl.read_ndjson("answers.jsonl").to_dicts()
    run("report-bad", "asked.json")
    assert len(run("export", "-").splitlines()) == 1
    assert len(run("export", "-", "--all").splitlines()) == 2
    assert "cannot be written" in run("export", "nowhere/answers.jsonl", code=2)


def test_on_a_store_that_gateways_share(serve: Start, shell: Any, redis_server: RedisServer) -> None:
    gateway = serve(f'{TENANT}[cache]\nurl = "{redis_server.url}"\n')
    run = shell(gateway)
    asked = run.file("asked.json", body("How deep?"))
    ask(gateway, "How deep?")
    assert kept(run, asked)[0]["state"] == "fresh"
    run("report-bad", asked)
    assert kept(run, asked)[0]["state"] == "invalidated"
    time.sleep(0.6)
    assert "fwd=miss" in ask(gateway, "How deep?")
    stats = run.json("stats")[0]
    assert (stats["store"], stats["where"], stats["labels"]) == ("redis", redis_server.url, {"wrong": 1})
    (told,) = run.json("warm", "--from", run.file("more.jsonl", body("How old?")))
    assert told["generated"] == 1
    assert "hit" in ask(gateway, "How old?")


def test_without_a_store_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stepwell.toml").write_text(SCRIPTED)
    assert main(["cache", "stats"]) == 2
    assert "there is no cache at stepwell-data/cache.db" in capsys.readouterr().err
    assert not Path("stepwell-data").exists(), "looking makes nothing"
    Path("stepwell.toml").write_text(SCRIPTED + '[cache]\npath = ""\n')
    assert main(["cache", "stats"]) == 2
    assert "in the running gateway's memory only" in capsys.readouterr().err


# --- warm


def test_warm_asks_the_most_common_and_goes_on_where_it_stopped(serve: Start, shell: Any) -> None:
    gateway = serve(TENANT)
    run = shell(gateway)
    asked = [body(f"Question {number}?") for number in range(20) for _ in range(number + 1)]
    asked.append(body("Question 0?", user="somebody", stream=True))
    questions = run.file("asked.jsonl", *asked, {"request": body("Often?"), "count": 99})
    (told,) = run.json("warm", "--from", questions, "--dry-run")
    assert (told["questions"], told["generated"], told["asked_so_often"]) == (3, 0, 99 + 20 + 19)
    (told,) = run.json("warm", "--from", questions, "--max-calls", "2")
    assert (told["generated"], told["left_out"], told["why"]) == (2, 1, "the budget is spent")
    (told,) = run.json("warm", "--from", questions)
    assert (told["generated"], told["fresh_already"], told["left_out"]) == (1, 2, 0)
    (told,) = run.json("warm", "--from", questions, "--top", "5", "--gateway", gateway.url)
    assert (told["generated"], told["fresh_already"]) == (2, 3)
    assert "hit" in ask(gateway, "Often?")
    assert "hit" in ask(gateway, "Question 19?")
    assert "miss" in ask(gateway, "Question 3?")
    assert "everybody of local" in run("warm", "--from", questions)


def test_warm_never_passes_its_budget(serve: Start, shell: Any) -> None:
    gateway = serve(TENANT)
    run = shell(gateway)
    questions = run.file("asked.jsonl", *(body(f"Question {number}?", max_tokens=10) for number in range(50)))
    (told,) = run.json("warm", "--from", questions, "--top", "100%", "--budget-usd", "0.0001", "--at-once", "8")
    assert 1 <= told["generated"] < 50
    assert 0 < told["usd"] <= 0.0001
    assert told["generated"] + told["left_out"] == 50
    (told,) = run.json("warm", "--from", questions, "--top", "1", "--budget-usd", "0")
    assert told["generated"] == 0


def test_warm_says_what_is_wrong(serve: Start, shell: Any) -> None:
    run = shell(serve(SCRIPTED))
    assert "the ledger keeps no texts" in run("warm", "--from", "ledger", code=2)
    assert "needs --like" in run("warm", "--from", "store", code=2)
    good = body("Well?")
    for line, why in (
        ("{", "bad.jsonl:2: is not JSON"),
        ("[]", "bad.jsonl:2: must be a request"),
        ('{"request":{},"count":0}', "bad.jsonl:2: count must be"),
        (json.dumps({**good, "model": "other"}), "bad.jsonl:2: no route is called 'other'"),
        (json.dumps({"model": "well"}), "bad.jsonl:2: asks nothing"),
    ):
        (run.folder / "bad.jsonl").write_text(json.dumps(good) + "\n" + line)
        assert why in run("warm", "--from", "bad.jsonl", code=2)
    (run.folder / "good.jsonl").write_text(json.dumps(good))
    assert "neither a share" in run("warm", "--from", "good.jsonl", "--top", "ten", code=2)
    assert "is not set; export it" in run(
        "warm", "--from", "good.jsonl", "--gateway", "http://127.0.0.1:9", "--key-env", "NOT_SET", code=2
    )
    (told,) = run.json("warm", "--from", "good.jsonl", "--gateway", "http://127.0.0.1:9", code=1)
    assert told["failed"] == 1
    assert "local/local alone" in run("warm", "--from", "good.jsonl")


@needs_vectors
def test_warm_from_the_stores_own_questions(serve: Start, shell: Any) -> None:
    gateway = serve(BY_MEANING)
    run = shell(gateway)
    for content in ("How deep is the well?", "Who dug the well, and why?"):
        ask(gateway, content)
    like = run.file("asked.json", body("Who dug the well, and why?"))
    kept(run, like)
    run("invalidate", "--tag", "model:well")
    (told,) = run.json("warm", "--from", "store", "--like", like, "--top", "100%")
    assert (told["questions"], told["generated"]) == (2, 2)
    time.sleep(0.6)
    assert "hit" in ask(gateway, "How deep is the well?")


# --- its parts


@given(st.integers(1, 10_000), st.floats(0.01, 100))
def test_a_share_means_at_least_one_and_at_most_all(num: int, share: float) -> None:
    assert 1 <= num_of(f"{share:.2f}%", num) <= num
    assert num_of("10%", 0) == 0


@pytest.mark.parametrize("top", ["", "0", "-1", "0%", "101%", "1e3", "٣", "10 %"])
def test_what_is_no_share_is_refused(top: str) -> None:
    with pytest.raises(BadRequest):
        num_of(top, 10)


def test_equal_questions_are_counted_together() -> None:
    asked = [(b"a", b"A", 1), (b"b", b"B", 2), (b"a", b"A2", 3)]
    assert [(each.body, each.count) for each in most_common(asked, "100%")] == [(b"A", 4), (b"B", 2)]
    assert question(b'{"request":{"model":"m"},"count":3}') == (b'{"model":"m"}', 3)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans())), st.floats(0, 3), st.integers(0, 20))
def test_a_budget_is_never_passed(calls: list[tuple[float, float, bool]], usd: float, num: int) -> None:
    budget, flying = Budget(usd, num), list[tuple[float, float, bool]]()
    for worst_usd, share, called in calls:
        if budget.begin(worst_usd):
            flying.append((worst_usd, share * worst_usd, called))
        elif flying:
            worst_usd, cost_usd, called = flying.pop()  # noqa: PLW2901 - another one ends
            budget.end(worst_usd, cost_usd, called=called)
        assert budget.spent_usd + budget.reserved_usd <= usd + 1e-9
        assert budget.num_called + budget.num_flying <= num
    assert Budget(math.inf, math.inf).begin(1e9)


def test_spans_read_well() -> None:
    assert [span(each) for each in (0, 59, 61, 90_000, -7300)] == [
        "0 s",
        "59 s",
        "1 min 1 s",
        "1 d 1 h",
        "2 h 1 min ago",
    ]
