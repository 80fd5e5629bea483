"""Ready is who can answer: also where the store that processes share is gone."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

import pytest

from conftest import Start, Upstream, forwarding
from servers import free_port

pytest.importorskip("onnxruntime")
pytest.importorskip("redis")


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_gateway_whose_store_is_gone_is_ready(
    serve: Start, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    converted = tmp_path_factory.getbasetemp() / "minilm"
    text = forwarding(upstream) + f'[cache]\nurl = "redis://127.0.0.1:{free_port()}"\n'
    gateway = serve(f'{text}[semantic]\nconverted = "{converted}"\n[promise]\nerror = 0.1\njudge = "exact"\n')
    url = gateway.url.removesuffix("/v1") + "/readyz"
    until_s = time.monotonic() + 20
    while status(url) != 200 and time.monotonic() < until_s:
        time.sleep(0.05)
    assert status(url) == 200
