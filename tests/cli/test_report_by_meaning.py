"""An answer that was given by meaning is found again by its question, and can be reported."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conftest import Start, Upstream
from gateway.test_meaning import asking, config, knowing, learned, served, wordings
from stepwell.cli.main import main


@pytest.fixture
def converted(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.getbasetemp() / "minilm")


@pytest.mark.timeout(120)
def test_a_bad_answer_by_meaning_is_reported_by_its_question(
    serve: Start,
    upstream: Upstream,
    converted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    upstream.script = knowing()  # type: ignore[assignment]
    gateway = serve(config(upstream, converted))
    learned(gateway, 10)
    text = served(gateway, wordings(100, 11))
    monkeypatch.chdir(gateway.folder)

    def told(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*words, "--json"]) < 2
        return dict(json.loads(capsys.readouterr().out))

    known = told("promise")["num_labels"]
    got = told("cache", "get", "asked.json")
    assert (got["whose"], got["state"]) == ("by meaning", "fresh")
    assert got["cosine"] > 0.5
    assert got["p"] > 0.8
    assert got["nearest"] != text
    said, status = asking(gateway)(text)
    assert "semantic" not in status or said in got["body"]

    bad = told("cache", "report-bad", "asked.json")
    assert got["answer"] in bad["killed"]
    assert got["nearest"] in bad["found_by_meaning"][0]
    assert bad["promise"] == "learns from it"
    assert told("promise")["num_labels"] > known
    assert told("cache", "get", got["answer"])["state"] == "invalidated"
    named = told("cache", "report-bad", got["answer"])
    assert named["promise"].startswith("keeps the fact, and learns nothing")

    song = {"model": "well", "messages": [{"role": "user", "content": "Sing me a song"}], "temperature": 0}
    (gateway.folder / "song.json").write_text(json.dumps(song))
    assert main(["cache", "report-bad", "song.json"]) == 2
    assert "no answer is kept" in capsys.readouterr().err
