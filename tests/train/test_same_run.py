"""What a run goes on with must be what it began with: the weights it starts from, its teacher, the teacher's texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import new, plan, rows

from stepwell.distill import sparse, student, train
from stepwell.distill.plan import StudentSection
from stepwell.distill.teaching import Lessons
from stepwell.errors import DistillError


def saved(folder: Path, seed: int) -> Path:
    return student.save(new(folder.with_name("words"), seed), folder, {})


def test_adapters_do_not_go_on_beside_other_weights(tmp_path: Path) -> None:
    for seed in (1, 2):
        saved(tmp_path / f"base-{seed}", seed)

    def adapted(seed: int, scale: float = 2.0) -> student.Model:
        section = StudentSection(folder=str(tmp_path / f"base-{seed}"), lora=2, lora_scale=scale)
        return student.create(section, tmp_path / "words")

    train.train(plan(steps=4), adapted(1), rows(6), tmp_path / "run")
    for other in (adapted(2), adapted(1, scale=1.0)):
        with pytest.raises(DistillError, match="holds a run of another plan, student or data"):
            train.train(plan(steps=8), other, rows(6), tmp_path / "run")
    assert train.train(plan(steps=8), adapted(1), rows(6), tmp_path / "run").steps == 8


def test_another_teacher_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    one, other = (student.load(saved(tmp_path / f"teacher-{seed}", seed)) for seed in (1, 2))
    train.train(plan(steps=4, loss="fkl"), new(tmp_path / "words"), rows(6), tmp_path / "run", teacher=one)
    with pytest.raises(DistillError, match="or of another teacher"):
        train.train(plan(steps=8, loss="fkl"), new(tmp_path / "words"), rows(6), tmp_path / "run", teacher=other)


def test_texts_of_another_teacher_or_of_other_prompts_are_not_learned(tmp_path: Path) -> None:
    teachers = [student.load(saved(tmp_path / f"teacher-{seed}", seed)) for seed in (1, 2)]
    settings = plan(steps=1, loss="seq", max_tokens=4)
    for teacher, learn in ((teachers[0], rows(4)), (teachers[1], rows(4)), (teachers[1], rows(6))):
        (tmp_path / "run" / "checkpoint.safetensors").unlink(missing_ok=True)  # as killed before the first one
        train.train(settings, new(tmp_path / "words"), learn, tmp_path / "run", teacher=teacher)
    assert len(list((tmp_path / "run").glob("texts-*.jsonl"))) == 3


def test_another_teachers_stored_probabilities_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    def stored(odds: float) -> sparse.SparseRows:
        model = new(tmp_path / "words")
        size = model.tokenizer.get_vocab_size()
        labels = []
        for row in rows(6):
            ids = np.array(model.text_ids(row.completion))
            logp = np.full((len(ids), size), np.log((1 - odds) / (size - 1)), np.float32)
            logp[np.arange(len(ids)), ids] = np.log(odds)
            labels.append((row.id, sparse.top(ids, logp, cover=0.99, most=4)))
        sparse.write(tmp_path / "all.sparse", labels, tokenizer_hash=model.tokenizer_hash, vocabulary=size)
        return sparse.SparseRows.open(tmp_path / "all.sparse", model.tokenizer_hash)

    def go(steps: int, odds: float) -> int:
        settings = plan(steps=steps, loss="topk+rest")
        return train.train(settings, new(tmp_path / "words"), rows(6), tmp_path / "run", sparse=stored(odds)).steps

    assert go(4, 0.9) == 4
    with pytest.raises(DistillError, match="or of another teacher"):
        go(8, 0.6)
    assert go(8, 0.9) == 8


def test_a_teachers_texts_keep_the_weights_and_names_of_their_rows(tmp_path: Path) -> None:
    teacher = student.load(saved(tmp_path / "teacher", 1))
    pupil = new(tmp_path / "words")
    lessons = Lessons(plan(loss="seq", max_tokens=4), pupil, tmp_path, torch.float32, teacher=teacher, sparse=None)
    learn = [row._replace(weight=0.5 + at) for at, row in enumerate(rows(2))]
    written = lessons.written(learn)
    assert not callable(written)
    assert [(each.prompt, each.id, each.weight) for each in written] == [
        (learn[0].prompt, "a0", 1.5),
        (learn[2].prompt, "a1", 3.5),
    ]
