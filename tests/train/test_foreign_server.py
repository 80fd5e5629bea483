"""The `http` engine against a server nobody here wrote: `transformers serve`, running the house writer's folder."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import openai
import pytest

from conftest import ROOT, Start

COMMAND = Path(os.environ.get("STEPWELL_TEST_SERVE", ROOT / ".venv-serve" / "bin" / "transformers"))
MODEL = ROOT / "models" / "house-writer"
FACTS = "name[The Amber Fox], eatType[pub], food[French], area[riverside]"
ASK = [{"role": "user", "content": FACTS}]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert COMMAND.exists(), f"{COMMAND} is not there: `make test-train` installs it"
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [str(COMMAND), "serve", str(MODEL), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        end_s = time.monotonic() + 120
        while time.monotonic() < end_s and server.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(20)


def config(url: str) -> str:
    return f"""
[server]
port = 0

[engines.foreign]
type = "http"
url = "{url}"
model = "{MODEL}"

[routes.city-guide]
engines = ["foreign"]
"""


@pytest.mark.timeout(180)
def test_json_stream_and_cache_in_front_of_a_foreign_server(serve: Start, foreign: str) -> None:
    with openai.OpenAI(base_url=serve(config(foreign)).url, api_key="none", max_retries=0) as ai:
        told = ai.chat.completions.create(model="city-guide", messages=ASK, temperature=0, max_tokens=60)
        assert "The Amber Fox" in (told.choices[0].message.content or "")
        assert told.usage is not None
        assert told.usage.prompt_tokens > 0
        stream = ai.chat.completions.create(
            model="city-guide", messages=ASK, temperature=0, max_tokens=61, stream=True, seed=1
        )
        words = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert words == told.choices[0].message.content
        for _ in range(2):
            again = ai.chat.completions.with_raw_response.create(
                model="city-guide", messages=ASK, temperature=0, max_tokens=61, seed=1
            )
            assert again.headers["stepwell-step"] == "cache"
            assert again.parse().choices[0].message.content == words


@pytest.mark.timeout(180)
def test_its_refusals_reach_the_caller(serve: Start, foreign: str) -> None:
    url = serve(config(foreign).replace(str(MODEL), "no/such-model")).url
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as ai,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        ai.chat.completions.create(model="city-guide", messages=ASK, temperature=0)
    assert caught.value.status_code >= 400
