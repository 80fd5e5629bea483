"""Judges say whether a proposed answer is as right as the one that the large model gave to the same question.

A judge is an async function of question, proposed and fresh answer. Where it cannot tell it gives no verdict, and
nothing is learned: no judge guesses.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from stepwell.errors import StepwellError
from stepwell.facts.facts import Facts, facts, unsaid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Verdict(Struct, frozen=True, gc=False):
    """What a judge found: right, wrong, or None for no verdict."""

    right: bool | None
    why: str
    usd: float = 0.0


Judge = Callable[[str, str, str], Awaitable[Verdict]]
"""The question, the proposed answer, the fresh one."""
Embed = Callable[[Sequence[str]], "Awaitable[NDArray[np.float32]]"]
"""Vectors of length 1 for texts, as `Embedder.embed` gives them."""

NEAR, FAR = 0.85, 0.5
"""Cosines of two answers above and below which their embeddings agree and disagree."""
EDGES = ".,;:!?\"'()[]{}*_~`“”„‘’«»…"  # noqa: RUF001 - punctuation that changes nothing
DASHES = frozenset({"", "-", "–", "—", "•"})  # noqa: RUF001 - between words, or before a point of a list
TYPED = ("number", "money", "measure", "date", "time", "code")
MAX_OWN = 0.2
"""Part of the content that each of two equivalent answers may say in words of its own."""
LIKE = 0.25
"""Part of the content that may differ where a direction or a negation turns the whole answer."""
ANSWERS = frozenset({"yes", "no"})


def both(first: Judge, second: Judge) -> Judge:
    """Two judges who must agree, else there is no verdict. The second is asked only where the first has one."""

    async def judge(question: str, proposed: str, fresh: str) -> Verdict:
        one = await first(question, proposed, fresh)
        if one.right is None:
            return one
        other = await second(question, proposed, fresh)
        usd = one.usd + other.usd
        if other.right is None or other.right == one.right:
            return Verdict(other.right, f"{one.why}; {other.why}", usd)
        return Verdict(None, f"the judges differ: {one.why}; {other.why}", usd)

    return judge


# --- exact


async def exact(_question: str, proposed: str, fresh: str) -> Verdict:
    """Equal but for case, white space and punctuation; JSON documents but for the order of keys and white space."""
    if not proposed.strip() or not fresh.strip():
        return Verdict(None, "an answer is empty")
    same = normal(proposed) == normal(fresh)
    return Verdict(same, "the same text" if same else "another text")


def normal(text: str) -> Any:  # noqa: ANN401 - a JSON value, or a string
    """The form in which equal answers are equal."""
    if text.lstrip()[:1] in {"{", "["}:
        try:
            return ("json", sorted_by(json_by(text)))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    words = (word.strip(EDGES) for word in unicodedata.normalize("NFKC", text).casefold().split())
    return " ".join(word for word in words if word not in DASHES) or text.strip()


def whole_number(text: str) -> float | int:
    """1.0 is 1."""
    number = float(text)
    return int(number) if number.is_integer() else number


json_by = msgspec.json.Decoder(float_hook=whole_number).decode
sorted_by = msgspec.json.Encoder(order="sorted").encode


# --- agreement


def agreement(embed: Embed, *, near: float = NEAR, far: float = FAR) -> Judge:
    """Right where vectors are near and no fact is against another; between near and far there is no verdict."""

    async def judge(question: str, proposed: str, fresh: str) -> Verdict:
        same = await exact(question, proposed, fresh)
        if same.right is not False:
            return same
        here, there = facts(proposed), facts(fresh)
        if not (here.whole and there.whole):
            return Verdict(None, "an answer is too long to be compared")
        try:
            vectors = await embed((proposed, fresh))
        except StepwellError as error:
            return Verdict(None, f"no vectors: {error}")
        return weighed(float(vectors[0] @ vectors[1]), here, there, near=near, far=far)

    return judge


def weighed(cosine: float, one: Facts, other: Facts, *, near: float, far: float) -> Verdict:
    """Right where the answers are near, in the same words; wrong where they are far, or contradict each other."""
    if not math.isfinite(cosine):
        return Verdict(None, "no cosine")
    why, apart = f"cosine {cosine:.2f}", contradiction(one, other)
    if cosine < far or apart:
        return Verdict(right=False, why=f"{apart} differ, {why}" if apart else why)
    own = min(len(one.content - other.content), len(other.content - one.content))
    alike = own <= MAX_OWN * min(len(one.content), len(other.content))
    return Verdict(True if cosine >= near and alike else None, why)


def contradiction(one: Facts, other: Facts) -> str:
    """What two answers say against each other: a kind of values, a direction, a negation; "" where they do not."""
    for kind in TYPED:
        here = {value.norm for value in one.values if value.kind == kind}
        there = {value.norm for value in other.values if value.kind == kind}
        if here - there and there - here:
            return f"{kind}s"
    if unsaid("entity", one, other) and unsaid("entity", other, one):
        return "names"
    if {*one.words[:1], *other.words[:1]} == ANSWERS:
        return "yes and no"
    differing = max(len(one.content - other.content), len(other.content - one.content))
    if differing > max(1, LIKE * min(len(one.content), len(other.content))):
        return ""
    turned = {("-" if pole[0] == "+" else "+") + pole[1:] for pole in one.poles - other.poles}
    opposite = bool(turned & (other.poles - one.poles))
    negated = one.negations % 2 != other.negations % 2
    if opposite == negated:
        return ""
    return "directions" if opposite else "negations"
