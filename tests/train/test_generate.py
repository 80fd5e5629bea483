"""Batches with kept keys and values write what one text after another, read anew for each token, would be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from folders import KINDS, write_model, write_words

from stepwell.distill import student
from stepwell.distill.generate import generate, generate_ids, picked
from stepwell.distill.plan import StudentSection
from stepwell.errors import DistillError

pytestmark = [pytest.mark.timeout(400), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PROMPTS = ["one", "another, longer prompt", "three", "a prompt that is longer than all the others, by far"]


@torch.no_grad()
def naive(model: student.Model, prompt: list[int], most: int) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + most:
        ids.append(int(model.logits(model.hidden(torch.tensor([ids]))[0])[-1].argmax()))
        if ids[-1] in model.words.ends:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_texts_are_those_of_one_token_after_another(tmp_path: Path, kind: str) -> None:
    model = student.load(write_model(tmp_path, kind))
    prompts = [model.prompt_ids(prompt) for prompt in PROMPTS]
    expected = [naive(model, prompt, 24) for prompt in prompts]
    assert [texts[0] for texts in generate_ids(model, prompts, max_tokens=24)] == expected
    assert [texts[0] for texts in generate_ids(model, prompts, max_tokens=24, batch=2)] == expected


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_rows_that_ended_are_left_out_and_the_others_go_on(tmp_path: Path, kind: str) -> None:
    model = student.load(write_model(tmp_path, kind))
    prompts = [model.prompt_ids(f"prompt {number}") for number in range(12)]
    said = [naive(model, prompt, 16) for prompt in prompts]
    lengths = {token: {(*text, token).index(token) for text in said} for text in said for token in text}
    varied = max(lengths, key=lambda token: len(lengths[token]))  # some texts end early, others late or never
    object.__setattr__(model.words, "ends", frozenset({varied}))
    expected = [naive(model, prompt, 16) for prompt in prompts]
    assert len({len(text) for text in expected}) > 2
    assert [texts[0] for texts in generate_ids(model, prompts, max_tokens=16)] == expected


def test_several_texts_a_prompt_are_drawn_the_same_for_the_same_seed(tmp_path: Path) -> None:
    model = student.load(write_model(tmp_path, "llama"))
    drawn = [generate(model, PROMPTS, num=3, temperature=1.0, max_tokens=8, seed=seed) for seed in (1, 1, 2)]
    assert [len(texts) for texts in drawn[0]] == [3] * len(PROMPTS)
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0][0])) > 1


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(20_000, 4)
    chance = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    found = torch.bincount(picked(logits, 0.5, chance), minlength=4) / 20_000
    assert torch.allclose(found, torch.softmax(logits[0] / 0.5, -1), atol=0.01)
    assert int(picked(torch.tensor([[0.0, -torch.inf]]), 1.0, torch.tensor([1.0 - 1e-7]))) == 0


def test_bfloat16_writes_too(tmp_path: Path) -> None:
    model = student.load(write_model(tmp_path, "llama"), dtype=torch.bfloat16)
    assert generate(model, PROMPTS, max_tokens=8) == generate(model, PROMPTS, max_tokens=8)


def test_the_context_is_not_passed(tmp_path: Path) -> None:
    section = StudentSection(hidden=32, layers=1, heads=2, kv_heads=1, inner=32, context=12)
    model = student.create(section, write_words(tmp_path))
    texts = generate_ids(model, [[1, 5, 6, 7]], max_tokens=50, temperature=1.0)
    assert len(texts[0][0]) <= 8
    with pytest.raises(DistillError, match="leaves no room in a context of 12"):
        generate_ids(model, [[5] * 12])


def test_names_of_special_tokens_in_a_prompt_are_letters(tmp_path: Path) -> None:
    model = student.load(write_model(tmp_path, "llama"))
    ids = model.prompt_ids("an </s> end and <sep>")
    assert ids.count(model.tokenizer.token_to_id("</s>")) == 0
    assert ids.count(model.tokenizer.token_to_id("<sep>")) == 1
    assert model.tokenizer.decode(ids) == "an </s> end and <sep>"
    assert model.text_ids("</s>")[-1] == 3
    assert model.text_ids("</s>").count(3) == 1
