"""Embeddings of a server: in either encoding, in any order, and nothing that is not a vector for each text."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from asks import engine

from conftest import Upstream, json_reply
from stepwell.engines.embed_http import HttpEmbedder
from stepwell.errors import EngineBadReply, EngineRefusal, EngineUnavailable

TWO = [[3.0, 4.0, 0.0], [0.0, 0.0, -2.0]]


def reply(vectors: list[Any], model: str = "small-embedder", order: list[int] | None = None) -> bytes:
    at = order or list(range(len(vectors)))
    data = [{"object": "embedding", "index": index, "embedding": vectors[index]} for index in at]
    return json.dumps({"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 3}}).encode()


def embedder(upstream: Upstream, **more: Any) -> HttpEmbedder:
    return HttpEmbedder(engine(upstream.url, **more), "small-embedder")


async def test_vectors_come_in_the_order_of_the_texts_and_of_length_one(upstream: Upstream) -> None:
    upstream.script = json_reply(reply(TWO, order=[1, 0]))
    made = embedder(upstream)
    found = await made.embed(["a", "b\ud800"])
    assert found.tolist() == pytest.approx(np.array([[0.6, 0.8, 0], [0, 0, -1]]))
    assert found.dtype == np.float32
    assert made.num_dimensions == 3
    head, body = upstream.requests[0]
    assert b"POST /v1/embeddings" in head
    assert json.loads(body) == {"model": "small-embedder", "input": ["a", "b?"]}
    await made.close()


async def test_base64_is_read_as_numbers_are(upstream: Upstream) -> None:
    coded = [base64.b64encode(np.array(each, "<f4").tobytes()).decode() for each in TWO]
    upstream.script = json_reply(reply(coded))
    made = embedder(upstream)
    assert (await made.embed(["a", "b"])).tolist() == pytest.approx(np.array([[0.6, 0.8, 0], [0, 0, -1]]))
    await made.close()


async def test_no_text_asks_nobody(upstream: Upstream) -> None:
    made = embedder(upstream)
    assert (await made.embed([])).shape[0] == 0
    assert upstream.requests == []
    await made.close()


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"data": []}',
        reply(TWO[:1]),
        reply([TWO[0], [1.0, 2.0]]),
        reply([TWO[0], [0.0, 0.0, 0.0]]),
        reply([TWO[0], []]),
        reply([TWO[0], "!!!"]),
        reply([TWO[0], base64.b64encode(b"abc").decode()]),
        reply([TWO[0], base64.b64encode(np.array([1, np.nan, 1], "<f4").tobytes()).decode()]),
        reply([TWO[0], [1e308, 1e308, 1e308]]),
        reply([TWO[0], [[1.0], [2.0], [3.0]]]),
        b'{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}',
        b'{"error": {"message": "no"}}',
    ],
)
async def test_what_is_no_vector_for_each_text_is_a_bad_reply(upstream: Upstream, body: bytes) -> None:
    upstream.script = json_reply(body)
    made = embedder(upstream)
    with pytest.raises(EngineBadReply):
        await made.embed(["a", "b"])
    await made.close()


@pytest.mark.parametrize("changed", [reply([[1.0, 0.0]]), reply(TWO[:1], model="another")])
async def test_a_model_that_changes_is_not_mixed_in(upstream: Upstream, changed: bytes) -> None:
    upstream.script = json_reply(reply(TWO[:1]))
    made = embedder(upstream)
    await made.embed(["a"])
    upstream.script = json_reply(changed)
    with pytest.raises(EngineBadReply, match="changed"):
        await made.embed(["a"])
    upstream.script = json_reply(reply(TWO[:1]))
    assert (await made.embed(["a"])).shape == (1, 3)
    await made.close()


async def test_a_server_that_refuses_or_is_gone(upstream: Upstream) -> None:
    upstream.script = json_reply(b'{"error": {"message": "too long"}}', "400 Bad Request")
    made = embedder(upstream)
    with pytest.raises(EngineRefusal):
        await made.embed(["a"])
    gone = HttpEmbedder(engine("http://127.0.0.1:9/v1"), "small-embedder")
    with pytest.raises(EngineUnavailable):
        await gone.embed(["a"])
    await made.close()
    await gone.close()


def test_another_model_url_or_version_is_another_name() -> None:
    names = {
        HttpEmbedder(engine(url), model, version=version).name
        for url in ("http://127.0.0.1:9/v1", "http://127.0.0.1:8/v1")
        for model in ("a", "b")
        for version in ("", "2")
    }
    assert len(names) == 8
