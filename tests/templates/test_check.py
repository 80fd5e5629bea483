"""Every gate refuses what it is for, with its reason, and lets the rest pass; harvesting feeds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.errors import TemplateError
from stepwell.templates.articles import articled
from stepwell.templates.check import check
from stepwell.templates.compile import bundle
from stepwell.templates.compose import composed
from stepwell.templates.fill import load as load_bundle
from stepwell.templates.harvest import harvest
from stepwell.templates.likeness import diversity
from stepwell.templates.mf2 import parse as message_of
from stepwell.templates.review import Decision, Draft, Queue, sorted_out
from stepwell.templates.rows import good, read
from stepwell.templates.samples import pairwise
from stepwell.templates.schema_file import load, parse

TABLE: dict[str, Any] = {
    "name": "city",
    "channel": "page",
    "banned": ["cheap"],
    "allowed": ["Stepwell"],
    "slots": {
        "name": {"kind": "entity", "values": ["The Eagle", "Aromi"]},
        "food": {"kind": "choice", "values": ["Italian", "English", "Chinese"]},
        "points": {"kind": "number", "low": 0, "high": 500},
        "gender": {"kind": "choice", "values": ["f", "m"], "protected": True, "optional": True},
        "first": {"kind": "text", "optional": True, "max_chars": 30},
    },
}
SCHEMA = parse(TABLE, "city.toml")
COUNTED = ".input {$points :integer}\n.match $points\none {{%s{$points} point.}}\n* {{%s{$points} points.}}"


@pytest.mark.parametrize(
    ("gate", "name", "source"),
    [
        ("profile", "name", "{$name {"),
        ("profile", "name", "{$name} " * 5000),
        ("slots", "food+name", "{$name} is nice."),
        ("slots", "name", "{$name} has {$food} food."),
        ("slots", "name", "{$name} {$other}"),
        ("facts", "name", "{$name} opened in 1999."),
        ("facts", "name", "{$name} has Italian food."),
        ("facts", "name", "{$name} opens in November."),
        ("facts", "name", "{$name} is in London."),
        ("words", "name", "{$name} is cheap."),
        ("spacing", "name", "{$name}  is nice."),
        ("spacing", "name", "{$name} is nice ."),
        ("plurals", "points", "You have {$points} points."),
        ("fill", "food+name", "{$name} is a {$food} place."),
        ("fill", "name", "hello {$name}"),
        ("fill", "name", "{$name} is nice. come in."),
        ("fill", "name", "{$name}" + " is nice and" * 200),
        ("protected", "gender+name", ".input {$gender :string}\n.match $gender\nf {{{$name} for her}}\n* {{{$name}}}"),
    ],
)
def test_each_gate_refuses(gate: str, name: str, source: str) -> None:
    (verdict,) = check(SCHEMA, "en", name, [source])
    assert (verdict.kept, verdict.gate) == (False, gate), verdict
    assert verdict.reason


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("food+name", "{$name} serves {$food} food, says Stepwell."),
        ("food=Italian+name", "{$name} serves Italian food."),
        ("points", COUNTED % ("You have ", "You have ")),
        ("first+name", "{$first}, {$name} is waiting for you."),
    ],
)
def test_good_messages_pass(name: str, source: str) -> None:
    (verdict,) = check(SCHEMA, "en", name, [source])
    assert verdict.kept, verdict


def test_every_plural_category_of_the_locale_must_be_written() -> None:
    source = ".input {$points :integer}\n.match $points\none {{{$points} балл}}\n* {{{$points} баллов}}"
    (verdict,) = check(SCHEMA, "ru", "points", [source])
    assert verdict.gate == "plurals"
    assert "few" in verdict.reason


@pytest.mark.parametrize(
    ("locale", "source", "kept"),
    [
        ("en", ".input {$points :integer}\n.match $points\none {{One point.}}\n* {{{$points} points.}}", True),
        ("en", ".input {$points :integer}\n.match $points\none {{One point.}}\n* {{Many points.}}", False),
        (
            "sl",
            ".input {$points :integer}\n.match $points\none {{Ena.}}\ntwo {{{$points}.}}\nfew {{{$points}.}}\n* {{{$points}.}}",
            False,
        ),
        (
            "en",
            ".input {$points :integer}\n.match $points\n0 {{None yet.}}\none {{One.}}\n* {{Already {$points}.}}",
            True,
        ),
    ],
)
def test_a_variant_for_several_numbers_says_which(locale: str, source: str, kept: bool) -> None:  # noqa: FBT001
    (verdict,) = check(SCHEMA, locale, "points", [source])
    assert verdict.kept is kept, verdict


def test_near_duplicates_and_a_domains_own_checker() -> None:
    sources = ["{$name} serves {$food} food.", "{$name} serves {$food} food!", "Try {$food} food at {$name}."]
    assert [each.gate for each in check(SCHEMA, "en", "food+name", sources)] == ["", "alike", ""]
    assert diversity([message_of(each) for each in sources]) > 0.3
    verify = lambda values, text: [] if str(values["food"]) != "Chinese" else ["no"]  # noqa: E731, ARG005
    assert check(SCHEMA, "en", "food+name", sources[:1], verify=verify)[0].gate == "verify"


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True), min_size=2, max_size=5))
@settings(max_examples=30, deadline=None)
def test_pairwise_rows_hold_every_pair(columns: list[list[int]]) -> None:
    rows = list(pairwise(columns))
    for a in range(len(columns)):
        for b in range(a + 1, len(columns)):
            assert {(row[a], row[b]) for row in rows} == {(x, y) for x in columns[a] for y in columns[b]}


@given(st.text(alphabet=st.sampled_from(list("{}$|\\ab .name:*\n")), max_size=50))
@settings(deadline=None)
def test_no_source_crashes_the_check(text: str) -> None:
    assert len(check(SCHEMA, "en", "name", [text])) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nam": 1}, "schema.nam: there is no such key; did you mean name?"),
        ({"slots": {}}, "schema.slots"),
        ({"slots": {"x": {"kind": "choise"}}}, "schema.slots.x"),
        ({"slots": {"x": {"kind": "choice"}}}, "values: a choice says all"),
        ({"slots": {"x": {"kind": "number", "low": 3, "high": 1}}}, "the lower first"),
        ({"slots": {"x": {"kind": "date", "low": "soon"}}}, "2026-01-31"),
        ({"slots": {"x": {"kind": "money", "high": 3}}}, "ISO 4217"),
        ({"slots": {"9x": {"kind": "text"}}}, "small letter"),
        ({"slots": {"constructor": {"kind": "text"}}}, "small letter"),
        ({"slots": {"x": {"kind": "text", "forms": ["a"]}}}, "only an entity"),
        ({"locales": ["xx-nowhere"]}, "CLDR has none"),
        ({"missing": "default"}, "no slot says"),
        ({"name": " "}, "give the campaign a name"),
    ],
)
def test_a_wrong_schema_is_told_with_file_and_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(TABLE | change, "city.toml")
    assert said in str(caught.value)


def test_a_schema_file(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    for text in (None, "= 3", "name = 1"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(TemplateError, match=r"x\.toml"):
            load(file)


def test_harvest_takes_facts_out_and_merges_what_a_value_decides() -> None:
    pairs: list[Any] = [
        ({"name": "Aromi", "food": "Italian"}, "Aromi is an Italian place."),
        ({"name": "Aromi", "food": "Chinese"}, "Aromi is a Chinese place."),
        ({"points": 1}, "You have 1 point."),
        ({"points": 250}, "You have 250 points."),
        ({"points": 2}, "You came in 2nd."),
        ({"points": 1}, "You came in 1st."),
        ({"points": 3}, "You came in 3rd."),
        ({"points": 4}, "You came in 4th."),
        ({"name": "Aromi", "food": "Italian"}, "A place without its name."),
        ({"nobody": "x"}, "x"),
        ({"name": "Aromi"}, "Aromi has {braces} and \\ and |."),
    ]
    found = harvest(SCHEMA, pairs)
    assert set(found) == {"food+name", "points", "name"}
    said = {}
    for name, sources in found.items():
        filler = load_bundle(bundle(SCHEMA, "en", {name: sources}))
        said[name] = [
            filler.write(name, at, {"name": "Bo", "food": "English", "points": 1}) for at in range(len(sources))
        ]
    assert said == {
        "food+name": ["Bo is an English place."],
        "points": ["You have 1 point.", "You came in 1st."],
        "name": ["Bo has {braces} and \\ and |."],
    }
    filler = load_bundle(bundle(SCHEMA, "en", {"points": found["points"]}))
    assert filler.write("points", 0, {"points": 7}) == "You have 7 points."
    assert filler.write("points", 1, {"points": 22}) == "You came in 22nd."


def test_articles_and_composition() -> None:
    told = articled(SCHEMA, "{$name} is a {$food} place.")
    filler = load_bundle(bundle(SCHEMA, "en", {"food+name": [told]}))
    texts = [filler.write("food+name", 0, {"name": "Bo", "food": food}) for food in ("Italian", "Chinese")]
    assert texts == ["Bo is an Italian place.", "Bo is a Chinese place."]
    wanted = {"name": "Bo", "food": "Italian", "points": "3"}
    bases = {"name": ["{$name} is nice."], "food=Chinese+name": ["{$name} is Chinese."]}
    extras = {"food=Italian": ["It has Italian food."], "points": ["It has {$points}."]}
    assert composed(wanted, bases, extras) == ["{$name} is nice. It has Italian food. It has {$points}."]
    assert composed(wanted, bases, {"points": extras["points"]}) == []


def test_the_queue_survives_a_kill(tmp_path: Path) -> None:
    queue = Queue(tmp_path / "review.jsonl")
    drafts = [Draft("en", "t", text) for text in ("one", "two", "three")]
    assert sorted_out(drafts, queue.decisions()) == ([], drafts)
    queue.decide([Decision(drafts[0].id, "approve"), Decision(drafts[1].id, "reject", "dull")])
    with queue.file.open("ab") as file:
        file.write(b'{"id": "cut off')
    approved, waiting = sorted_out(drafts, queue.decisions())
    assert (approved, waiting) == (drafts[:1], drafts[2:])
    queue.decide([Decision(drafts[2].id, "edit", "better", "3")])
    assert [each.source for each in sorted_out(drafts, queue.decisions())[0]] == ["one", "3"]
    queue.file.write_bytes(b"junk\n")
    with pytest.raises(TemplateError, match=r"review\.jsonl:1"):
        queue.decisions()


def test_wrong_rows_are_told_or_left_out(tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text("reader,name,food,points\nr1,Bo,Italian,3\nr2,Bo,Greek,3\nr3,Bo,,900\nr4,,,\n")
    wrong = [str(each) for row in read(file, SCHEMA) for each in row.wrong]
    assert wrong == [
        f"{file}:3: column food: 'Greek' is not one of Italian, English, Chinese",
        f"{file}:4: column points: '900' is not between 0 and 500",
    ]
    with pytest.raises(TemplateError, match=r"users\.csv:3: column food"):
        list(good(file, SCHEMA))
    left = tmp_path / "bad.jsonl"
    assert [row["reader"] for row in good(file, SCHEMA, skip_bad=left)] == ["r1", "r4"]
    assert left.read_text().count("\n") == 2
    (tmp_path / "x.jsonl").write_text('{"name": "Bo"}\n[1]\n')
    with pytest.raises(TemplateError, match=r"x\.jsonl:2"):
        list(read(tmp_path / "x.jsonl", SCHEMA))
    for name in ("none.csv", "x.txt", "x.parquet"):
        if name != "none.csv":
            (tmp_path / name).write_text("junk")
        with pytest.raises(TemplateError):
            list(read(tmp_path / name, SCHEMA))
