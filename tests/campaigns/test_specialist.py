"""A specialist's recipe before anything is trained: what is held out, what is refused, what it costs, what the card says."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bench.templates.teacher import completion, teaching
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT, WRITER
from stepwell.campaigns import (
    card,
    cost,
    specialist,
    specialist_gate,
    specialist_rows,
    specialist_teach,
    specialist_train,
)
from stepwell.campaigns.cost import Cost
from stepwell.campaigns.run import Folders, Stage, run
from stepwell.campaigns.served import Served, served
from stepwell.campaigns.specialist_file import load
from stepwell.campaigns.specialist_job import FILTER, GATE, QUANTIZE, SPLIT, TEACH, Allowed, Job
from stepwell.demo.city import questions
from stepwell.errors import ConfigError, DistillError
from stepwell.quality.verify import verifier
from stepwell.signing import new_key
from stepwell.store import tables
from stepwell.synth import row
from stepwell.synth.run import ROWS
from stepwell.types import Usage

CITY = ROOT / "recipes" / "city-guide-student.toml"
PROMPTS = questions(20, 3)
TEACHER = f'[teacher]\npath = "{ROOT / "models" / "house-writer"}"\n'


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_SIGNING_KEY", b64encode(new_key().private.private_bytes_raw()).decode())


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def captured(folder: Path, prompts: list[str] = PROMPTS) -> Path:
    rows = [
        row.made(
            prompt,
            f"About {prompt}.",
            source="captured",
            licence="own",
            generator="house-writer",
            generator_rev="1",
            params={"step": "large"},
        )
        for prompt in prompts
    ]
    row.write(folder / "captured" / "rows.jsonl", rows)
    return folder / "captured"


def rows_of(path: Path, **allowed: Any) -> dict[str, Path]:
    job = Job(load(path), path.parent / "root", Allowed(**allowed))
    return dict(run(specialist_rows.stages(job), job.root))


# --- the file


def test_the_recipes_that_ship_are_right() -> None:
    for path in (CITY, ROOT / "recipes" / "house-student.toml"):
        recipe = load(path)
        assert recipe.file.gate is not None
        assert recipe.words() == recipe.path("models/house-writer")
    assert load(CITY).name == "city-guide-student"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[student]\nhiden = 3", "recipe.toml:2: student.hiden: unknown key; did you mean 'hidden'?"),
        ("[student]\nhidden = 32", "train.data: nothing to learn from"),
        ('[train]\ndata = "rows.jsonl"\nloss = "topk+rest"', "recipe.toml:3: train.loss: the loss 'topk+rest' needs a [teacher]"),
        ('[train]\ndata = "rows.jsonl"\n[teacher]\nmodel = "x"', "name a teacher"),
        ("[synth]\nseed = 1", "recipe.toml:1: synth: no source"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_by_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a recipe"):
        load(tmp_path / "none.toml")


def test_rows_that_would_be_ignored_are_told(tmp_path: Path) -> None:
    captured(tmp_path)
    synth = '[synth]\nlicence = "own"\n[synth.captured]\npaths = ["captured"]\n'
    job = Job(load(written(tmp_path, f'{synth}[train]\ndata = "rows.jsonl"\n')), tmp_path / "root")
    with pytest.raises(ConfigError, match=r"recipe\.toml:6: train\.data: .*\[synth\.seeds\], or take one out"):
        specialist_rows.stages(job)


def test_without_captured_traffic_it_says_what_to_do_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(load(CITY), tmp_path / "root")
    with pytest.raises(DistillError, match="stepwell demo"):
        specialist_rows.stages(job)


def test_a_teacher_whose_terms_restrict_training_needs_a_word(tmp_path: Path) -> None:
    tables.write(tmp_path / "rows.jsonl", [{"prompt": "Hello?", "completion": "Hello."}])
    text = '[train]\ndata = "rows.jsonl"\n[student]\ntokenizer = "{}"\n[teacher]\nurl = "https://api.openai.com/v1"\nmodel = "gpt-4o"\n'
    path = written(tmp_path, text.format(ROOT / "models" / "house-writer"))
    with pytest.raises(DistillError, match="--i-may"):
        specialist.stages(Job(load(path), tmp_path / "root"))
    assert specialist.stages(Job(load(path), tmp_path / "root", Allowed(i_may=True)))


def test_a_teacher_of_other_tokens_is_told_before_the_work(tmp_path: Path) -> None:
    tables.write(tmp_path / "rows.jsonl", [{"prompt": "Hello?", "completion": "Hello."}])
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text("{}")
    text = (
        f'[train]\ndata = "rows.jsonl"\nloss = "topk+rest"\n[student]\ntokenizer = "words"\n{TEACHER}give = "logits"\n'
    )
    with pytest.raises(DistillError, match="is not the teacher's"):
        specialist.stages(Job(load(written(tmp_path, text)), tmp_path / "root"))
    path = written(tmp_path, text.replace("[student]", 'fallback = "text"\n[student]'))
    assert specialist_train.plan_of(Job(load(path), tmp_path / "root")).loss == "ce"


# --- rows


def test_what_is_held_out_is_never_learned(tmp_path: Path) -> None:
    captured(tmp_path)
    path = written(
        tmp_path,
        '[synth]\nlicence = "own"\nreal_floor = 0\n[synth.captured]\npaths = ["captured"]\n[synth.recombined]\nrows = 40\n'
        f"[split]\nheld_out = 0.4\n[gate]\n{TEACHER}",
    )
    folders = rows_of(path)
    held = {each.prompt for each in row.read(folders[SPLIT] / specialist_rows.HELD_OUT)}
    learned = list(row.read(folders[FILTER] / ROWS))
    assert 0.2 * len(PROMPTS) < len(held) < 0.6 * len(PROMPTS)
    assert held.isdisjoint(each.prompt for each in learned)
    assert {each.source for each in learned} == {"captured", "recombined"}
    shutil.rmtree(tmp_path / "root")
    assert rows_of(path) == folders  # the same name: the same was chosen
    assert {each.prompt for each in row.read(folders[SPLIT] / specialist_rows.HELD_OUT)} == held


def test_rows_of_a_file_are_taken_as_they_are(tmp_path: Path) -> None:
    talks = [
        {"messages": [{"role": "user", "content": f"What is {a} + {a}?"}, {"role": "assistant", "content": f"{2 * a}"}]}
        for a in range(20)
    ]
    tables.write(tmp_path / "rows.jsonl", [*talks, talks[0]])
    folders = rows_of(written(tmp_path, '[train]\ndata = "rows.jsonl"\n'))
    found = [(each.prompt, each.completion) for each in row.read(folders[FILTER] / ROWS)]
    assert found == [(f"What is {a} + {a}?", f"{2 * a}") for a in range(20)]


def test_a_held_out_row_in_the_training_data_is_refused() -> None:
    held = [row.made("name[The Mill], food[French]", "", source="human", licence="own")]
    again = [row.made("food[French], name[The Mill]", "It is French.", source="human", licence="own")]
    with pytest.raises(DistillError, match="the facts of a held-out prompt"):
        specialist_train.check_leaks(again, held)
    other = [row.made("name[The Mill], food[Indian]", "It is Indian.", source="human", licence="own")]
    specialist_train.check_leaks(other, held)


def test_rows_without_an_answer_are_told(tmp_path: Path) -> None:
    tables.write(tmp_path / "rows.jsonl", [{"prompt": "Hello?"}])
    folders = rows_of(written(tmp_path, '[train]\ndata = "rows.jsonl"\n'))
    with pytest.raises(DistillError, match=r"1 of 1 rows have no completion.*add \[teacher\]"):
        specialist_train.learned_rows(folders)


def test_a_changed_function_of_ones_own_is_another_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    captured(tmp_path)
    module = tmp_path / "my_rights.py"
    verify = 'verify = "my_rights:right"\n'
    synth = (
        f'[synth]\nlicence = "own"\nreal_floor = 0\n[synth.captured]\npaths = ["captured"]\n[synth.filters]\n{verify}'
    )
    student = f'[student]\ntokenizer = "{WRITER.parent}"\n'
    text = f'{synth}{student}{TEACHER}verifier = "my_rights:right"\n[gate]\n{verify}'

    def inputs() -> dict[str, bytes]:
        job = Job(load(written(tmp_path, text)), tmp_path / "root")
        return {stage.name: stage.inputs for stage in specialist.stages(job)}

    module.write_text("def right(prompt, text):\n    return True\n")
    before = inputs()
    assert inputs() == before
    module.write_text("def right(prompt, text):\n    return False\n")
    after = inputs()
    assert {name for name in after if after[name] != before[name]} == {FILTER, TEACH, GATE}


# --- the gate


def gated(tmp_path: Path, answer: Callable[[str], str], more: str = "") -> specialist.Report:
    """The verdict on the house writer's file, held against a teacher that answers so."""
    return verdict(*judging(tmp_path, answer, more))


def verdict(job: Job, stages: list[Stage]) -> specialist.Report:
    """What the gate, the last stage, says."""
    run(stages, job.root)
    (folder,) = job.root.glob("4-gate-*")
    return specialist.specialist_card.report(folder)


def judging(tmp_path: Path, answer: Callable[[str], str], more: str = "") -> tuple[Job, list[Stage]]:
    """The gate, and what stands before it."""
    rows = [row.made(prompt, answer(prompt), source="captured", licence="own") for prompt in PROMPTS]
    before = {name: tmp_path / name for name in (SPLIT, FILTER, QUANTIZE)}
    row.write(before[SPLIT] / specialist_rows.HELD_OUT, rows)
    row.write(before[FILTER] / ROWS, [row.made("name[The Mill]", "The Mill.", source="human", licence="own")])
    before[QUANTIZE].mkdir()
    shutil.copyfile(WRITER, before[QUANTIZE] / "model.gguf")
    text = (
        f'[train]\ndata = "rows.jsonl"\nmax_tokens = 96\n[gate]\nmargin = 0.1\ndiscordance = 0.02\npower = 0.8\n{more}'
    )
    job = Job(load(written(tmp_path, text)), tmp_path / "root")
    assert job.recipe.file.gate is not None
    specialist_gate.seal(job, job.recipe.file.gate)
    stages = [Stage(name, b"", copying(folder)) for name, folder in before.items()]
    return job, [*stages, specialist_gate.stage(job, job.recipe.file.gate)]


def copying(folder: Path) -> Callable[[Folders, Path], None]:
    return lambda _, out: (shutil.copytree(folder, out, dirs_exist_ok=True), None)[1]


def test_the_gate_judges_the_file_that_will_serve(tmp_path: Path) -> None:
    report = gated(tmp_path, lambda _: "This says nothing.")
    (finding,) = report.findings
    assert report.decision == "promote"
    assert finding.student > 0.95
    assert finding.teacher == 0.0
    assert (tmp_path / "root" / "gate" / "verdict.json").exists()


def test_the_gate_refuses_what_is_worse(tmp_path: Path) -> None:
    facts = "name[The Mill]"
    says = 'verify = "test_specialist:lenient"\n'
    assert lenient(facts, "well said") == []
    report = gated(tmp_path, lambda _: "well said", says)
    assert report.decision == "refuse"
    assert report.findings[0].student == 0.0


def test_killed_while_it_judges_it_goes_on_with_the_answers_that_it_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, asked = specialist_gate.room.gate, specialist_gate.served
    times: list[str] = []

    def killed(*given: Any, **more: Any) -> None:
        judge(*given, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(specialist_gate.room, "gate", killed)
    job, stages = judging(tmp_path, lambda _: "This says nothing.")
    with pytest.raises(KeyboardInterrupt):
        run(stages, job.root)
    monkeypatch.setattr(specialist_gate.room, "gate", judge)
    monkeypatch.setattr(
        specialist_gate, "served", lambda *given, **more: times.append("again") or asked(*given, **more)
    )
    assert verdict(job, stages).decision == "promote"
    assert times == [], "other answers on the same pairs would be another try"


def test_a_teacher_is_not_its_own_reference() -> None:
    said = {"The Mill": ("By people.", "By others, too."), "The Eagle": ("Only this.",)}
    real = [
        row.made(f"name[{name}]", text, source="human", licence="own") for name, texts in said.items() for text in texts
    ]
    answers = Served(["student 1", "student 2"], 0.0, Usage(0, 0))
    taught = [msgspec.structs.replace(real[0], completion="By the teacher."), real[2]]
    pairs = {pair.prompt: pair for pair in specialist_gate.pairs_of(taught, real, answers)}
    assert pairs["name[The Mill]"].teacher == "By the teacher."
    assert pairs["name[The Mill]"].references == said["The Mill"]
    assert pairs["name[The Eagle]"].references == (), "its one text stands for the teacher"


def test_what_the_teacher_refused_is_judged_too(tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        asked = body["messages"][-1]["content"]
        refused = "The Mill" in asked
        message = {"role": "assistant", "content": "I'm sorry, but I can't help with that." if refused else "Yes."}
        return completion(body, {"index": 0, "finish_reason": "stop", "message": message}, {})

    asked = ["name[The Mill]", "name[The Fox]", "name[The Boat]"]
    held = [row.made(prompt, "", source="human", licence="own") for prompt in asked]
    learned = [row.made("name[The Lamp]", "It is.", source="human", licence="own")]
    before = {SPLIT: tmp_path / SPLIT, FILTER: tmp_path / FILTER}
    row.write(before[SPLIT] / specialist_rows.HELD_OUT, held)
    row.write(before[FILTER] / ROWS, learned)
    with teaching(say=say) as teacher:
        section = f'[teacher]\nurl = "{teacher.url}"\nmodel = "mock"\nprice = "free"\n'
        job = Job(load(written(tmp_path, f'[train]\ndata = "rows.jsonl"\n{section}')), tmp_path / "root")
        assert job.recipe.file.teacher is not None
        (tmp_path / TEACH).mkdir()
        specialist_teach.stage(job, job.recipe.file.teacher).work(before, tmp_path / TEACH)
    judged = list(row.read(tmp_path / TEACH / specialist_teach.JUDGED))
    assert {each.prompt: each.completion for each in judged} == dict(zip(asked, ["", "Yes.", "Yes."], strict=True))
    pairs = specialist_gate.pairs_of(judged, held, Served(["student"] * 3, 0.0, Usage(0, 0)))
    assert [(pair.student, pair.teacher) for pair in pairs if not pair.teacher] == [("student", "")]


def lenient(_prompt: str, text: str) -> list[str]:
    """A verifier that no restaurant's description passes."""
    return [] if text == "well said" else ["not well said"]


def test_a_file_says_what_it_is_asked_in_the_order_of_asking() -> None:
    told: list[int] = []
    done = served(WRITER, PROMPTS[:12], max_tokens=96, watch=told.append)
    verify = verifier("slots")
    assert [verify(prompt, text) for prompt, text in zip(PROMPTS, done.texts, strict=False)] == [[]] * 12
    assert told == list(range(1, 13))
    assert done.answer_cpu_s > 0
    assert done.answer_usage.output_tokens > 10


# --- what it costs


@given(st.floats(0, 1e6), st.floats(0, 1e3), st.floats(1e-6, 1.0), st.floats(0, 0.1))
def test_the_break_even_is_where_the_savings_have_paid(cpu_s: float, usd: float, answer_s: float, large: float) -> None:
    told = cost.economy(Cost(cpu_s=cpu_s, usd=usd), answer_s, large, 0.0446)
    if told.break_even_answers is None:
        assert told.large_answer_usd <= told.answer_usd
    else:
        saved = told.break_even_answers * (told.large_answer_usd - told.answer_usd)
        assert saved >= told.making_usd * (1 - 1e-9)
    assert told.usd_per_1k_answers >= 1000 * told.answer_usd


def test_what_a_stage_took_adds_up_over_its_parts(tmp_path: Path) -> None:
    def cut(_: Folders, out: Path) -> None:
        if not (out / "half").exists():
            (out / "half").touch()
            raise DistillError("cut short")

    stages = [Stage("work", b"", cost.measured(cut), resumes=True)]
    with pytest.raises(DistillError):
        run(stages, tmp_path)
    (part,) = tmp_path.glob(".1-work-*.part")
    first = cost.of(part)
    folders = run(stages, tmp_path)
    assert cost.of(folders["work"]).wall_s > first.wall_s > 0
    assert cost.total(folders.values()) == cost.of(folders["work"])


# --- the card


def made(**changed: Any) -> card.Made:
    data = card.Data(
        sha256="a" * 64, rows=10, dev=2, held_out=5, held_out_sha256="b" * 64,
        sources={"captured": 8, "recombined": 4}, licences={"own": 12}, refused={"verify": 3},
    )  # fmt: skip
    fields: dict[str, Any] = {
        "name": "guide", "about": "Facts in, a sentence out.", "licence": "apache-2.0", "language": "en",
        "stepwell": "0.1.0", "recipe": "[train]\n", "data": data, "teacher": "writer, sha256 c", "parameters": 570_000,
        "training": {"steps": 1000, "loss": "topk+rest", "data": "", "scores": {"loss": 0.5}},
        "file": card.ModelFile("guide.gguf", "d" * 64, 1000), "gate": None, "costs": {"train": Cost(100.0, 60.0)},
        "economy": cost.economy(Cost(100.0), 0.004, 0.00002, 0.0446), "examples": (("name[``` # x]", "Hi\n# there"),),
    }  # fmt: skip
    return card.Made(**fields | changed)


def test_the_card_says_where_it_comes_from() -> None:
    told = card.card(made())
    head, _, rest = told.removeprefix("---\n").partition("\n---\n")
    assert "license: apache-2.0" in head.splitlines()
    for each in ("570,000 parameters", "| source: captured | 8 |", "| refused: verify | 3 |", "| loss | topk+rest |",
                 "after 63 answers", "writer, sha256 c", "Not judged"):  # fmt: skip
        assert each in rest, each
    assert "\n# there" not in rest  # what a model said makes no heading
    back = json.loads(card.provenance(made()))
    assert msgspec.convert(back, card.Made) == made()


def test_the_card_says_when_it_never_pays() -> None:
    assert "It never pays" in card.card(made(economy=cost.economy(Cost(1.0), 1.0, 0.0, 0.0446)))
