"""A teacher on loopback is asked for real; it is paid once, never more than allowed, and watched for nonsense."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench.templates.teacher import Teacher, completion, finished, teaching

from conftest import WRITER
from stepwell.cli.main import main
from stepwell.distill import remote
from stepwell.distill.teach import Job, Taught, TeacherSection, teach
from stepwell.engines.answers import Answers, Budget
from stepwell.errors import ConfigError, DistillError, EngineError, StoreError
from stepwell.store import tables

USAGE = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
USD = (50 * 0.15 + 20 * 0.60) / 1e6
"""Of one answer, at the price of gpt-4o-mini."""


def said(body: dict[str, Any], text: str | None, finish: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return completion(body, {"index": 0, "finish_reason": finish, "message": message, **more}, USAGE)


def echo(body: dict[str, Any]) -> dict[str, Any]:
    return said(body, f"The answer to: {body['messages'][-1]['content']}")


def section(teacher: Teacher, **how: Any) -> TeacherSection:
    how = {"model": "mock", "price": "gpt-4o-mini", "max_tokens": 64, **how}
    return TeacherSection(url=teacher.url, **how)


def rows(num: int) -> list[dict[str, Any]]:
    return [{"id": f"r{at}", "prompt": f"Question number {at}?", "licence": "MIT"} for at in range(num)]


def taught(
    out: Path, section: TeacherSection, rows: list[dict[str, Any]], budget: Budget | None = None, **more: Any
) -> Taught:
    return teach(Job(section, out, out, budget or Budget(), again=more.pop("again", False)), rows, **more)


def kept(out: Path, name: str = "rows") -> list[dict[str, Any]]:
    return list(tables.read(out / f"{name}.jsonl"))


def test_texts_come_with_where_they_are_from_and_are_paid_once(tmp_path: Path) -> None:
    with teaching(say=echo) as teacher:
        asked = [*rows(30), {"id": "again", "prompt": "Question number 3?"}]
        first = taught(tmp_path, section(teacher, system="Be brief."), asked)
        assert (first.num_kept, first.complete, first.calls, teacher.calls) == (31, True, 30, 30)
        assert first.usd == pytest.approx(30 * USD)
        assert taught(tmp_path, section(teacher, system="Be brief."), asked) == first
        assert teacher.calls == 30
    found = kept(tmp_path)
    assert [row["id"] for row in found] == [row["id"] for row in asked]
    assert found[3]["completion"] == found[30]["completion"] == "The answer to: Question number 3?"
    assert found[3]["usd"] == pytest.approx(USD)
    assert found[30]["usd"] == 0
    assert found[0]["licence"] == "MIT"
    assert (found[0]["generator"], found[0]["generator_rev"], found[0]["tokens_out"]) == ("mock", "mock", 20)
    assert found[0]["messages"][1] == {"role": "assistant", "content": "The answer to: Question number 0?"}


@pytest.mark.parametrize("at_once", [1, 16])
def test_a_budget_is_never_passed_and_used_up(tmp_path: Path, at_once: int) -> None:
    """Each call may cost ten times what it does: what is set aside and not spent is there for the others."""
    budget = 12.5 * USD + 0.0001
    with teaching(say=lambda body: (time.sleep(0.002), echo(body))[1]) as teacher:
        how = section(teacher, at_once=at_once)
        made = taught(tmp_path, how, rows(40), Budget(usd=budget))
        assert not made.complete
        assert "raise --budget-usd" in made.why
        assert made.usd <= budget
        assert 12 <= teacher.calls == made.calls == made.num_kept == len(kept(tmp_path))
        assert made.usd + 2e-4 > budget
        again = taught(tmp_path, how, rows(40), Budget(usd=1))
        assert again.complete
        assert teacher.calls == again.calls == 40


def test_calls_are_counted_too(tmp_path: Path) -> None:
    with teaching(say=echo) as teacher:
        made = taught(tmp_path, section(teacher), rows(40), Budget(calls=17))
        assert (made.complete, made.calls, teacher.calls) == (False, 17, 17)


def test_two_runs_beside_each_other_do_not_pass_the_budget_together(tmp_path: Path) -> None:
    with teaching(say=echo) as teacher:
        prompts = rows(60)

        def run(part: list[dict[str, Any]], out: Path) -> None:
            how = section(teacher)
            teach(Job(how, out, out, Budget(usd=20 * USD + 0.0001), kept=tmp_path / "answers"), part)

        halves = [(prompts[:30], tmp_path / "a"), (prompts[30:], tmp_path / "b")]
        threads = [threading.Thread(target=run, args=half) for half in halves]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Answers(tmp_path / "answers").spent().usd <= 20 * USD + 0.0001
        assert teacher.calls <= 25


def test_in_batches_nothing_is_paid_twice_and_the_budget_holds(tmp_path: Path) -> None:
    with teaching(say=echo, batches=True) as teacher:
        how = section(teacher, batches=True)
        made = taught(tmp_path, how, rows(50), Budget(calls=45))
        assert (made.complete, teacher.calls, len(teacher.jobs)) == (False, 45, 2)
        assert made.num_kept == 45
        assert taught(tmp_path, how, rows(50)).complete
        assert teacher.calls == 50


def test_a_batch_that_ends_without_answers_costs_nothing_and_is_not_waited_for_again(tmp_path: Path) -> None:
    budget = Budget(usd=50 * 70 * USD)  # no more than the batch may cost
    with teaching(say=echo, batches=True, dead=True) as teacher:
        how = section(teacher, batches=True)
        with pytest.raises(EngineError, match=r"ended as failed without an answer; run again"):
            taught(tmp_path, how, rows(30), budget)
        assert Answers(tmp_path / "answers").spent().usd == pytest.approx(0)
        teacher.dead = False
        assert taught(tmp_path, how, rows(30), budget).complete
        assert teacher.calls == 30


def test_a_batch_that_died_after_a_kill_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with teaching(say=echo, batches=True) as teacher:
        how = section(teacher, batches=True)
        with monkeypatch.context() as patch:
            patch.setattr("stepwell.engines.batches.Batches.fetch", killed)
            with pytest.raises(KeyboardInterrupt):
                taught(tmp_path, how, rows(30))
        assert Answers(tmp_path / "answers").spent().usd > 0
        (begun,) = teacher.jobs.values()
        begun["status"] = "failed"
        finish = "bench.templates.teacher.finished"
        monkeypatch.setattr(finish, lambda told, name: begun if name == begun["id"] else finished(told, name))
        made = taught(tmp_path, how, rows(30))
        assert (made.complete, teacher.calls) == (True, 30)
        assert made.usd == pytest.approx(30 * USD)


@pytest.mark.parametrize(
    ("path", "status", "free"),
    [("/v1/files", 500, True), ("/v1/batches", 429, True), ("/v1/batches", 502, False)],
)
def test_a_batch_that_was_surely_not_begun_costs_nothing(tmp_path: Path, path: str, status: int, *, free: bool) -> None:
    with teaching(say=echo, batches=True, refused={path: status}) as teacher:
        how = section(teacher, batches=True)
        with pytest.raises(EngineError, match=str(status)):
            taught(tmp_path, how, rows(30))
        assert (Answers(tmp_path / "answers").spent().usd < USD) is free
        teacher.refused.clear()
        assert taught(tmp_path, how, rows(30)).complete


@pytest.mark.parametrize("batches", [False, True])
def test_a_model_of_the_same_name_at_another_server_is_asked_anew(tmp_path: Path, *, batches: bool) -> None:
    with (
        teaching(say=echo, batches=batches) as first,
        teaching(say=lambda body: said(body, "No."), batches=batches) as second,
    ):
        for teacher in (first, second, second):
            taught(tmp_path, section(teacher, batches=batches), rows(3))
        assert (first.calls, second.calls) == (3, 3)
    assert {row["completion"] for row in kept(tmp_path)} == {"No."}


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (lambda body: said(body, "I'm sorry, but I can't help with that."), "refused"),
        (lambda body: said(body, None), "empty"),
        (lambda body: said(body, "  "), "empty"),
        (lambda body: said(body, "und so weiter", finish="length"), "cut off"),
        (lambda body: said(body, "Das ist leider nicht das, was wir heute brauchen können."), "in another language"),
        (lambda _: {"junk": 1}, "no chat completion"),
    ],
)
def test_a_stream_of_answers_that_are_no_use_stops_the_run(
    tmp_path: Path, say: Callable[[dict[str, Any]], Any], reason: str
) -> None:
    with teaching(say=say) as teacher:
        how = section(teacher, language="en", at_once=4)
        with pytest.raises(DistillError, match=f"of the last 20 answers of 'mock', 20 {reason}"):
            taught(tmp_path, how, rows(60))
        calls = teacher.calls
        assert 20 <= calls <= 24
        with pytest.raises(DistillError, match="nothing more is asked"):
            taught(tmp_path, how, rows(60))
        assert teacher.calls == calls
        teacher.say = echo
        assert taught(tmp_path, how, rows(60), again=True).num_kept == 60


def test_some_that_are_no_use_are_kept_apart_with_their_reason(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        number = int("".join(filter(str.isdigit, body["messages"][-1]["content"])))
        return said(body, "I cannot help with that.") if number % 5 == 0 else 400 if number % 7 == 0 else echo(body)

    with teaching(say=say) as teacher:
        made = taught(tmp_path, section(teacher, at_once=1), rows(40))
    assert made.complete
    assert made.apart == {"refused": 8, "the server will not take it": 4}
    assert made.usd == pytest.approx(36 * USD)  # what was not taken costs nothing
    assert {row["reason"] for row in kept(tmp_path, "apart")} == {"refused", "the server will not take it: 400"}
    assert len(kept(tmp_path)) == made.num_kept == 28


def test_what_a_verifier_complains_about_is_kept_apart_and_does_not_stop_the_run(tmp_path: Path) -> None:
    with teaching(say=lambda body: said(body, "Some place serves Thai food.")) as teacher:
        asked = [{"id": str(at), "prompt": f"name[Place {at}], food[Thai]"} for at in range(25)]
        made = taught(tmp_path, section(teacher, verifier="values", num=2, temperature=0.7), asked)
        assert (made.num_kept, made.apart, teacher.calls) == (0, {"values complains": 50}, 50)
    assert kept(tmp_path, "apart")[1]["reason"] == "values complains: name is missing: Place 0"


def test_busy_servers_are_asked_again_and_the_tries_cost_nothing(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def say(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        seen[text] = seen.get(text, 0) + 1
        return (429, 503)[seen[text] - 1] if seen[text] < 3 else echo(body)

    with teaching(say=say) as teacher:
        made = taught(tmp_path, section(teacher), rows(6))
        assert teacher.calls == 18
    assert made.usd == pytest.approx(6 * USD)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_will_not_have_us_is_asked_once_or_a_few_times(tmp_path: Path, status: int) -> None:
    with teaching(say=lambda _: status) as teacher:
        with pytest.raises(EngineError):
            taught(tmp_path, section(teacher, at_once=2), rows(50))
        assert teacher.calls <= 10
        assert Answers(tmp_path / "answers").spent().usd == 0


def test_nobody_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)
    with teaching(say=echo) as teacher:
        how = section(teacher, at_once=1)
    with pytest.raises(EngineError, match="engine teacher"):
        taught(tmp_path, how, rows(2))


KILLED = """
import os, signal, sys
from pathlib import Path
from stepwell.distill import remote
from stepwell.distill.teach import Job, TeacherSection, teach
out = Path(sys.argv[2])
how = TeacherSection(url=sys.argv[1], model="mock", price="gpt-4o-mini", max_tokens=64, at_once=4)
def watch(done, total, spent):
    if done == 11:
        os.kill(os.getpid(), signal.SIGKILL)
teach(Job(how, out, out, watch=watch), [{"id": f"r{at}", "prompt": f"Question number {at}?"} for at in range(30)])
"""


def test_a_run_that_was_killed_goes_on_and_pays_only_what_was_on_its_way(tmp_path: Path) -> None:
    with teaching(say=echo) as teacher:
        command = [sys.executable, "-c", KILLED, teacher.url, str(tmp_path)]
        assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
        made = taught(tmp_path, section(teacher, at_once=4), rows(30))
        assert made.num_kept == 30
        assert teacher.calls <= 30 + 4
        assert made.usd >= teacher.calls * USD - 1e-12  # what was lost on the way counts at its highest price


def test_half_a_line_in_the_account_is_mended_and_a_broken_one_is_told(tmp_path: Path) -> None:
    with teaching(say=echo) as teacher:
        taught(tmp_path, section(teacher), rows(3))
        account = tmp_path / "answers" / "account.jsonl"
        whole = account.read_bytes()
        account.write_bytes(whole + b'{"key": "x", "us')
        assert taught(tmp_path, section(teacher), rows(4)).calls == 4
        account.write_bytes(b"nonsense\n" + whole)
        with pytest.raises(Exception, match=r"account\.jsonl: damaged"):
            taught(tmp_path, section(teacher), rows(5))


def test_where_no_account_can_be_kept_nothing_is_asked(tmp_path: Path) -> None:
    with teaching(say=echo) as teacher:
        (tmp_path / "answers").write_text("a file in the way")
        with pytest.raises(StoreError, match="cannot be"):
            taught(tmp_path, section(teacher), rows(3))
        assert teacher.calls == 0


# --- scores and log-probabilities


def place(token: str, odds: dict[str, float]) -> dict[str, Any]:
    top = [{"token": each, "logprob": math.log(p), "bytes": list(each.encode())} for each, p in odds.items()]
    return {"token": token, "logprob": math.log(odds[token]), "bytes": list(token.encode()), "top_logprobs": top}


def test_scores_are_expected_numbers(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        assert body["logprobs"] is True
        assert body["top_logprobs"] == 20
        content = body["messages"][-1]["content"]
        odds = {"8": 0.5, "6": 0.25, "10": 0.2, "x": 0.05}
        if "{rubric}" not in content:
            return 400
        return said(body, "8", logprobs={"content": [place("8", odds)]})

    with teaching(say=say) as teacher:
        row = {"id": "a", "prompt": "How {rubric}?", "completion": "So."}
        taught(tmp_path, section(teacher, give="scores"), [row])
        assert kept(tmp_path)[0]["score"] == pytest.approx((8 * 0.5 + 6 * 0.25 + 10 * 0.2) / 0.95 / 10)
        teacher.say = lambda body: said(body, "Seven.")
        made = taught(tmp_path / "b", section(teacher, give="scores"), [row])
        assert made.apart == {"no number from 0 to 10": 1}
        teacher.say = lambda body: said(body, "7")
        taught(tmp_path / "c", section(teacher, give="scores"), [row])
        assert kept(tmp_path / "c")[0]["score"] == 0.7
        with pytest.raises(DistillError, match="row 1 has no text in `completion`"):
            taught(tmp_path / "d", section(teacher, give="scores"), rows(1))


def test_a_servers_log_probabilities_become_sparse_logits(tmp_path: Path) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415

    from stepwell.distill.chat import words_of  # noqa: PLC0415
    from stepwell.distill.sparse import SparseRows  # noqa: PLC0415

    folder = WRITER.parent
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "The Eagle serves Thai food."
    ids = words.encode(text, add_special_tokens=False).ids
    pieces = [words.decode([each]) for each in ids]
    assert "".join(pieces) == text

    def say(body: dict[str, Any]) -> Any:
        told = [place(piece, {piece: 0.9, " zzz": 0.06}) for piece in pieces]
        if "other" in body["messages"][-1]["content"]:
            told = told[1:]
        return said(body, text, logprobs=None if "none" in body["messages"][-1]["content"] else {"content": told})

    with teaching(say=say) as teacher:
        asked = [{"id": "a", "prompt": "say it"}, {"id": "b", "prompt": "other"}, {"id": "c", "prompt": "none"}]
        made = taught(tmp_path, section(teacher, give="logits", tokenizer=str(folder)), asked)
    assert made.apart == {"its tokens are not those of the tokenizer": 1, "told no log-probabilities": 1}
    found = SparseRows.open(tmp_path / "logits", words_of(folder).tokenizer_hash).get("a")
    assert found is not None
    assert found.token_ids.tolist() == words_of(folder).text_ids(text)
    assert math.exp(found.logp[0, 0]) == pytest.approx(0.9, abs=0.01)
    assert math.exp(found.rest_logp[0]) == pytest.approx(0.1, abs=0.01)
    assert math.exp(found.logp[-1, 0]) == pytest.approx(1)


# --- which, and whether at all


def test_a_slice_by_chance_speaks_for_all_traffic(tmp_path: Path) -> None:
    asked = [{**row, "frequency": 1 + at % 7, "failure": (at % 10) / 10} for at, row in enumerate(rows(200))]
    with teaching(say=echo) as teacher:
        made = taught(tmp_path, section(teacher, select="value", most=50), asked)
        assert (made.num_rows, teacher.calls) == (50, 50)
        assert made.usable is not None
        assert made.usable[0] == pytest.approx(1, abs=0.35)
    chances = [row["chosen_with"] for row in kept(tmp_path)]
    assert chances.count(1.0) == 42
    by_value = kept(tmp_path)[:42]
    assert min(row["frequency"] * row["failure"] for row in by_value) >= 3
    assert all(0 < chance < 1 for chance in chances[42:])


def test_a_teacher_whose_terms_restrict_training_needs_a_word(tmp_path: Path) -> None:
    with teaching(say=echo) as teacher:
        how = section(teacher, model="gpt-4o-mini")
        with pytest.raises(DistillError, match=r"restrict training on its answers.*--i-may"):
            taught(tmp_path, how, rows(1))
        assert teacher.calls == 0
        assert "restricted" in taught(tmp_path, how, rows(1), i_may=True).terms


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({}, "either `url` and `model`, or `path`"),
        ({"url": "http://x", "path": "y", "model": "z"}, "either"),
        ({"url": "http://x"}, "needs the name of its `model`"),
        ({"path": "x", "ask": "say it"}, "must hold {prompt}"),
        ({"url": "http://x", "model": "m", "give": "logits"}, "folder of its model's tokenizer"),
    ],
)
def test_a_section_that_cannot_be_is_told(how: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        TeacherSection(**how)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with teaching(say=echo) as teacher:
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(
            f'[teacher]\nurl = "{teacher.url}"\nmodel = "mock"\nprice = "gpt-4o-mini"\n[train]\nsteps = 1\n'
        )
        tables.write(tmp_path / "asked.jsonl", rows(5))
        command = ["distill", "teach", str(recipe), "--rows", str(tmp_path / "asked.jsonl"), "--out", str(tmp_path)]
        assert main([*command, "--max-calls", "2"]) == 3
        assert "INCOMPLETE: 2 calls were made" in capsys.readouterr().out
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["num_kept"] == 5
        recipe.write_text('[teacher]\nurl = "http://x"\nmodel = "mock"\nmax_token = 1\n')
        assert main(command) != 0
        assert "recipe.toml:4: teacher.max_token: unknown key; did you mean 'max_tokens'?" in capsys.readouterr().err


def test_a_gguf_file_teaches_for_nothing(tmp_path: Path) -> None:
    how = TeacherSection(path=str(WRITER), max_tokens=48, verifier="slots", at_once=2)
    asked = [{"id": "a", "prompt": "name[The Eagle], eatType[pub], food[Thai]"}]
    made = taught(tmp_path, how, asked)
    assert (made.usd, made.calls) == (0, 1)
    assert "The Eagle" in [*kept(tmp_path), *kept(tmp_path, "apart")][0]["completion"]


def test_another_gguf_file_of_the_same_name_is_asked_anew(tmp_path: Path) -> None:
    file = tmp_path / "teacher.gguf"
    how = TeacherSection(path=str(file), max_tokens=48)
    asked = [{"id": "a", "prompt": "name[The Eagle], eatType[pub], food[Thai]"}]
    for more, calls in ((b"", 1), (b"", 1), (b"\0", 2)):
        file.write_bytes(WRITER.read_bytes() + more)
        assert taught(tmp_path, how, asked).calls == calls


def test_a_gguf_files_log_probabilities_are_stored(tmp_path: Path) -> None:
    from stepwell.distill.chat import words_of  # noqa: PLC0415
    from stepwell.distill.sparse import SparseRows  # noqa: PLC0415

    words = words_of(WRITER.parent)
    how = TeacherSection(path=str(WRITER), max_tokens=48, give="logits", tokenizer=str(WRITER.parent))
    taught(tmp_path, how, [{"id": "a", "prompt": "name[The Eagle], eatType[pub], food[Thai]"}])
    found = SparseRows.open(tmp_path / "logits", words.tokenizer_hash).get("a")
    assert found is not None
    assert found.token_ids.tolist() == words.text_ids(kept(tmp_path)[0]["completion"])
    assert found.ids[:, 0].tolist() == found.token_ids.tolist()  # the likeliest text


def test_of_prompts_that_are_alike_one_is_asked_first(tmp_path: Path) -> None:
    heaps = ("Where is my card? It has not arrived, number {}.", "How do I change {} euros to pounds?")
    asked = [{"id": f"{heap}-{at}", "prompt": text.format(at)} for heap, text in enumerate(heaps) for at in range(12)]
    with teaching(say=echo) as teacher:
        taught(tmp_path, section(teacher, select="value", embed=True, most=2), asked)
    assert {row["id"][0] for row in kept(tmp_path)} == {"0", "1"}
