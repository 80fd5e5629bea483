"""/v1/fine_tuning/jobs with the official `openai` package. What trains is stood in for by a script of the tests: it is

started as the real one is, reads the recipe, says what a run says, and does as the recipe's `about` tells it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SCRIPTED, Gateway, Start
from stepwell.gateway.tuning import recipe
from stepwell.gateway.tuning.result import without_folders

KEYS = '[[keys]]\ntenant = "a"\nenv = "KEY_A"\n\n[[keys]]\ntenant = "b"\nenv = "KEY_B"\n'
ROWS = b"".join(
    json.dumps({"messages": [{"role": "user", "content": f"{at}?"}, {"role": "assistant", "content": "Yes."}]}).encode()
    + b"\n"
    for at in range(12)
)
RECIPE = """
about = "{about}"

[teacher]
path = "models/teacher"
give = "logits"

[train]
loss = "fkl"
rate = 1e-3
batch_tokens = 64

[gate]
margin = 0.02
"""
TEACHERS = '[teacher]\nurl = "http://127.0.0.1:9/v1"\nmodel = "large"\n'
TUNING = """
[fine_tuning]
models = {{ writer = "recipe.toml" }}
teachers = {{ large = "large.toml" }}
python = "{python}"
{more}
"""
TRAINER = """#!{python}
import json, os, pathlib, signal, sys, time, tomllib

if sys.argv[2] == "-c":
    print({missing!r})
    sys.exit()
assert sys.argv[1:6] == ["-P", "-m", "stepwell.cli", "distill", "run"], sys.argv
recipe, root = pathlib.Path(sys.argv[6]), pathlib.Path(sys.argv[8])
tree = tomllib.loads(recipe.read_text())
about = tree["about"].split()
root.mkdir(exist_ok=True)
(root.parent / "learned").write_bytes((root.parent / "training.jsonl").read_bytes())
with (root.parent / "starts").open("a") as starts:
    starts.write("x")
num_starts = len((root.parent / "starts").read_text())
say = lambda **said: print(json.dumps(said), flush=True)
say(stage="train", there=num_starts > 1)
say(step=1, train_loss=2.0)
if "refuse" in about:
    sys.exit("stepwell: recipe.toml:3: train.loss: no such loss")
if "die" in about and num_starts < int(about[1]):
    print('{{"step": 2, "train_lo', end="", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
while "wait" in about and not (root.parent / "go").exists():
    time.sleep(0.02)
out = root / "card"
out.mkdir(exist_ok=True)
(out / "student.Q8_0.gguf").write_bytes(b"GGUF")
(root / "gate").mkdir(exist_ok=True)
(root / "gate" / "verdict.json").write_text("signed")
say(step=2, train_loss=1.0, valid_loss=1.5)
gate = {{"decision": "promote", "reason": "shown"}} if "worse" not in about else {{"decision": "refuse", "reason": "worse by 5 %"}}
say(student=str(out), gate=gate, training={{"tokens": 1234}}, costs={{"teach": {{"usd": 0.25}}, "train": {{}}}})
sys.exit(gate["decision"] != "promote")
"""


class Tuned:
    """A gateway with [fine_tuning]; `go` lets a run that waits go on."""

    def __init__(self, serve: Start, folder: Path) -> None:
        self.serve, self.folder = serve, folder
        self.gateways: list[Gateway] = []

    def __call__(
        self, about: str = "", *, missing: str = "", more: str = "", keys: str = "", workers: int = 1, **env: str
    ) -> Gateway:
        folder = self.folder / "gateway"
        (folder / "models" / "teacher").mkdir(parents=True, exist_ok=True)
        trainer = folder / "trainer"
        trainer.write_text(TRAINER.format(python=sys.executable, missing=missing))
        trainer.chmod(0o755)
        (folder / "recipe.toml").write_text(RECIPE.format(about=about))
        (folder / "large.toml").write_text(TEACHERS)
        server = SCRIPTED.replace("port = 0", f"port = 0\nworkers = {workers}")
        self.gateways.append(self.serve(server + keys + TUNING.format(python=trainer, more=more), **env))
        return self.gateways[-1]

    @property
    def jobs(self) -> Path:
        return self.folder / "gateway" / "stepwell-data" / "fine-tuning" / "jobs"

    def kept(self, name: str) -> list[str]:
        """What of a job holds its tenant's rows."""
        return [each for each in ("run", "training.jsonl", "validation.jsonl") if (self.jobs / name / each).exists()]

    def go(self, name: str) -> None:
        (self.jobs / name / "go").touch()

    def recipe(self, name: str) -> Any:
        return tomllib.loads((self.jobs / name / "recipe.toml").read_text())

    def starts(self, name: str) -> int:
        return len((self.jobs / name / "starts").read_text())

    def pid(self, name: str) -> int:
        return int((self.jobs / name / "pid").read_text())


@pytest.fixture
def tuned(serve: Start, tmp_path: Path) -> Iterator[Tuned]:
    tuned = Tuned(serve, tmp_path)
    yield tuned
    for gateway in tuned.gateways:  # a gateway that is stopped stops what it runs
        gateway.stop()


def client(gateway: Gateway, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.url, api_key=key, max_retries=0)


def upload(ai: openai.OpenAI, content: bytes = ROWS) -> str:
    return ai.files.create(file=("rows.jsonl", content), purpose="fine-tune").id


def create(ai: openai.OpenAI, **more: Any) -> Any:
    return ai.fine_tuning.jobs.create(
        model="writer", training_file=more.pop("training_file", None) or upload(ai), **more
    )


def until(ai: openai.OpenAI, name: str, *statuses: str, seconds: float = 30.0) -> Any:
    end_s = time.monotonic() + seconds
    while (job := ai.fine_tuning.jobs.retrieve(name)).status not in statuses:
        assert job.status not in {"failed", "succeeded", "cancelled"}, job
        assert time.monotonic() < end_s, job
        time.sleep(0.1)
    return job


def waits(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_a_job_from_upload_to_model(tuned: Tuned) -> None:
    with client(tuned()) as ai:
        training, validation = upload(ai), upload(ai, ROWS[: ROWS.index(b"\n", 200) + 1])
        job = create(
            ai,
            training_file=training,
            validation_file=validation,
            suffix="tour",
            seed=7,
            metadata={"team": "guides"},
            method={
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 2, "learning_rate_multiplier": 0.5}},
            },
        )
        assert (job.status, job.object, job.seed, job.metadata) == ("queued", "fine_tuning.job", 7, {"team": "guides"})
        done = until(ai, job.id, "succeeded")
        assert done.fine_tuned_model == f"ft:writer:local:tour:{job.id[6:14]}"
        assert done.trained_tokens == 1234
        gate = done.to_dict()["gate"]
        assert (gate["decision"], gate["serves"], gate["gguf"], gate["usd"]) == (
            "promote",
            True,
            "student.Q8_0.gguf",
            0.25,
        )
        assert (gate["folder"], gate["promotion"]) == (f"models/{job.id}", f"models/{job.id}/promotion")
        assert (tuned.jobs.parent / gate["folder"] / gate["gguf"]).read_bytes() == b"GGUF"
        assert (tuned.jobs.parent / gate["promotion"] / "verdict.json").read_text() == "signed"
        waits(lambda: not tuned.kept(job.id))
        (checkpoint,) = ai.fine_tuning.jobs.checkpoints.list(job.id)
        assert (checkpoint.step_number, checkpoint.metrics.train_loss) == (2, 1.0)
        assert checkpoint.fine_tuned_model_checkpoint == done.fine_tuned_model
        events = [each.message for each in ai.fine_tuning.jobs.list_events(job.id, limit=2)][::-1]
        assert events[0] == "Created fine-tuning job"
        assert "Step 1: train loss=2.000" in events
        assert events[-1] == "The job has successfully completed"
        assert "The gate lets it serve" in events[-2]
        figures = ai.files.content(done.result_files[0]).text
        assert figures.splitlines()[1:] == ["1,2.0,", "2,1.0,1.5"]
        assert ai.files.retrieve(done.result_files[0]).purpose == "fine-tune-results"
    kept = tuned.jobs.parent
    open_to_others = [
        each for each in (kept, *kept.iterdir(), *(kept / "files").iterdir()) if each.stat().st_mode & 0o077
    ]
    assert [each.name for each in open_to_others if not each.name.endswith(".db.lock")] == []
    tree = tuned.recipe(job.id)
    assert "teacher" not in tree
    assert tree["synth"]["seeds"] == {"paths": ["training.jsonl"], "licence": "other"}
    assert tree["synth"]["held_out"] == [{"paths": ["validation.jsonl"]}]
    assert (tree["train"]["loss"], tree["train"]["rate"], tree["train"]["seed"]) == ("ce", 5e-4, 7)
    assert tree["gate"] == {"margin": 0.02}
    rows = [json.loads(line) for line in (tuned.jobs / job.id / "learned").read_text().splitlines()]
    assert len(rows) == 12
    assert (rows[0]["prompt"], rows[0]["completion"]) == ("0?", "Yes.")


def test_distillation_names_its_teacher(tuned: Tuned) -> None:
    prompts = b'{"prompt": "a?"}\n{"messages": [{"role": "user", "content": "b?"}]}\n'
    with client(tuned(more="budget_usd = 0.5")) as ai:
        file = upload(ai, prompts)
        with pytest.raises(openai.BadRequestError, match=r"line 1 of rows\.jsonl has no answer"):
            create(ai, training_file=file)
        own = create(ai, training_file=file, method={"type": "distillation"})
        named = create(ai, training_file=file, method={"type": "distillation", "distillation": {"teacher": "large"}})
        assert named.to_dict()["method"]["distillation"]["teacher"] == "large"
        with pytest.raises(openai.BadRequestError, match="no such teacher; did you mean 'large'"):
            create(ai, training_file=file, method={"type": "distillation", "distillation": {"teacher": "larg"}})
        until(ai, own.id, "succeeded")
        until(ai, named.id, "succeeded")
    assert tuned.recipe(own.id)["teacher"]["path"] == str(tuned.folder / "gateway" / "models" / "teacher")
    assert tuned.recipe(named.id)["teacher"] == {"url": "http://127.0.0.1:9/v1", "model": "large"}
    assert tuned.recipe(own.id)["train"]["loss"] == "fkl"


async def test_the_async_client(tuned: Tuned) -> None:
    async with openai.AsyncOpenAI(base_url=tuned().url, api_key="none", max_retries=0) as ai:
        file = await ai.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
        job = await ai.fine_tuning.jobs.create(model="writer", training_file=file.id)
        assert [each.id async for each in ai.fine_tuning.jobs.list()] == [job.id]
        assert [each.type async for each in ai.fine_tuning.jobs.list_events(job.id)]


def test_one_at_a_time_in_the_order_they_came(tuned: Tuned) -> None:
    with client(tuned("wait")) as ai:
        first, second = create(ai), create(ai)
        until(ai, first.id, "running")
        assert ai.fine_tuning.jobs.retrieve(second.id).status == "queued"
        assert [each.id for each in ai.fine_tuning.jobs.list(limit=1)] == [second.id, first.id]
        tuned.go(first.id)
        until(ai, second.id, "running")
        assert ai.fine_tuning.jobs.retrieve(first.id).status == "succeeded"
        tuned.go(second.id)
        until(ai, second.id, "succeeded")


def test_cancel_pause_and_resume(tuned: Tuned) -> None:
    with client(tuned("wait")) as ai:
        job = create(ai)
        until(ai, job.id, "running")
        waits((tuned.jobs / job.id / "starts").exists)
        assert ai.fine_tuning.jobs.pause(job.id).status == "paused"
        pid = tuned.pid(job.id)
        waits(lambda: not is_alive(pid))
        assert ai.fine_tuning.jobs.resume(job.id).status == "queued"
        until(ai, job.id, "running")
        waits(lambda: tuned.starts(job.id) == 2)
        second = create(ai)
        assert ai.fine_tuning.jobs.cancel(second.id).status == "cancelled"
        cancelled = ai.fine_tuning.jobs.cancel(job.id)
        assert (cancelled.status, cancelled.finished_at is not None) == ("cancelled", True)
        pid = tuned.pid(job.id)
        waits(lambda: not is_alive(pid))
        for late in (ai.fine_tuning.jobs.cancel, ai.fine_tuning.jobs.pause, ai.fine_tuning.jobs.resume):
            with pytest.raises(openai.BadRequestError, match="cancelled"):
                late(job.id)
        assert not (tuned.jobs / second.id).exists()
        waits(lambda: not tuned.kept(job.id))


def test_rows_of_a_job_that_is_cancelled_while_it_pauses_go(tuned: Tuned) -> None:
    with client(tuned("wait")) as ai:
        job = create(ai)
        until(ai, job.id, "running")
        waits((tuned.jobs / job.id / "starts").exists)
        ai.fine_tuning.jobs.pause(job.id)
        pid = tuned.pid(job.id)
        waits(lambda: not is_alive(pid))
        time.sleep(6)
        assert set(tuned.kept(job.id)) == {"run", "training.jsonl"}, "it may go on"
        ai.fine_tuning.jobs.cancel(job.id)
        waits(lambda: not tuned.kept(job.id))


def test_a_gate_that_says_no(tuned: Tuned) -> None:
    with client(tuned("worse")) as ai:
        done = until(ai, create(ai).id, "succeeded")
        gate = done.to_dict()["gate"]
        assert (gate["decision"], gate["serves"], gate["reason"]) == ("refuse", False, "worse by 5 %")


def test_a_run_that_fails_says_why(tuned: Tuned) -> None:
    with client(tuned("refuse")) as ai:
        done = until(ai, create(ai).id, "failed")
        assert done.error is not None
        assert (done.error.code, done.error.message) == ("training_failed", "recipe.toml:3: train.loss: no such loss")
        waits(lambda: not tuned.kept(done.id))
        assert done.finished_at is not None


def test_an_environment_without_torch_is_told(tuned: Tuned) -> None:
    with client(tuned(missing="torch")) as ai:
        done = until(ai, create(ai).id, "failed")
        assert done.error is not None
        assert done.error.code == "train_extra_missing"
        assert "lacks torch: pip install 'stepwell[train]'" in done.error.message


def test_a_run_that_is_killed_goes_on(tuned: Tuned) -> None:
    with client(tuned("die 3")) as ai:
        job = until(ai, create(ai).id, "succeeded")
        messages = [each.message for each in ai.fine_tuning.jobs.list_events(job.id, limit=100)]
        assert sum("killed by signal 9" in message for message in messages) == 2
        assert messages.count("Step 1: train loss=2.000") == 3
    assert tuned.starts(job.id) == 3


def test_not_for_ever(tuned: Tuned) -> None:
    with client(tuned("die 9")) as ai:
        job = until(ai, create(ai).id, "failed")
        assert job.error is not None
        assert job.error.code == "killed"
    assert tuned.starts(job.id) == 3


def test_a_gateway_that_is_killed_finds_its_run_again(tuned: Tuned) -> None:
    gateway = tuned("wait")
    with client(gateway) as ai:
        job, second = create(ai), create(ai)
        until(ai, job.id, "running")
        waits((tuned.jobs / job.id / "starts").exists)
    gateway.stop(signal.SIGKILL)
    pid = tuned.pid(job.id)
    assert is_alive(pid)
    with client(tuned("wait")) as ai:
        assert ai.fine_tuning.jobs.retrieve(job.id).status == "running"
        tuned.go(job.id)
        until(ai, job.id, "succeeded")
        messages = [each.message for each in ai.fine_tuning.jobs.list_events(job.id, limit=100)]
        assert messages.count("Step 1: train loss=2.000") == 1, "nothing is told twice"
        assert tuned.starts(job.id) == 1
        until(ai, second.id, "running")
        tuned.go(second.id)
        until(ai, second.id, "succeeded")


def test_a_run_that_ended_while_there_was_no_gateway(tuned: Tuned) -> None:
    gateway = tuned("wait")
    with client(gateway) as ai:
        job = create(ai)
        until(ai, job.id, "running")
        waits((tuned.jobs / job.id / "starts").exists)
    gateway.stop(signal.SIGKILL)
    tuned.go(job.id)
    pid = tuned.pid(job.id)
    waits(lambda: not is_alive(pid))
    with client(tuned("wait")) as ai:
        assert until(ai, job.id, "succeeded").fine_tuned_model is not None
    assert tuned.starts(job.id) == 1


def test_both_killed(tuned: Tuned) -> None:
    gateway = tuned("wait")
    with client(gateway) as ai:
        job = create(ai)
        until(ai, job.id, "running")
        waits((tuned.jobs / job.id / "starts").exists)
    gateway.stop(signal.SIGKILL)
    pid = tuned.pid(job.id)
    os.killpg(pid, signal.SIGKILL)
    waits(lambda: not is_alive(pid))
    with client(tuned("wait")) as ai:
        waits(lambda: tuned.starts(job.id) == 2)
        tuned.go(job.id)
        until(ai, job.id, "succeeded")


def test_a_stop_stops_the_run_and_the_next_gateway_goes_on(tuned: Tuned) -> None:
    gateway = tuned("wait")
    with client(gateway) as ai:
        job = create(ai)
        until(ai, job.id, "running")
        waits((tuned.jobs / job.id / "starts").exists)
    pid = tuned.pid(job.id)
    assert gateway.stop() == 0
    assert not is_alive(pid)
    with client(tuned("wait")) as ai:
        waits(lambda: tuned.starts(job.id) == 2)
        tuned.go(job.id)
        until(ai, job.id, "succeeded")


def test_tenants_see_only_their_own(tuned: Tuned) -> None:
    gateway = tuned("wait", keys=KEYS, KEY_A="sk-a", KEY_B="sk-b")
    with client(gateway, "sk-a") as a, client(gateway, "sk-b") as b:
        file = upload(a)
        job = create(a, training_file=file)
        with pytest.raises(openai.BadRequestError, match="no file is called"):
            create(b, training_file=file)
        assert list(b.fine_tuning.jobs.list()) == []
        jobs = b.fine_tuning.jobs
        for not_theirs in (
            jobs.retrieve,
            jobs.cancel,
            jobs.pause,
            jobs.resume,
            jobs.list_events,
            jobs.checkpoints.list,
        ):
            with pytest.raises(openai.NotFoundError):
                not_theirs(job.id)
        with pytest.raises(openai.BadRequestError, match="still needs this file"):
            a.files.delete(file)
        assert a.fine_tuning.jobs.cancel(job.id).organization_id == "a"
        a.files.delete(file)


def test_a_tenant_has_so_many_jobs_in_the_line(tuned: Tuned) -> None:
    with client(tuned("wait", more="max_waiting = 2")) as ai:
        first, _ = create(ai), create(ai)
        with pytest.raises(openai.RateLimitError):
            create(ai)
        ai.fine_tuning.jobs.cancel(first.id)
        create(ai)


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"model": "ocean"}, "model"),
    ({"training_file": "file-x"}, "training_file"),
    ({"validation_file": "file-x"}, "validation_file"),
    ({"method": {"type": "dpo"}}, "method.type"),
    ({"method": {"type": "supervised", "supervised": []}}, "method.supervised"),
    ({"suffix": "../x"}, "suffix"),
    ({"seed": -1}, "seed"),
    ({"metadata": {"n": 1}}, "metadata"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
    ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs"),
    ({"hyperparameters": {"batch_size": 1.5}}, "hyperparameters.batch_size"),
    ({"hyperparameters": {"lr": 1}}, "hyperparameters.lr"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
)


def test_what_is_wrong_is_named(tuned: Tuned) -> None:
    with client(tuned()) as ai:
        training = upload(ai)
        with pytest.raises(openai.BadRequestError, match="another file"):
            create(ai, training_file=training, validation_file=training)
        for more, param in WRONG:
            asked: Any = {"model": "writer", "training_file": training, **more}
            with pytest.raises(openai.BadRequestError) as caught:
                ai.fine_tuning.jobs.create(**asked)
            assert caught.value.param == param
        assert list(ai.fine_tuning.jobs.list()) == []


def test_several_workers_run_a_job_once(tuned: Tuned) -> None:
    with client(tuned(workers=2)) as ai:
        jobs = [create(ai) for _ in range(2)]
        assert [until(ai, job.id, "succeeded").status for job in jobs] == ["succeeded"] * 2
        assert [tuned.starts(job.id) for job in jobs] == [1, 1]


def test_lists_of_jobs(tuned: Tuned) -> None:
    with client(tuned("wait")) as ai:
        names = [create(ai, metadata={"team": team}).id for team in "aba"]
        assert [each.id for each in ai.fine_tuning.jobs.list(metadata={"team": "a"}, limit=1)] == [names[2], names[0]]
        with pytest.raises(openai.BadRequestError):
            ai.fine_tuning.jobs.list(after="ftjob-x")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("/srv/well/jobs/ftjob-1/recipe.toml:3: train.loss: no such loss", "recipe.toml:3: train.loss: no such loss"),
        ("'/srv/well/a.jsonl' cannot be read (/var/x/)", "'a.jsonl' cannot be read ()"),
        ("http://127.0.0.1:9/v1/chat does not answer", "http://127.0.0.1:9/v1/chat does not answer"),
        ("file=/etc/a/b, 3/4 of models/a/b", "file=b, 3/4 of models/a/b"),
    ],
)
def test_a_tenant_is_told_no_folder_of_the_server(said: str, told: str) -> None:
    assert without_folders(said) == told


def test_a_job_of_too_many_steps_is_refused(tuned: Tuned) -> None:
    with client(tuned(more="max_steps = 20")) as ai:
        with pytest.raises(openai.BadRequestError, match=r"comes to .* steps, and 20 is the most") as caught:
            create(ai, hyperparameters={"n_epochs": 50})
        assert caught.value.param == "hyperparameters.n_epochs"
        assert list(ai.fine_tuning.jobs.list()) == []
        until(ai, create(ai, hyperparameters={"n_epochs": 1}).id, "succeeded")


def test_a_recipe_that_is_not_there_is_told_at_the_start(tuned: Tuned) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"fine_tuning.*there is no recipe 'nowhere.toml'"):
        tuned.serve(SCRIPTED + '[fine_tuning]\nmodels = { writer = "nowhere.toml" }\n', name="second")


def test_settings_become_those_of_the_recipe() -> None:
    wanted = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 2}
    told = recipe.plan({"rate": 1e-3}, wanted, num_rows=100, num_bytes=100 * 40)
    assert told == {"rate": 2e-3, "batch_tokens": 80, "steps": 38}
    assert recipe.plan({}, {"n_epochs": "auto"}, num_rows=1, num_bytes=1) == {}


TREES = st.recursive(
    st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), TREES, max_size=4))
def test_a_recipe_reads_as_it_was_written(tree: dict[str, Any]) -> None:
    assert tomllib.loads(recipe.written(tree)) == tree


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # one that has ended, and whose parent has not looked yet
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
