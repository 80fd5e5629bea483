"""The official `openai` package from an upload to a model that the gateway serves: nothing is stood in for."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from conftest import ROOT, SCRIPTED, Gateway, Start

RECIPE = f"""
[student]
tokenizer = "{ROOT / "models" / "house-writer"}"
hidden = 32
layers = 1
heads = 2
inner = 64

[train]
steps = 20
batch_tokens = 256
warm_steps = 2
max_tokens = 16

[gate]
verify = "slots"
margin = 0.2
"""
TUNING = '[fine_tuning]\nmodels = { tiny = "recipe.toml" }\n'
WORDS = ("Amber", "Blue", "Copper", "Dusty", "Golden", "Hidden", "Ivory", "Lazy", "Merry", "Quiet")
START_S = 280.0
DISTILL = f"""
[student]
hidden = 32
layers = 1
heads = 2
inner = 64

[teacher]
path = "{ROOT / "models" / "house-writer"}"
give = "logits"

[train]
loss = "topk+rest"
steps = 5
batch_tokens = 256
max_tokens = 40
"""


def client(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url, api_key="none", max_retries=0)


def rows(things: tuple[str, ...]) -> bytes:
    pairs = [(f"name[The {word} {thing}], food[Thai]", f"The {word} {thing} serves Thai food.") for word in WORDS for thing in things]  # fmt: skip
    talks = [[{"role": "user", "content": asked}, {"role": "assistant", "content": said}] for asked, said in pairs]
    return b"".join(json.dumps({"messages": talk}).encode() + b"\n" for talk in talks)


def ended(ai: openai.OpenAI, name: str) -> Any:
    end_s = time.monotonic() + START_S
    while (job := ai.fine_tuning.jobs.retrieve(name)).status in {"queued", "running"}:
        assert time.monotonic() < end_s, [each.message for each in ai.fine_tuning.jobs.list_events(name)]
        time.sleep(0.5)
    return job


@pytest.mark.timeout(300)
def test_from_an_upload_to_a_served_model(serve: Start, tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE)
    key = base64.b64encode(b"k" * 32).decode()
    with client(serve(SCRIPTED + TUNING, STEPWELL_SIGNING_KEY=key)) as ai:
        training = ai.files.create(file=("rows.jsonl", rows(("Mill", "Fox"))), purpose="fine-tune")
        validation = ai.files.create(file=("held.jsonl", rows(("Heron",))), purpose="fine-tune")
        method: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
        job = ai.fine_tuning.jobs.create(
            model="tiny", training_file=training.id, validation_file=validation.id, method=method, seed=1
        )
        done = ended(ai, job.id)
        messages = [each.message for each in ai.fine_tuning.jobs.list_events(job.id, limit=100)]
        assert done.status == "succeeded", (done.error, messages)
        gate = done.to_dict()["gate"]
        assert gate["decision"] in {"refuse", "cannot tell"}, "ten pairs and a handful of steps"
        assert not gate["serves"]
        assert done.trained_tokens > 0
        assert [f"Stage {name}" in messages for name in ("train", "quantize", "gate", "card")] == [True] * 4
        assert any("train loss=" in message for message in messages)
        (checkpoint,) = ai.fine_tuning.jobs.checkpoints.list(job.id)
        assert checkpoint.fine_tuned_model_checkpoint == done.fine_tuned_model
    kept = folder / "stepwell-data" / "fine-tuning"
    served = f'[engines.tiny]\ntype = "embedded"\npath = "{kept / gate["folder"] / gate["gguf"]}"\n[routes.tiny]\nengines = ["tiny"]\n'
    with client(serve(SCRIPTED + served + 'price = "gpt-4o-mini"\n', name="second")) as ai:
        asked: Any = [{"role": "user", "content": "name[The Blue Fox], food[Thai]"}]
        told = ai.chat.completions.create(model="tiny", messages=asked, max_tokens=8, temperature=0)
        assert told.usage is not None
        assert told.usage.completion_tokens > 0


@pytest.mark.timeout(300)
def test_a_teacher_answers_bare_prompts(serve: Start, tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "recipe.toml").write_text(DISTILL)
    prompts = b"".join(b'{"prompt": "name[The %b Mill], food[Thai]"}\n' % word.encode() for word in WORDS)
    with client(serve(SCRIPTED + TUNING)) as ai:
        training = ai.files.create(file=("prompts.jsonl", prompts), purpose="fine-tune")
        method: Any = {"type": "distillation"}
        job = ai.fine_tuning.jobs.create(model="tiny", training_file=training.id, method=method, seed=1)
        done = ended(ai, job.id)
        messages = [each.message for each in ai.fine_tuning.jobs.list_events(job.id, limit=100)]
        assert done.status == "succeeded", (done.error, messages)
        assert "Stage teach" in messages
        card = (folder / "stepwell-data" / "fine-tuning" / done.to_dict()["gate"]["folder"] / "README.md").read_text()
        assert "Teacher: house-writer" in card
