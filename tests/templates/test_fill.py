"""From messages to texts: the profile, the compiler's decisions, cleaning, policies, sinks and choice."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import TemplateError
from stepwell.templates.compile import bundle
from stepwell.templates.escape import SINKS, clean
from stepwell.templates.fill import Filled, Unfilled, Unfit, load
from stepwell.templates.mf2 import parse
from stepwell.templates.schema import Schema, Slot

SLOTS = (
    Slot(name="name", kind="text", max_chars=20, default="friend"),
    Slot(name="wins", kind="number", low=0, high=10_000, decimals=2),
    Slot(name="kind", kind="choice", values=("cup", "league")),
    Slot(name="price", kind="money", currency="EUR", low=0, high=100),
    Slot(name="day", kind="date", low="2026-01-01", high="2026-12-31"),
    Slot(name="team", kind="entity", values=("Ajax",), forms=("genitive",)),
)


def made(source: str | list[str], locale: str = "en", missing: Any = "skip", **weights: list[int]) -> Any:
    schema = Schema(name="cup", slots=SLOTS, missing=missing)
    sources = [source] if isinstance(source, str) else source
    return load(bundle(schema, locale, {"t": sources}, weights=weights))


def filled(source: str, locale: str = "en", **values: Any) -> str:
    result = made(source, locale).fill("t", values)
    assert isinstance(result, Filled), result
    return result.text


WRONG = {
    "{$name": "not MessageFormat 2",
    "{$name :bold}": "outside the profile",
    "{$wins :number minimumFractionDigits=$name}": "must be a constant",
    "{$wins :number style=percent}": "no option style",
    "{#b}x{/b}": "markup",
    ".input {$wins :number}\n.match $wins\none {{x}}": "fallback|catch-all|.",
    ".input {$wins :percent}\n.match $wins\n* {{x}}": "cannot be selected",
    ".input {$wins :number}\n.match $wins\nsome {{x}}\n* {{y}}": "plural category",
    ".input {$wins :number select=exact}\n.match $wins\none {{x}}\n* {{y}}": "must be a number",
    ".local $x = {1 :number}\n{{{$x}}}": "needs a variable",
}


@pytest.mark.parametrize("source", WRONG)
def test_what_is_outside_the_profile_is_refused_with_its_reason(source: str) -> None:
    with pytest.raises(TemplateError, match=WRONG[source]):
        parse(source, file="x.mf2", line=3)


def test_an_error_says_file_and_line() -> None:
    with pytest.raises(TemplateError) as caught:
        parse("one\n{$name", file="x.mf2", line=3)
    assert str(caught.value).startswith("x.mf2:")
    assert caught.value.line == 4


@given(st.text(alphabet=st.sampled_from(list("{}$|\\ab .:*\nmatchinput=1#/@")), max_size=60))
def test_no_text_crashes_the_parser(text: str) -> None:
    with suppress(TemplateError):
        parse(text)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{$nobody}", "no such slot"),
        ("{$team.dative}", "no form dative"),
        ("{$name :number}", "cannot be written by :number"),
        ("{$wins :date}", "cannot be written by :date"),
        (".input {$name :number}\n.match $name\none {{x}}\n* {{y}}", "select it by :string"),
        ("{$wins :currency}", "which currency"),
    ],
)
def test_the_compiler_knows_the_schema(source: str, why: str) -> None:
    with pytest.raises(TemplateError, match=why):
        made(source)


def test_the_best_match_is_the_first_selectors() -> None:
    source = (
        ".input {$wins :number}\n.input {$kind :string}\n.match $wins $kind\n"
        "* cup {{any cup}}\none * {{one any}}\n1 league {{exactly one league}}\n* * {{rest}}"
    )
    assert filled(source, wins=1, kind="league") == "exactly one league"
    assert filled(source, wins=1, kind="cup") == "one any"
    assert filled(source, wins=2, kind="cup") == "any cup"
    assert filled(source, wins=2, kind="other") == "rest"


@pytest.mark.parametrize(
    ("locale", "source", "values", "text"),
    [
        ("en", "{$wins}", {"wins": 1234.5}, "1,234.5"),
        ("de", "{$wins}", {"wins": 1234.5}, "1.234,5"),
        ("pl", "{$wins}", {"wins": 1234}, "1234"),
        ("pl", "{$wins}", {"wins": 12345}, "12\u00a0345"),
        ("hi", "{$wins :integer}", {"wins": 1234567}, "12,34,567"),
        ("en", "{$wins}", {"wins": 0.125}, "0.13"),
        ("en", "{$wins}", {"wins": 1.005}, "1"),
        ("en", "{$wins}", {"wins": -0.001}, "0"),
        ("en", "{$wins}", {"wins": "12.50"}, "12.5"),
        ("en", "{$price}", {"price": -3}, "-€3.00"),
        ("de", "{$price}", {"price": 3}, "3,00\u00a0€"),
        ("ja", "{$price :currency currency=JPY}", {"price": 1500}, "\uffe51,500"),
        ("en", "{$wins :percent maximumFractionDigits=1}", {"wins": 0.256}, "25.6%"),
        ("en", "{$day}", {"day": "2026-11-04"}, "Nov 4, 2026"),
        ("de", "{$day :date length=long}", {"day": "2026-11-04"}, "4. November 2026"),
        ("fr", "{$day :date fields=weekday length=long}", {"day": "2026-11-04"}, "mercredi"),
        ("de", "{$day :time}", {"day": "2026-11-04T07:05"}, "07:05"),
        ("en", "{$team.genitive}", {"team.genitive": "Ajax'"}, "Ajax'"),
    ],
)
def test_values_are_written_as_the_locale_does(locale: str, source: str, values: dict[str, Any], text: str) -> None:
    assert filled(source, locale, **values) == text


@pytest.mark.parametrize(
    ("values", "slot", "why"),
    [
        ({}, "name", "missing"),
        ({"name": None}, "name", "missing"),
        ({"name": " \u200f\t"}, "name", "missing"),
        ({"name": True}, "name", "unfit"),
        ({"name": 1.5}, "name", "unfit"),
        ({"name": "x" * 21}, "name", "unfit"),
        ({"name": "x" * 1_000_000}, "name", "unfit"),
        ({"name": "Ann", "wins": "many"}, "wins", "unfit"),
        ({"name": "Ann", "wins": float("nan")}, "wins", "unfit"),
        ({"name": "Ann", "wins": 1e15}, "wins", "unfit"),
        ({"name": "Ann", "wins": [3]}, "wins", "unfit"),
        ({"name": "Ann", "wins": ""}, "wins", "missing"),
    ],
)
def test_a_blank_is_never_filled_with_nothing(values: dict[str, Any], slot: str, why: str) -> None:
    filler = made("{$name} {$wins}")
    assert filler.fill("t", values) == Unfilled(slot, why)
    with pytest.raises(Unfit):
        filler.write("t", 0, values)


def test_policies() -> None:
    assert made("Hi {$name}", missing="default").fill("t", {}) == Filled("Hi friend", 0)
    two = ["Hi {$name}, {$wins}", "Well, {$wins}"]
    assert {made(two, missing="variant").fill("t", {"wins": 1}, f"r{at}").text for at in range(20)} == {"Well, 1"}
    outcomes = {made(two).fill("t", {"wins": 1}, f"r{at}") for at in range(50)}
    assert outcomes == {Unfilled("name", "missing"), Filled("Well, 1", 1)}


def test_a_reader_gets_the_same_variant_in_the_shares_of_the_weights() -> None:
    filler = made([f"v{chr(97 + at)}" for at in range(3)], t=[1, 0, 3])
    counts = Counter(filler.fill("t", {}, f"reader-{at}").variant for at in range(20_000))
    assert set(counts) == {0, 2}
    assert 0.23 < counts[0] / 20_000 < 0.27
    assert len({filler.fill("t", {}, "reader-7") for _ in range(5)}) == 1
    assert filler.fill("t", {}, "\ud800").variant == filler.fill("t", {}, "\ufffd").variant


def test_weights_must_fit() -> None:
    for weights in ([1], [-1, 2], [1 << 21, 1]):
        with pytest.raises(TemplateError):
            made(["a", "b"], t=weights)
    with pytest.raises(TemplateError, match="CLDR has none"):
        load(bundle(Schema(name="x", slots=SLOTS), "xx-nowhere", {"t": ["a {$wins}"]}))


HOSTILE = '<script>alert("x")</script>\r\nBcc: a@b\u202e & `=\\ \u2028'


@pytest.mark.parametrize("sink", SINKS)
def test_hostile_values_stay_text(sink: Any) -> None:
    schema = Schema(name="cup", slots=(Slot(name="name", kind="text"),), channel="page")
    text = load(bundle(schema, "en", {"t": ["Hi {$name}!"]}), sink).fill("t", {"name": HOSTILE}).text  # type: ignore[union-attr]
    assert "\r" not in text
    assert "\n" not in text
    assert "\u202e" not in text
    if sink in {"html", "attribute"}:
        assert not set(text) & set("<>\"'`=")
    if sink == "json":
        assert json.loads(f'"{text}"') == f"Hi {clean(HOSTILE)}!"
        assert "</" not in text
    if sink == "url":
        assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789%-_.!~*'()")


@given(st.text(max_size=40))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert all(char >= " " for char in once)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"v":2,"campaign":"c","locale":"en","ops":[],"t":{}}',
        b'{"v":1,"campaign":"c","locale":"en","ops":[],"t":{"a":["{0}"]}}',
        b'{"v":1,"campaign":"c","locale":"en","ops":[["q","x"]],"t":{}}',
        b'{"v":1,"campaign":"c","locale":"en","ops":[],"t":{"a":[["x",[["c","n",["one"]]],[0,5]]]}}',
        b'{"v":1,"campaign":"c","locale":"en","ops":[],"t":{"a":["x"]},"w":{"a":[0]}}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(TemplateError):
        load(data)
