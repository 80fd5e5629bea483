"""What verification looks at, one comparison a function: figures with their limits, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import Struct
from tokenizers import Tokenizer
from torch import Tensor

from stepwell.errors import DistillError
from stepwell.quantize import engine
from stepwell.quantize.calibrate import side_by_side
from stepwell.quantize.divergence import diverged, said
from stepwell.quantize.engine import Text, Told
from stepwell.quantize.grids import Coded
from stepwell.quantize.network import MATRIX, Network, swapped
from stepwell.quantize.readback import Held
from stepwell.quantize.weights import Floats, read
from stepwell.quantize.words import template_of

NEAR = {
    "F32": 5e-3,  # the folder's own may have 16 bits
    "F16": 5e-3,
    "BF16": 5e-3,
    "Q8_0": 0.03,
    "Q6_K": 0.1,
    "Q5_K": 0.2,
    "Q5_1": 0.2,
    "Q5_0": 0.2,
    "Q4_K": 0.4,
    "Q4_1": 0.4,
    "Q4_0": 0.4,
    "Q3_K": 0.7,
    "Q2_K": 0.95,
}
"""How far a matrix may be from the folder's, root mean square over root mean square: about twice what GPTQ leaves."""
ROWS = 32
CLEAR_NATS = 0.1
NUM_SERVED = 4
"""Positions at which the engine's server, too, is asked."""


class Limits(Struct, frozen=True):
    """What must hold. The engine rounds activations to 8 bits, so that it is never quite what torch computes."""

    kl: float = 1e-3
    """Nats a token from torch with the same codes, at most."""
    top1_lost: float = 0.01
    """Share of tokens, at most, where the engine's likeliest is clearly not torch's (not where two are as likely)."""
    kl_parent: float = inf
    """Nats a token from the parent, at most: where no task says what is good enough."""


@dataclass
class Findings:
    """What was measured, against which limit, and what is wrong."""

    allowed: Limits
    figures: dict[str, float] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def at_most(self, name: str, value: float, limit: float, what: str) -> None:
        """Keep a figure, and complain where it is beyond its limit or no number."""
        if isfinite(value):  # JSON has no others; the complaint says them
            self.figures[name] = value
        if isfinite(limit):
            self.limits[name] = limit
        if not value <= limit:
            self.complaints.append(f"{what} ({name} {value:.4g}, limit {limit:.4g})")


# --- words


def ids_of(folder: Path, corpus: Sequence[str]) -> list[list[int]]:
    """Texts as the folder's tokenizer cuts them."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [each.ids for each in tokenizer.encode_batch(list(corpus), add_special_tokens=False)]


def words(found: Findings, folder: Path, corpus: Sequence[str], told: Told) -> None:
    """The engine cuts and spells texts as the folder's tokenizer does."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    wanted = ids_of(folder, corpus)
    cut = sum(list(ours) != theirs for ours, theirs in zip(told.tokens, wanted, strict=True))
    found.at_most("texts_cut_otherwise", cut, 0, "the engine cuts texts into other tokens than the folder's tokenizer")
    spelled = [tokenizer.decode(ids) for ids in wanted]
    wrong = sum(ours.lstrip(" ") != theirs.lstrip(" ") for ours, theirs in zip(told.spelled, spelled, strict=True))
    found.at_most("texts_spelled_otherwise", wrong, 0, "the engine spells tokens otherwise than the folder's tokenizer")


def ends(found: Findings, folder: Path, config: Mapping[str, Any], contents: Held) -> None:
    """Texts begin and end as the folder says, and chats are laid out by its template."""
    named = config.get("eos_token_id")
    wanted = {
        "tokenizer.ggml.eos_token_id": named[0] if isinstance(named, list) else named,
        "tokenizer.ggml.bos_token_id": config.get("bos_token_id"),
        "tokenizer.chat_template": template_of(folder) or None,
    }
    apart = [name.rpartition(".")[2] for name, value in wanted.items() if contents.fields.get(name) != value]
    found.at_most("ends_otherwise", len(apart), 0, f"the file says otherwise than the folder: {', '.join(apart)}")


# --- weights


def weights(found: Findings, folder: Path, contents: Held, coded: Mapping[str, Coded]) -> None:
    """What the file holds is what was made, or near what the folder holds."""
    moved = [name for name, each in coded.items() if not same(contents.weights[name], each)]
    if coded:
        found.at_most("codes_moved", len(moved), 0, f"other numbers than were made: {', '.join(moved[:3])}")
    wanted = {full.removeprefix("model."): weight for full, weight in read(folder)}
    far = {
        name: apart(weight, wanted[name]) / NEAR.get(contents.formats[name], NEAR["F16"])
        for name, weight in unscaled(contents.weights, wanted).items()
        if name not in coded
    }
    worst = max(far, key=lambda name: far[name], default="")
    if worst:
        what = f"{worst} is far from the folder's, for {contents.formats[worst]}"
        found.at_most("weights_apart", far[worst], 1.0, what)


def unscaled(weights: Mapping[str, Floats], wanted: Mapping[str, Floats]) -> dict[str, Floats]:
    """Weights without the factors that `scaling.py` moves from the columns of down_proj to the rows of up_proj."""
    made = dict(weights)
    for name in weights:
        before = name.replace("down_proj", "up_proj")
        if before != name and np.isfinite(weights[before]).all():
            size = np.maximum((wanted[before] ** 2).sum(1), 1e-30)
            factors = (weights[before] * wanted[before]).sum(1) / size
            factors[factors <= 0] = 1.0
            made[before] = weights[before] / factors[:, None]
            made[name] = weights[name] * factors
    return made


def same(weight: Floats, coded: Coded) -> bool:
    """Whether a matrix is exactly what was made."""
    return bool(np.array_equal(weight, coded.decoded().numpy()))


def apart(weight: Floats, wanted: Floats) -> float:
    """Root mean square of the difference, over that of what was wanted; infinite where one is no number."""
    if not np.isfinite(weight).all():
        return inf
    size = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64))))
    return float(np.sqrt(np.mean(np.square(weight - wanted, dtype=np.float64)))) / (size or 1.0)


# --- distributions


def expected(contents: Held, coded: Mapping[str, Coded]) -> dict[str, Tensor]:
    """The matrices that the engine should be computing with: as they were made, else as they were read back."""
    held = {name: torch.from_numpy(each) for name, each in contents.weights.items() if each.ndim == MATRIX}
    return held | {name: each.decoded() for name, each in coded.items()}


def distributions(
    found: Findings, parent: Network, texts: Sequence[Text], ours: Tensor, matrices: Mapping[str, Tensor]
) -> None:
    """The engine expects the tokens that torch expects with the same matrices; how far that is from the parent."""
    before = told_by(parent, texts)
    with swapped(parent, matrices):
        theirs = told_by(parent, texts)
    if ours.shape != theirs.shape:
        raise DistillError(f"the engine's vocabulary has {ours.shape[1]} tokens, and the folder's {theirs.shape[1]}")
    what, allowed = "the engine computes something else than torch with the same numbers", found.allowed
    found.at_most("kl", float(diverged(theirs, ours).mean()), allowed.kl, what)
    found.at_most("top1_lost", lost(theirs, ours), allowed.top1_lost, what)
    found.at_most("kl_parent", float(diverged(before, ours).mean()), allowed.kl_parent, "too far from the parent")
    found.figures |= {"top1": agreed(theirs, ours), "top1_parent": agreed(before, ours)}


def told_by(network: Network, texts: Sequence[Text]) -> Tensor:
    """(completions' tokens, vocabulary) log-probabilities, text by text."""
    batches = [side_by_side(texts[at : at + ROWS], 0) for at in range(0, len(texts), ROWS)]
    return torch.cat([said(network, batch) for batch in batches])


def agreed(one: Tensor, other: Tensor) -> float:
    """Share of positions at which both think the same token likeliest."""
    return float((one.argmax(-1) == other.argmax(-1)).float().mean())


def lost(theirs: Tensor, ours: Tensor) -> float:
    """Share of positions at which what we think likeliest is clearly less likely to them than their likeliest."""
    picked = theirs.gather(-1, ours.argmax(-1, keepdim=True))[..., 0]
    return float((theirs.amax(-1) - picked > CLEAR_NATS).float().mean())


def served(found: Findings, file: Path, texts: Sequence[Text], logprobs: Floats) -> None:
    """The server, which is what answers requests, says what the library it is built on said."""
    prompt, completion = next(text for text in texts if text[1])
    few = completion[:NUM_SERVED]
    theirs = engine.distributions(file, [(prompt, few)], way="server")
    kl = float(diverged(torch.from_numpy(logprobs[: len(few)]), torch.from_numpy(theirs)).mean())
    found.at_most("kl_server", kl, found.allowed.kl, "the engine's server says something else than its library")
