"""Texts to vectors in this process: all-MiniLM-L6-v2 on ONNX Runtime, one thread, and nobody waits for a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stepwell.engines import minilm
from stepwell.engines.vectors import Vectors, checked, readable
from stepwell.errors import ConfigError, EngineUnavailable

CHUNK = 16
"""Texts embedded in one go: between two of them a single question may pass."""
CHARACTERS_PER_TOKEN = 64
"""What is cut off unread lies far behind the last token that counts, save where words are longer than this."""


class MiniLm:
    """See `protocols.Embedder`. A text counts up to `max_tokens`; whoever cancels `embed` is not waited for."""

    num_dimensions = minilm.NUM_DIMENSIONS

    def __init__(self, folder: Path | None, kept: Path, *, precision: str = "int8", max_tokens: int = 128) -> None:
        """Load the weights of `folder` (None: the registry package), converted below `kept`. Raises ConfigError."""
        if not 2 < max_tokens <= minilm.MAX_TOKENS:  # noqa: PLR2004 - two tokens are the frame
            raise ConfigError(f"max_tokens is 3 to {minilm.MAX_TOKENS}", field="semantic.path")
        folder = minilm.packaged() if folder is None else folder
        model, digest = minilm.converted(folder, kept, precision)
        self.name = f"{minilm.MODEL}/{precision}/{digest}/{max_tokens}"
        self.max_characters = max_tokens * CHARACTERS_PER_TOKEN
        self.tokenizer = tokenizer(folder / "tokenizer.json", max_tokens)
        self.session = session(model)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="embed")

    def reads(self, text: str) -> bool:
        """Whether all of a text counts."""
        if len(text) > self.max_characters:
            return False
        return not self.tokenizer.encode(readable(text)).overflowing

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length 1, shape (texts, 384). Raises EngineError."""
        loop = asyncio.get_running_loop()
        parts = []
        for start in range(0, len(texts), CHUNK):
            try:
                work = loop.run_in_executor(self.thread, self.encode, texts[start : start + CHUNK])
            except RuntimeError as error:
                raise EngineUnavailable("it is closed", engine=self.name) from error
            parts.append(await work)
        return np.concatenate(parts) if parts else np.empty((0, self.num_dimensions), np.float32)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts in this thread, one by one: what stands beside a text in a batch would change its int8 steps."""
        tokens = (self.tokenizer.encode(readable(text[: self.max_characters])).ids for text in texts)
        vectors = np.concatenate([self.run(np.array([each], np.int64)) for each in tokens])
        return checked(vectors, self.name, (len(texts), self.num_dimensions))

    def run(self, ids: NDArray[np.int64]) -> Vectors:
        """One pass through the model. Raises EngineUnavailable where ONNX Runtime fails."""
        try:
            vectors: Vectors = self.session.run(None, {"ids": ids})[0]
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise EngineUnavailable(f"ONNX Runtime failed: {error}", engine=self.name) from error
        return vectors

    async def close(self) -> None:
        """Let the text in hand end; nothing more is taken."""
        await asyncio.to_thread(self.thread.shutdown, wait=True, cancel_futures=True)


def tokenizer(file: Path, max_tokens: int) -> Any:  # noqa: ANN401 - tokenizers has no types
    """The model's tokenizer, cutting at `max_tokens`. Raises ConfigError."""
    try:
        made = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigError(f"{file} is no tokenizer ({error})", field="semantic.path") from error
    made.enable_truncation(max_tokens)
    made.no_padding()
    return made


def session(model: bytes) -> Any:  # noqa: ANN401 - ONNX Runtime has no types
    """ONNX Runtime on one thread that never spins: other requests want the other cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
