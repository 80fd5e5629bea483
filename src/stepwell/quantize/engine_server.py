"""The same from llama.cpp's own server, which is what serves: slower, a token at a time, without C functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from stepwell.engines.llama import started
from stepwell.errors import DistillError

Floats = NDArray[np.float32]
SURELY = 1e6
KEY = token_hex(32)
"""Of the port that the server opens whether one wants it or not."""


def opened(file: Path, longest: int, threads: int = 1) -> Any:  # noqa: ANN401 - xllamacpp has no types
    """A server with the file loaded. Raises DistillError."""
    try:
        import xllamacpp  # noqa: PLC0415 - said well where it is missing
    except ImportError as error:
        raise DistillError("llama.cpp is needed: pip install 'stepwell[embedded]'") from error
    given = xllamacpp.CommonParams()
    given.model.path = str(file)
    given.n_parallel, given.n_ctx = 1, -(-(longest + 1) // 256) * 256
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = threads
    given.warmup, given.verbosity, given.api_keys = False, -1, [KEY]
    try:
        return started(given)
    except RuntimeError as error:
        raise DistillError(f"llama.cpp cannot load it ({error})") from error


def logprobs(server: Any, ids: Sequence[int], num_tokens: int, plain: int) -> Floats:  # noqa: ANN401
    """What follows these tokens: log-probabilities of the whole vocabulary. Raises DistillError.

    `plain` is a token that spells a letter. It is made to be the one that is picked: an end, or half a letter, would
    be withheld and its probabilities with it. What is told is from before that.
    """
    asked = {"prompt": list(ids), "n_predict": 1, "temperature": 0, "n_probs": num_tokens, "cache_prompt": True}
    told = server.handle_completions(asked | {"post_sampling_probs": False, "logit_bias": [[plain, SURELY]]})
    try:
        content = told["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    except (KeyError, TypeError, IndexError) as error:
        raise DistillError(f"llama.cpp's server refuses, or tells nothing: {told.get('error', told)}") from error
    made = np.full(num_tokens, np.nan, np.float32)
    for each in content:
        made[each["id"]] = each["logprob"]
    if np.isnan(made).any():
        raise DistillError("llama.cpp's server did not tell the whole vocabulary's probabilities, or told NaN")
    return made


def num_tokens(server: Any) -> int:  # noqa: ANN401
    """Tokens of the vocabulary."""
    return int(asked(server, "/v1/models")["data"][0]["meta"]["n_vocab"])


def tokenized(server: Any, text: str) -> list[int]:  # noqa: ANN401
    """Token ids of a text, without those that begin or end one; control tokens may be spelled in it."""
    return [
        int(each)
        for each in asked(server, "/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]
    ]


def spelled(server: Any, ids: Sequence[int]) -> str:  # noqa: ANN401
    """The text of token ids."""
    return str(asked(server, "/detokenize", {"tokens": list(ids)})["content"])


def asked(server: Any, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:  # noqa: ANN401
    """What the server's port answers. Raises DistillError where it is no JSON object."""
    data = None if body is None else json.dumps(body).encode()
    head = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with urlopen(Request(server.listening_address + path, data, head)) as reply:  # noqa: S310 - its own loopback port
        told = json.load(reply)
    if not isinstance(told, dict):
        raise DistillError(f"llama.cpp's server answers {path} with {told!r}")
    return told


def processor() -> str:
    """What of the processor this build uses."""
    import xllamacpp  # noqa: PLC0415

    return flags(str(xllamacpp.get_system_info()))


def flags(told: str) -> str:
    """`AVX2 FMA` of `CPU : AVX2 = 1 | FMA = 1 | NEON = 0`."""
    parts = [part.split(":")[-1] for part in told.split("|")]
    return " ".join(part.split("=")[0].strip() for part in parts if part.strip().endswith("= 1"))
