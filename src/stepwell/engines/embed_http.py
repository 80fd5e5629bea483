"""Any OpenAI-compatible server of embeddings, with the patience, retries and breaker of the `http` engine."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stepwell.engines.http import Http
from stepwell.engines.vectors import Vectors, checked, readable
from stepwell.errors import EngineBadReply
from stepwell.types import Caller, Request

NOBODY = Caller("", "")
MAX_READ_CHARS = 1500


class Embedding(Struct):
    """One vector of a reply: a list of numbers, or base64 of little-endian float32."""

    index: int
    embedding: list[float] | str


class Reply(Struct):
    """What matters in a reply of `/v1/embeddings`."""

    data: list[Embedding]
    model: str = ""


decode = msgspec.json.Decoder(Reply).decode


class HttpEmbedder:
    """See `protocols.Embedder`. Its vectors must keep their length, and the server its model, while it runs."""

    def __init__(self, engine: Http, model: str, *, version: str = "") -> None:
        """Ask `engine` for `model`; another `version` makes what was kept before a stranger."""
        self.engine, self.model = engine, model
        self.name = "/".join(("http", engine.config.url, model, *([version] if version else [])))
        self.num_dimensions = 0
        """As the first reply has it."""
        self.answers_as = ""
        """The model's name as the server gives it."""

    def reads(self, text: str) -> bool:
        """Whether all of a text counts: what nearly every model of embeddings reads, for servers do not say."""
        return len(text) <= MAX_READ_CHARS

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of length 1, shape (texts, dimensions). Raises EngineError."""
        if not texts:
            return np.empty((0, self.num_dimensions), np.float32)
        body = msgspec.json.encode({"model": self.model, "input": [readable(text) for text in texts]})
        request = Request(id="", kind="embedding", caller=NOBODY, model=self.model, body=body, canonical=b"")
        chunks = self.engine.generate(request)
        try:
            chunk = await anext(chunks)
        finally:
            await chunks.aclose()
        return self.read(chunk.data, len(texts))

    def read(self, data: bytes, num_texts: int) -> Vectors:
        """A reply's vectors in the order of the texts. Raises EngineBadReply."""
        try:
            reply = decode(data)
            given = {each.index: numbers(each.embedding) for each in reply.data}
            vectors = np.stack([given[index] for index in range(num_texts)])
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, ValueError) as error:
            raise EngineBadReply(f"no vector for each text: {error!r}", engine=self.name) from error
        self.recognise(reply.model, vectors.shape[1])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return checked(vectors.astype(np.float32), self.name, (num_texts, self.num_dimensions))

    def recognise(self, model: str, num_dimensions: int) -> None:
        """Raise EngineBadReply where this is not the model that answered before: its vectors mean something else."""
        if (self.num_dimensions or num_dimensions) != num_dimensions or (self.answers_as or model) != model:
            before, now = (f"{self.answers_as!r}, {self.num_dimensions}", f"{model!r}, {num_dimensions}")
            what = f"the model changed from ({before}) to ({now}): name the new one, or a new version, and restart"
            raise EngineBadReply(what, engine=self.name)
        self.num_dimensions, self.answers_as = num_dimensions, model

    async def close(self) -> None:
        """Close the connections."""
        await self.engine.close()


def numbers(embedding: list[float] | str) -> NDArray[np.float64]:
    """One vector, however it was written. Raises ValueError."""
    if isinstance(embedding, list):
        return np.array(embedding, np.float64)
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float64)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
