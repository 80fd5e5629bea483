"""A recipe from its rows to a file that serves; killed on the way it goes on, and nothing is done or paid twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import openai
import pytest

from conftest import ROOT, Start
from stepwell.cli.main import main
from stepwell.demo.city import questions
from stepwell.ledger.rollup import rollup
from stepwell.signing import new_key
from stepwell.store import tables

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

WRITER = ROOT / "models" / "house-writer"
PROMPTS = questions(40, 5)[:200]
RECIPE = f"""
about = "Says what it was told."
[train]
data = "rows.jsonl"
loss = "topk+rest"
alpha = 0.1
optimizer = "muon"
rate = 1e-2
average = 0.9
steps = 60
batch_tokens = 1024
warm_steps = 3
save_every = 4
max_tokens = 24
[split]
held_out = 0.4
[teacher]
path = "{WRITER}"
give = "logits"
[student]
hidden = 64
layers = 1
heads = 2
inner = 64
[gate]
verify = "test_campaign:anything"
margin = 0.3
discordance = 0.1
power = 0.8
"""
SERVE = """
[server]
port = 0

[engines.writer]
type = "embedded"
path = "{writer}"
threads = 1

[engines.student]
type = "embedded"
path = "{student}"
threads = 1

[routes.city-guide]
engines = ["writer"]
price = "house-writer"
cache = false

[specialists.city-guide]
engine = "student"
routes = ["city-guide"]
promotion = "{gate}"
public_keys = ["{key}"]
verify = "test_campaign:anything"
judge = "verify:slots"
max_tokens = 24
deadline_ms = 30000

[promise]
error = 0.3

[ledger]
path = "{ledger}"

[stored]
path = ""
"""


def anything(_prompt: str, _text: str) -> list[str]:
    """A verifier that a student of a dozen steps passes."""
    return []


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    made = new_key()
    monkeypatch.setenv("STEPWELL_SIGNING_KEY", b64encode(made.private.private_bytes_raw()).decode())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]))
    return b64encode(made.public.public_bytes_raw()).decode()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [{"prompt": prompt, "completion": f"It is {prompt.split('[')[1].split(']')[0]}."} for prompt in PROMPTS]
    tables.write(tmp_path / "rows.jsonl", rows)
    path = tmp_path / "guide.toml"
    path.write_text(RECIPE)
    return path


def command(recipe: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "stepwell.cli", "distill", "run", str(recipe), "--root", str(root(recipe)), *more]


def root(recipe: Path) -> Path:
    return recipe.parent / "root"


def log(recipe: Path) -> list[dict[str, Any]]:
    files = list(root(recipe).glob("*-train-*/run/log.jsonl"))
    return [json.loads(line) for line in files[0].read_text().splitlines()] if files else []


def test_from_rows_to_a_specialist_that_serves(
    recipe: Path, serve: Start, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = subprocess.run(command(recipe, "--processes", "1", "--json"), capture_output=True, check=False, text=True)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    student = root(recipe) / "student"
    assert told["gate"]["decision"] == "promote"
    assert told["data"]["rows"] + told["data"]["dev"] + told["data"]["held_out"] == len(PROMPTS)
    for name in (
        "README.md",
        "provenance.json",
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "loss.svg",
        "verdict.json",
    ):
        assert (student / name).stat().st_size > 0, name
    assert "**promote**" in (student / "README.md").read_text()
    assert list(told["stages"]) == ["split", "synth", "filter", "teach", "train", "quantize", "gate", "card"]
    # once more: everything is there
    assert main(["distill", "run", str(recipe), "--root", str(root(recipe)), "--processes", "1"]) == 0
    assert capsys.readouterr().err.count("is there") == len(told["stages"])
    gate = root(recipe) / "gate"
    assert main(["distill", "promote", str(gate), "--to", "live", "--because", "a test"]) == 0
    ledger = tmp_path / "ledger.db"
    names = {"writer": WRITER / "house-writer.gguf", "student": student / told["file"]["name"]}
    started = serve(SERVE.format(gate=gate, key=key, ledger=ledger, **names))
    with openai.OpenAI(base_url=started.url, api_key="none", max_retries=0) as ai:
        messages: Any = [{"role": "user", "content": PROMPTS[0]}]
        reply = ai.chat.completions.with_raw_response.create(model="city-guide", messages=messages, temperature=0)
    assert reply.headers["stepwell-step"] == "specialist"
    assert reply.parse().choices[0].message.content
    started.process.send_signal(signal.SIGTERM)  # what waits is in the ledger then
    started.process.wait(20)
    (line,) = [each for each in rollup(ledger, "step") if each.name == "specialist" and each.requests]
    assert line.requests == 1
    assert 0 < line.usd < line.large_usd


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_in_training_it_goes_on_where_it_was(recipe: Path, processes: int) -> None:
    recipe.write_text(RECIPE.replace("steps = 60", "steps = 40"))
    run = command(recipe, "--processes", str(processes), "--json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    parts = ".*-train-*.part/run/checkpoint.safetensors"
    while not list(root(recipe).glob(parts)) and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    teach = [path.stat().st_mtime_ns for path in root(recipe).glob("4-teach-*/rows")]
    again = subprocess.run(run, capture_output=True, check=False, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in root(recipe).glob("4-teach-*/rows")] == teach
    assert [line["step"] for line in log(recipe) if "rate" in line] == list(range(1, 41))
    told = json.loads(again.stdout)
    assert told["training"]["processes"] == processes


def test_a_held_out_row_in_the_training_data_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (recipe.parent / "rows.jsonl").read_text().splitlines()]
    tables.write(recipe.parent / "judge.jsonl", rows[:3])
    planted = 'licence = "own"\n[synth.seeds]\npaths = ["rows.jsonl"]\nlicence = "own"\n[[synth.held_out]]\npaths = ["judge.jsonl"]\n'
    recipe.write_text(
        RECIPE.replace("[train]", f"[synth]\n{planted}[synth.filters]\nnear = 0\n[train]").replace(
            'data = "rows.jsonl"\n', ""
        )
    )
    assert main(["distill", "run", str(recipe), "--root", str(root(recipe)), "--processes", "1", "--json"]) != 2
    told = json.loads(capsys.readouterr().out)
    assert told["data"]["refused"]["leaks"] == 3
    assert told["data"]["held_out"] == 3


def test_what_is_not_set_is_told_before_the_work(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STEPWELL_SIGNING_KEY")
    assert main(["distill", "run", str(recipe), "--root", str(root(recipe))]) == 2
    assert "STEPWELL_SIGNING_KEY" in capsys.readouterr().err
    assert not root(recipe).exists()
