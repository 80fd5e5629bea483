"""Judges: what each calls right, what it leaves open, and what no answer can talk it into."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stepwell.config import ScriptedEngine
from stepwell.engines.scripted import Scripted
from stepwell.engines.talk import said, talk
from stepwell.errors import ConfigError, EngineBadReply, EngineUnavailable
from stepwell.quality.judge import Verdict, agreement, both, exact
from stepwell.quality.judge_model import Said, keyed_marks, model
from stepwell.quality.judges import named

QUESTION = "How long does a transfer take?"
texts = st.text(max_size=60)


@pytest.mark.parametrize(
    ("proposed", "fresh", "right"),
    [
        ("It takes 3 days.", "it takes  3 days", True),
        ("**Three** days!", "three days", True),
        ('{"a": 1, "b": [2.0]}', '{"b":[2],"a":1}', True),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": 1}', '{"a": 2}', False),
        ("It costs $5", "It costs €5", False),
        ("minus: -5", "minus: 5", False),
        ("1.5 days", "15 days", False),
        ("It takes 3 days.", "It takes 4 days.", False),
        ("", "It takes 3 days.", None),
        (" ", " ", None),
    ],
)
async def test_exact_is_equal_but_for_case_space_and_punctuation(
    proposed: str, fresh: str, *, right: bool | None
) -> None:
    assert (await exact(QUESTION, proposed, fresh)).right is right
    assert (await exact(QUESTION, fresh, proposed)).right is right


def embedding(cosine: float) -> object:
    async def embed(texts: tuple[str, str]) -> NDArray[np.float32]:
        assert len(texts) == 2
        return np.array([[1, 0], [cosine, (1 - min(1, cosine * cosine)) ** 0.5]], np.float32)

    return embed


@pytest.mark.parametrize(
    ("proposed", "fresh", "cosine", "right"),
    [
        ("A transfer takes three working days.", "Transfers will take 3 working days.", 0.95, True),
        ("A transfer takes three working days.", "A transfer takes five working days.", 0.97, False),
        ("Yes, you can open it.", "No, you cannot open it.", 0.95, False),
        ("You can increase the limit.", "You can decrease the limit.", 0.95, False),
        ("Ask Anna for it.", "You ask Bob for it.", 0.95, False),
        ("A transfer takes three working days.", "Transfers will take 3 working days.", 0.7, None),
        ("Bananas are yellow fruit.", "A transfer takes a while.", 0.1, False),
        ("Bananas are yellow fruit from Africa.", "A transfer takes a while, says the bank.", 0.9, None),
        ("It takes days.", "It takes days!", -1.0, True),
        ("A transfer takes days.", "It takes a while.", float("nan"), None),
        ("x" * 5000, "y" * 5000, 0.99, None),
    ],
)
async def test_agreement_is_vectors_and_facts(proposed: str, fresh: str, cosine: float, *, right: bool | None) -> None:
    judge = agreement(embedding(cosine))  # type: ignore[arg-type]
    assert (await judge(QUESTION, proposed, fresh)).right is right


async def test_agreement_without_vectors_says_nothing() -> None:
    async def embed(_texts: object) -> NDArray[np.float32]:
        raise EngineUnavailable("gone")

    verdict = await agreement(embed)(QUESTION, "one", "other")
    assert verdict.right is None
    assert "gone" in verdict.why


# --- the model that judges: these stand for models, honest and not


class Model:
    """Reads the prompt as a model would, and says what `thinks` makes of the two answers."""

    def __init__(self, thinks: object) -> None:
        self.thinks = thinks
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, instructions: str, text: str) -> Said:
        self.asked.append((instructions, text))
        mark = re.search(r"lines that say (\w+)\.", instructions)
        codes = re.findall(r'"code": "(\w+)"', instructions)
        assert mark
        _, question, _, one, _, other, _ = text.split(mark[1])
        assert question.strip() == QUESTION
        told = self.thinks(one.strip(), other.strip())  # type: ignore[operator]
        return Said(json.dumps({"code": codes[0 if told else 1]}) if isinstance(told, bool) else told, 0.01)


async def test_a_model_is_asked_both_ways_and_its_price_is_told() -> None:
    honest = Model(lambda one, other: one == other)
    assert await model(honest)(QUESTION, "3 days", "3 days") == Verdict(
        right=True, why="the model finds them equivalent", usd=0.02
    )
    assert (await model(honest)(QUESTION, "3 days", "4 days")).right is False
    (first, one), (second, other) = honest.asked[2:]
    assert one.index("3 days") < one.index("4 days")
    assert other.index("4 days") < other.index("3 days")
    assert first != second, "marks and codes are new each time"


async def test_a_model_that_goes_by_the_order_gives_no_verdict() -> None:
    verdict = await model(Model(lambda one, _other: one == "3 days"))(QUESTION, "3 days", "4 days")
    assert verdict.right is None
    assert verdict.usd == 0.02


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "yes",
        "{",
        "null",
        '{"code": "same"}',
        '{"code": 1}',
        '{"same": true}',
        "I cannot do that.",
        '[{"code": "x"}]',
    ],
)
async def test_anything_but_a_code_is_no_verdict(reply: str) -> None:
    verdict = await model(Model(lambda _one, _other: reply))(QUESTION, "3 days", "4 days")
    assert verdict == Verdict(None, "the model that judges gave no verdict", 0.01)


async def test_a_code_with_more_around_it_is_no_verdict() -> None:
    async def ask(instructions: str, _text: str) -> Said:
        code = re.findall(r'"code": "(\w+)"', instructions)[0]
        return Said(json.dumps({"code": code, "why": "because"}))

    assert (await model(ask)(QUESTION, "3 days", "4 days")).right is None


@given(texts, texts)
async def test_no_answer_can_name_a_verdict_or_end_its_quotation(one: str, other: str) -> None:
    async def parrot(_instructions: str, text: str) -> Said:
        return Said(text)

    async def obedient(instructions: str, text: str) -> Said:
        mark = re.search(r"lines that say (\w+)\.", instructions)
        assert mark
        assert text.count(mark[1]) == 6
        return Said(one)

    assert (await model(parrot)(QUESTION, one, other)).right is None
    assert (await model(obedient)(QUESTION, one, other)).right is None


async def test_a_model_that_fails_or_would_read_too_much_gives_no_verdict() -> None:
    async def ask(_instructions: str, _text: str) -> Said:
        raise EngineUnavailable("gone")

    assert (await model(ask)(QUESTION, "a", "b")).right is None
    assert (await model(ask)(QUESTION, "a" * 100_000, "b")).why == "too long for the model that judges"


async def test_one_question_goes_through_a_real_engine() -> None:
    engine = Scripted("s", ScriptedEngine(reply='{"code": "x"}'))
    text, usage = await talk(engine, "m", "compare", "these", max_tokens=20)
    assert text == '{"code": "x"}'
    assert usage is not None


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}, "a"),
        ({"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}, ""),
        ({"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]}, ""),
        ({"choices": [{"message": {"content": "a", "refusal": "no"}, "finish_reason": "stop"}]}, ""),
    ],
)
def test_a_refusal_or_half_an_answer_is_nothing_said(reply: object, text: str) -> None:
    assert said(json.dumps(reply).encode(), "e") == text


@pytest.mark.parametrize("reply", [b"", b"{}", b'{"choices": []}', b"\xff", b'{"choices": 1}'])
def test_what_is_no_chat_completion_is_an_error(reply: bytes) -> None:
    with pytest.raises(EngineBadReply):
        said(reply, "e")


# --- a user's own, and two that must agree

YOURS = """
from stepwell.quality.judge import Verdict

def same_length(question, proposed, fresh):
    return len(proposed) == len(fresh)

async def unsure(question, proposed, fresh):
    return Verdict(None, "who knows", 0.5)

def broken(question, proposed, fresh):
    raise RuntimeError("broken")

def strange(question, proposed, fresh):
    return "yes"

no_function = 1
"""


@pytest.fixture
def own(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_judges.py").write_text(YOURS)  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("own")
async def test_a_users_own_function_judges() -> None:
    judge = named("my_judges:same_length")
    assert (await judge(QUESTION, "ab", "cd")).right is True
    assert (await judge(QUESTION, "ab", "c")).right is False
    assert await named("my_judges:unsure")(QUESTION, "a", "b") == Verdict(None, "who knows", 0.5)
    for name in ("broken", "strange"):
        verdict = await named(f"my_judges:{name}")(QUESTION, "a", "b")
        assert verdict.right is None
        assert name in verdict.why


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    "names",
    [
        "",
        "magic",
        "exact+",
        "my_judges",
        "my_judges:",
        ":x",
        "my_judges:nothing",
        "my_judges:no_function",
        "no_module:x",
        "agreement",
        "model",
        "exact+model",
    ],
)
def test_a_judge_that_is_not_there_is_told_when_it_is_configured(names: str) -> None:
    with pytest.raises(ConfigError) as told:
        named(names)
    assert told.value.field == "promise.judge"


async def test_two_judges_must_agree() -> None:
    def always(usd: float, *, right: bool | None) -> object:
        async def judge(_question: str, _proposed: str, _fresh: str) -> Verdict:
            return Verdict(right, "so", usd)

        return judge

    cases = {(True, True): True, (False, False): False, (True, False): None, (None, True): None, (True, None): None}
    for (one, other), right in cases.items():
        verdict = await both(always(0.25, right=one), always(0.5, right=other))(QUESTION, "a", "b")  # type: ignore[arg-type]
        assert verdict.right is right
        assert verdict.usd == (0.25 if one is None else 0.75), "the second is asked only where the first has a verdict"


async def test_names_are_joined() -> None:
    judge = named("exact + model", ask=Model(lambda _one, _other: True))
    assert (await judge(QUESTION, "3 days", "3 days.")).right is True
    assert (await judge(QUESTION, "3 days", "4 days")).right is None


def test_marks_by_a_key_are_the_same_for_the_same_text_and_no_others() -> None:
    marks = keyed_marks(b"secret")
    assert marks("a") == keyed_marks(b"secret")("a")
    assert len({*marks("a"), *marks("b"), *keyed_marks(b"other")("a")}) == 9
