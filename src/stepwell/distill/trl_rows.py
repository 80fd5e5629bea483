"""Rows as TRL takes them, with the token ids that they have here and at serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from stepwell.distill.chat import Words
from stepwell.distill.data import Example
from stepwell.errors import DistillError

IGNORED = -100
"""The label of a token that is not learned."""


def texts(words: Words, examples: Sequence[Example]) -> Dataset:
    """input_ids and labels: the prompt is read, the text and its end are learned."""
    rows = []
    for example in examples:
        prompt, text = words.prompt_ids(example.prompt), words.text_ids(example.completion)
        rows.append({"input_ids": prompt + text, "labels": [IGNORED] * len(prompt) + text})
    return Dataset.from_list(rows)


def prompts(words: Words, tokenizer: Any, examples: Sequence[Example]) -> Dataset:  # noqa: ANN401 - transformers' own
    """The column `prompt`, as conversations. Raises DistillError where TRL would read one otherwise."""
    asked = list(dict.fromkeys(example.prompt for example in examples))
    turns = [[{"role": "user", "content": prompt}] for prompt in asked]
    read = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
    for prompt, ids in zip(asked, read["input_ids"], strict=True):
        if list(ids) != words.prompt_ids(prompt):
            what = f"TRL reads this prompt otherwise than it is served, a special token's name in it? {prompt[:80]!r}"
            raise DistillError(f"{what}; take the row out")
    return Dataset.from_list([{"prompt": turn} for turn in turns])


def mean_tokens(words: Words, examples: Sequence[Example], most: int = 1_000) -> float:
    """Tokens of a row, prompt and text, over the first so many."""
    part = examples[:most]
    return sum(len(words.prompt_ids(row.prompt)) + len(words.text_ids(row.completion)) for row in part) / len(part)


class Pairs:
    """Batches for GKDTrainer: rows padded behind, their prompts padded before."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Five tensors (rows, tokens)."""
        asked = [row["input_ids"][: row["labels"].count(IGNORED)] for row in rows]
        return {
            "input_ids": side_by_side([row["input_ids"] for row in rows], self.pad),
            "attention_mask": side_by_side([[1] * len(row["input_ids"]) for row in rows], 0),
            "labels": side_by_side([row["labels"] for row in rows], IGNORED),
            "prompts": side_by_side(asked, self.pad, before=True),
            "prompt_attention_mask": side_by_side([[1] * len(ids) for ids in asked], 0, before=True),
        }


def side_by_side(rows: Sequence[list[int]], fill: int, *, before: bool = False) -> Tensor:
    """Lists of different lengths as one tensor."""
    longest = max(map(len, rows))
    gaps = [[fill] * (longest - len(row)) for row in rows]
    return torch.tensor([gap + row if before else row + gap for row, gap in zip(rows, gaps, strict=True)])
