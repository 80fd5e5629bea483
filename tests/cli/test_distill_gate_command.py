"""`stepwell distill gate`, `promote`, `standing`, `rollback`: a plan, pairs, a verdict, and what follows from it."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from conftest import SCRIPTED, WRITER
from promoted import promoted, public
from stepwell.cli.main import main
from stepwell.signing import KEY_ENV, new_key

KEY = new_key()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEY_ENV, b64encode(KEY.private.private_bytes_raw()).decode())
    recipe(margin=0.05)
    return tmp_path


def recipe(**gate: Any) -> None:
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in {"verify": "values", **gate}.items())
    Path("recipe.toml").write_text(f"[student]\nhidden = 64\n\n[gate]\n{lines}\n")


def pairs(num: int = 500, wrong: int = 5) -> None:
    rows = [
        {"id": place, "prompt": f"x[{place}]", "student": "?" if place < wrong else f"{place}", "teacher": f"{place}"}
        for place in range(num)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def gate(*more: str) -> int:
    return main(["distill", "gate", "recipe.toml", "--folder", "promotion", *more])


def test_from_a_plan_to_a_roll_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert gate() == 0
    assert "judge by 488 pairs for each of: all" in capsys.readouterr().out
    pairs()
    Path("model.gguf").write_bytes(b"GGUF, or so")
    assert gate("--pairs", "pairs.jsonl", "--model", "model.gguf", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["decision"] == "promote"
    assert len(report["model"]) == 64
    assert main(["distill", "promote", "promotion"]) == 0
    assert main(["distill", "promote", "promotion"]) == 0
    assert main(["distill", "promote", "promotion"]) == 2
    assert "go live all the same with --because REASON" in capsys.readouterr().err
    assert main(["distill", "promote", "promotion", "--because", "a test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "live"
    assert main(["distill", "rollback", "promotion", "--because", "a complaint"]) == 0
    assert main(["distill", "standing", "promotion"]) == 0
    assert "by hand: a complaint" in capsys.readouterr().out


@pytest.mark.parametrize(("num", "wrong", "told"), [(500, 60, "refuse: all, right: inferior"), (9, 0, "only 9 pairs")])
def test_what_may_not_serve_is_1(num: int, wrong: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(num, wrong)
    assert gate("--pairs", "pairs.jsonl", "--model", "a-name") == 1
    assert told in capsys.readouterr().out
    assert main(["distill", "promote", "promotion"]) == 2
    assert "the gate says" in capsys.readouterr().err


def test_a_changed_plan_and_seen_prompts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    pairs()
    Path("rows.jsonl").write_text('{"prompt": "x[3]", "completion": "3"}\n')
    assert gate("--pairs", "pairs.jsonl", "--trained-on", "rows.jsonl") == 2
    assert "pair '3' is in the training data" in capsys.readouterr().err
    assert gate("--pairs", "pairs.jsonl") == 0
    recipe(margin=0.1)
    assert gate("--pairs", "pairs.jsonl") == 2
    assert "(margin 0.05 to 0.1) after pairs were judged" in capsys.readouterr().err


def test_a_model_answers_where_nobody_has(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xllamacpp")
    facts = [
        f"name[The Eagle], eatType[{kind}], area[{area}]"
        for kind in ("pub", "restaurant")
        for area in ("riverside", "city centre")
    ]
    rows = [{"prompt": each, "completion": "The Eagle."} for each in facts]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe(verify="slots", margin=0.9, discordance=0.9, alpha=0.45, power=0.5)
    assert gate("--pairs", "pairs.jsonl") == 2
    assert "name the file that is to answer" in capsys.readouterr().err
    assert gate("--pairs", "pairs.jsonl", "--model", str(WRITER), "--json") == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["student"], finding["teacher"]) == (1, 0)


def test_a_wrong_recipe_is_told_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    recipe(margn=0.1)
    assert gate() == 2
    assert "recipe.toml:6: gate.margn: unknown key; did you mean 'margin'?" in capsys.readouterr().err
    assert gate("--pairs", "nothing.jsonl") == 2
    Path("recipe.toml").unlink()
    assert gate() == 2
    assert "recipe.toml: cannot be read" in capsys.readouterr().err


def test_without_a_key_nothing_is_signed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(KEY_ENV)
    assert gate() == 2
    assert f"{KEY_ENV} holds no key" in capsys.readouterr().err


def test_the_promise_shows_where_specialists_stand(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promoted(place / "p", KEY, "m", "canary", reason="shown by a test")
    specialist = f"""
[promise]
error = 0.05
[engines.student]
type = "scripted"
[specialists.writer]
engine = "student"
routes = ["well"]
promotion = "p"
public_keys = ["{public(KEY)}"]
verify = "values"
judge = "exact"
"""
    Path("stepwell.toml").write_text(SCRIPTED + specialist)
    assert main(["promise"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "specialist      writer: canary, a test",
        "                audits: none yet",
    ]
    assert main(["promise", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["specialists"]["writer"]["stage"] == "canary"
