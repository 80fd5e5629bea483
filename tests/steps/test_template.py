"""The template step behind a real front door, asked by the official client."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import openai
import pytest

from conftest import SCRIPTED, Start
from stepwell.cli.main import main
from stepwell.signing import SigningKey, new_key
from stepwell.store.objects import opened
from stepwell.templates.compile import bundle
from stepwell.templates.publish import kill, publish
from stepwell.templates.schema import Schema, Slot

SCHEMA = Schema(
    name="cup",
    slots=(Slot(name="name", kind="text"), Slot(name="wins", kind="number", low=0, high=100)),
)
SOURCE = ".input {$wins :integer}\n.match $wins\none {{{$name} has one win.}}\n* {{{$name} has {$wins} wins.}}"


def put(folder: Path, key: SigningKey, source: str = SOURCE) -> None:
    data = {"en": bundle(SCHEMA, "en", {"name+wins": [source]})}
    publish(opened(str(folder)), data, campaign="cup", key=key)


def config(folder: Path, key: SigningKey, refresh_s: float = 30) -> str:
    public = b64encode(key.public.public_bytes_raw()).decode()
    return f'{SCRIPTED}\n[templates]\nurl = "{folder}"\npublic_keys = ["{public}"]\nrefresh_s = {refresh_s}\n'


def ask(url: str, content: str, **more: Any) -> tuple[str, str]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as ai:
        messages = [{"role": "user", "content": content}]
        raw = ai.chat.completions.with_raw_response.create(model="well", messages=messages, **more)  # type: ignore[arg-type]
        return raw.headers["stepwell-step"], raw.parse().choices[0].message.content or ""


@pytest.fixture
def site(tmp_path: Path) -> tuple[Path, SigningKey]:
    key = new_key()
    put(tmp_path / "site", key)
    return tmp_path / "site", key


def test_structured_input_is_answered_by_the_template(serve: Start, site: tuple[Path, SigningKey]) -> None:
    url = serve(config(*site)).url
    assert ask(url, json.dumps({"name": "Ann", "wins": 1})) == ("template", "Ann has one win.")
    assert ask(url, json.dumps({"name": "Ann", "wins": 7})) == ("template", "Ann has 7 wins.")


def test_the_headers_say_what_it_saved(serve: Start, site: tuple[Path, SigningKey]) -> None:
    with openai.OpenAI(base_url=serve(config(*site)).url, api_key="none") as ai:
        raw = ai.chat.completions.with_raw_response.create(
            model="well", messages=[{"role": "user", "content": '{"name": "Ann", "wins": 7}'}]
        )
    assert float(raw.headers["stepwell-saved-usd"]) > 0


def test_a_named_template_takes_values_from_metadata(serve: Start, site: tuple[Path, SigningKey]) -> None:
    said = {"template": "name+wins", "values": '{"name": "Bo", "wins": 2}', "reader": "r1"}
    assert ask(serve(config(*site)).url, "news?", metadata=said) == ("template", "Bo has 2 wins.")


def test_streams(serve: Start, site: tuple[Path, SigningKey]) -> None:
    with openai.OpenAI(base_url=serve(config(*site)).url, api_key="none") as ai:
        content = json.dumps({"name": "Ann", "wins": 7})
        chunks = list(
            ai.chat.completions.create(model="well", messages=[{"role": "user", "content": content}], stream=True)
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Ann has 7 wins."


@pytest.mark.parametrize(
    ("content", "more"),
    [
        ("How deep is the well?", {}),
        ('{"name": "Ann"}', {}),
        ('{"name": "Ann", "wins": "many"}', {}),
        ('{"name": "", "wins": 3}', {}),
        ('{"name": "Ann", "wins": 7}', {"n": 2}),
        ('{"name": "Ann", "wins": 7}', {"metadata": {"locale": "fr"}}),
        ("{broken", {"metadata": {"template": "name+wins"}}),
        ('{"name": "Ann", "wins": 7}', {"metadata": {"template": "another"}}),
    ],
)
def test_what_it_cannot_fill_goes_down(
    serve: Start, site: tuple[Path, SigningKey], content: str, more: dict[str, Any]
) -> None:
    assert ask(serve(config(*site)).url, content, **more) == ("large", "The well is deep.")


def test_a_new_version_and_the_kill_switch_are_seen(serve: Start, site: tuple[Path, SigningKey]) -> None:
    folder, key = site
    url = serve(config(folder, key, refresh_s=0.05)).url
    content = json.dumps({"name": "Ann", "wins": 7})
    put(folder, key, "{$name}: {$wins :integer}")
    assert until(url, content, ("template", "Ann: 7"))
    kill(opened(str(folder)), key=key)
    assert until(url, content, ("large", "The well is deep."))


def until(url: str, content: str, wanted: tuple[str, str]) -> bool:
    for _ in range(100):
        if ask(url, content) == wanted:
            return True
        time.sleep(0.05)
    return False


def test_a_forged_campaign_is_not_shown(serve: Start, site: tuple[Path, SigningKey]) -> None:
    folder, _ = site
    assert ask(serve(config(folder, new_key())).url, '{"name": "Ann", "wins": 7}') == ("large", "The well is deep.")


def test_the_ledger_says_what_the_step_did(
    serve: Start, site: tuple[Path, SigningKey], capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = serve(config(*site))
    for content in ('{"name": "Ann", "wins": 1}', '{"name": "Ann"}', '{"name": "Ann"}', "hello"):
        ask(gateway.url, content)
    gateway.stop()
    assert main(["templates", "coverage", "--ledger", str(gateway.folder / "stepwell-data" / "ledger.db")]) == 0
    told = capsys.readouterr().out
    assert "25.0% of 4 requests answered by a template" in told
    assert "no template says name" in told
    assert main(["ledger", "--path", str(gateway.folder / "stepwell-data" / "ledger.db")]) == 0
    assert "template" in capsys.readouterr().out
