"""Examples become tensors: texts of one prompt behind one copy of it, rows of about equal length in a batch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stepwell.distill.data import Example
from stepwell.distill.losses import Sparse
from stepwell.distill.sparse import SparseRows, TopK
from stepwell.distill.student import Model
from stepwell.errors import DistillError

BUCKET = 50
"""So many batches are sorted by length together: little is padded, and the order stays random."""
MOST_PARTS = 16
"""A batch is cut into at most so many parts."""


class Text(NamedTuple):
    """A text to learn, as token ids with its end."""

    ids: list[int]
    weight: float
    id: str


class Row(NamedTuple):
    """A prompt and the texts behind it, none of which sees another."""

    prompt: list[int]
    texts: tuple[Text, ...]
    asked: str
    """The prompt as it was written."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the row as laid out."""
        return len(self.prompt) + sum(len(text.ids) - 1 for text in self.texts)


class Batch(NamedTuple):
    """Rows side by side."""

    ids: Tensor
    places: Tensor | None
    mask: Tensor | None
    sources: Tensor
    """Index (row x tokens, flat) of the hidden state that foretells each target."""
    targets: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(*(None if part is None else part.to(device) for part in self))


class Group(NamedTuple):
    """A prompt and all its texts."""

    prompt: list[int]
    texts: list[Text]
    asked: str


def groups_of(model: Model, examples: Sequence[Example]) -> list[Group]:
    """Token ids of examples, once for all epochs. Raises DistillError, with the example, where one does not fit."""
    groups: dict[str, Group] = {}
    for example in examples:
        if example.prompt not in groups:
            groups[example.prompt] = Group(model.prompt_ids(example.prompt), [], example.prompt)
        group = groups[example.prompt]
        if example.weight <= 0:
            raise DistillError(f"the weight {example.weight} is not above 0: {example.prompt[:80]!r}; drop the row")
        text = Text(model.text_ids(example.completion), example.weight, example.id)
        group.texts.append(text)
        num = len(group.prompt) + len(text.ids)
        if model.context and num > model.context:
            told = f"{num} tokens do not fit the model's {model.context}: {example.prompt[:80]!r}"
            raise DistillError(f"{told}; drop the row (synth filters lengths) or take a longer context")
    return list(groups.values())


def rows_of(groups: Sequence[Group], together: int, chance: random.Random) -> list[Row]:
    """Rows of one epoch: the texts of a prompt in any order, so many of them side by side."""
    rows = []
    for group in groups:
        texts = chance.sample(group.texts, len(group.texts))
        rows += [
            Row(group.prompt, tuple(texts[at : at + together]), group.asked) for at in range(0, len(texts), together)
        ]
    return rows


def in_batches(rows: Sequence[Row], batch_tokens: int, chance: random.Random) -> list[list[Row]]:
    """Rows in batches of at most so many tokens as laid out, by length; the batches come in any order."""
    order = list(range(len(rows)))
    chance.shuffle(order)
    mean = sum(row.num_tokens for row in rows) / len(rows)
    bucket = max(1, round(BUCKET * batch_tokens / mean))
    batches: list[list[Row]] = []
    for start in range(0, len(order), bucket):
        batch: list[Row] = []
        for index in sorted(order[start : start + bucket], key=lambda index: rows[index].num_tokens):
            if batch and (len(batch) + 1) * rows[index].num_tokens > batch_tokens:
                batches.append(batch)
                batch = []
            batch.append(rows[index])
        batches.append(batch)
    chance.shuffle(batches)
    return batches


def of_like_length(rows: Sequence[Row], spare: int) -> list[list[Row]]:
    """Rows in parts of like length, so cut that each cut leaves out at least so many tokens of padding.

    Texts that a student draws are as long as they come: padded to the longest, a third of a batch would be padding.
    """
    order = sorted(rows, key=lambda row: row.num_tokens)
    places = [round(at * len(order) / MOST_PARTS) for at in range(MOST_PARTS + 1)]
    cuts = sorted(set(places))
    least: dict[int, tuple[int, list[int]]] = {0: (0, [])}
    for end in cuts[1:]:
        wide = order[end - 1].num_tokens
        least[end] = min(
            (least[start][0] + (end - start) * wide + spare, [*least[start][1], start]) for start in cuts if start < end
        )
    begins = least[len(order)][1]
    return [order[start:end] for start, end in zip(begins, [*begins[1:], len(order)], strict=True)]


def laid_out(rows: Sequence[Row], *, packs: bool, divisor: float = 1.0, pad: int = 0) -> Batch:
    """One batch of rows; each token weighs its text's weight / divisor."""
    longest = max(row.num_tokens for row in rows)
    ids = torch.full((len(rows), longest), pad)
    places = torch.zeros(len(rows), longest, dtype=torch.long)
    part = torch.full((len(rows), longest), -1)
    sources, targets, weights = [], [], []
    for at, row in enumerate(rows):
        base, end = at * longest, len(row.prompt)
        line, spots, owner = list(row.prompt), list(range(end)), [0] * end
        for number, text in enumerate(row.texts, 1):
            size = len(text.ids) - 1
            line += text.ids[:-1]
            spots += range(end, end + size)
            owner += [number] * size
            begin = base + len(line) - size
            sources += [base + end - 1, *range(begin, begin + size)]
            targets += text.ids
            weights += [text.weight / divisor] * (size + 1)
        filled = len(line)
        ids[at, :filled], places[at, :filled] = torch.tensor(line), torch.tensor(spots)
        part[at, :filled] = torch.tensor(owner)
    told = torch.tensor(sources), torch.tensor(targets), torch.tensor(weights)
    if max(len(row.texts) for row in rows) == 1:  # nobody looks forward, so what is padded behind is never seen
        return Batch(ids, None, None if packs else part >= 0, *told)
    seen = (part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])
    mask = seen & torch.ones(longest, longest, dtype=torch.bool).tril()
    return Batch(ids, places, mask[:, None], *told)


def weight_of(rows: Sequence[Row]) -> float:
    """What the tokens of rows weigh together."""
    return sum(text.weight * len(text.ids) for row in rows for text in row.texts)


def stored(rows: Sequence[Row], sparse: SparseRows, device: torch.device) -> Sparse:
    """The teacher's stored probabilities of a batch's targets. Raises DistillError where they are of other tokens."""
    found = [(text, sparse.get(text.id)) for row in rows for text in row.texts]
    width = max((kept.ids.shape[1] for _, kept in found if kept is not None), default=1)
    num = sum(len(text.ids) for text, _ in found)
    ids, p = torch.zeros(num, width, dtype=torch.long), torch.zeros(num, width)
    rest, known = torch.zeros(num), torch.zeros(num, dtype=torch.bool)
    at = 0
    for text, kept in found:
        where = slice(at, at + len(text.ids))
        at = where.stop
        if kept is None:
            continue
        check_tokens(text, kept)
        size = kept.ids.shape[1]
        ids[where, :size] = torch.from_numpy(kept.ids.astype("int64"))
        p[where, :size] = torch.from_numpy(kept.logp)
        rest[where] = torch.from_numpy(kept.rest_logp)
        p[where, size:] = -torch.inf
        known[where] = True
    p, rest = torch.where(known[:, None], p.exp(), 0.0), torch.where(known, rest.exp(), 0.0)
    return Sparse(ids.to(device), p.to(device), rest.to(device), known.to(device))


def check_tokens(text: Text, kept: TopK) -> None:
    """Raise DistillError where stored probabilities belong to another text."""
    if kept.token_ids.tolist() != text.ids:
        raise DistillError(f"the teacher's probabilities of row {text.id!r} are of another text; let it label anew")
