"""llama.cpp's own C functions, in the shared library that the xllamacpp wheel brings: load, tokenize, decode, logits.

The wheel's server gives logits one token and one JSON reply at a time; these give them for whole texts. A C library is
called without its header here, so nothing is assumed that is not checked: structures travel as the bytes that the
library filled in itself, and what was set in them is asked back (`opened`). Only for a process of its own:
a library that means something else by a name may end the process.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepwell.errors import DistillError
from stepwell.quantize.engine_server import flags
from stepwell.quantize.wheel import Signatures, Strange, functions

Floats = NDArray[np.float32]
ROOM = 128
"""Numbers of 32 bits in the bytes that a structure may take: llama.cpp's largest has 40."""
PIECE_BYTES = 1024
"""More than any token spells."""
CONTEXT, BATCH, SEQUENCES = 0, 1, 3
"""Which number of the context's structure is which."""
POINTER, INT, CHARS = c.c_void_p, c.c_int32, c.c_char_p


class Raw(c.Structure):
    """A structure whose fields are the library's affair."""

    _fields_ = (("numbers", c.c_uint32 * ROOM),)


class Batch(c.Structure):
    """llama_batch: tokens, where each stands, whose it is, and whether its logits are wanted."""

    _fields_ = (
        ("num", INT),
        ("tokens", c.POINTER(INT)),
        ("vectors", POINTER),
        ("places", c.POINTER(INT)),
        ("num_texts", c.POINTER(INT)),
        ("texts", c.POINTER(c.POINTER(INT))),
        ("wanted", c.POINTER(c.c_int8)),
    )


SIGNATURES: Signatures = {
    "llama_model_default_params": (Raw, ()),
    "llama_context_default_params": (Raw, ()),
    "llama_model_load_from_file": (POINTER, (CHARS, Raw)),
    "llama_init_from_model": (POINTER, (POINTER, Raw)),
    "llama_set_n_threads": (None, (POINTER, INT, INT)),
    "llama_n_ctx": (c.c_uint32, (POINTER,)),
    "llama_n_batch": (c.c_uint32, (POINTER,)),
    "llama_n_seq_max": (c.c_uint32, (POINTER,)),
    "llama_batch_init": (Batch, (INT, INT, INT)),
    "llama_decode": (INT, (POINTER, Batch)),
    "llama_get_logits_ith": (c.POINTER(c.c_float), (POINTER, INT)),
    "llama_get_memory": (POINTER, (POINTER,)),
    "llama_memory_clear": (None, (POINTER, c.c_bool)),
    "llama_model_get_vocab": (POINTER, (POINTER,)),
    "llama_vocab_n_tokens": (INT, (POINTER,)),
    "llama_tokenize": (INT, (POINTER, CHARS, INT, c.POINTER(INT), INT, c.c_bool, c.c_bool)),
    "llama_token_to_piece": (INT, (POINTER, INT, CHARS, INT, INT, c.c_bool)),
    "llama_print_system_info": (CHARS, ()),
    "llama_model_free": (None, (POINTER,)),
    "llama_free": (None, (POINTER,)),
}
HUSH = c.CFUNCTYPE(None, c.c_int, CHARS, POINTER)(lambda *_: None)
"""Takes the library's log, and must live as long as the library."""


@cache
def library() -> c.CDLL:
    """The wheel's library, silent. Raises DistillError where it, or one of its functions, is missing."""
    found = functions({**SIGNATURES, "llama_log_set": (None, (POINTER, POINTER))})
    found.llama_log_set(HUSH, None)
    return found


@dataclass(frozen=True)
class Opened:
    """A model with room for texts of so many tokens."""

    model: int
    context: int
    vocabulary: int
    batch: Batch
    num_tokens: int
    """In the vocabulary."""


@contextmanager
def opened(file: Path, longest: int, threads: int = 1) -> Iterator[Opened]:
    """A GGUF file, loaded. Raises DistillError where llama.cpp cannot load it, or is not as this module knows it."""
    lib = library()
    model = lib.llama_model_load_from_file(str(file).encode(), lib.llama_model_default_params())
    if not model:
        raise DistillError("llama.cpp cannot load it")
    asked = lib.llama_context_default_params()
    asked.numbers[CONTEXT] = asked.numbers[BATCH] = size = -(-longest // 256) * 256
    context = lib.llama_init_from_model(model, asked)
    if not context:
        raise DistillError(f"llama.cpp has no room for texts of {longest} tokens")
    told = (lib.llama_n_ctx(context), lib.llama_n_batch(context), lib.llama_n_seq_max(context))
    batch = lib.llama_batch_init(size, 0, 1)
    if told != (size, size, asked.numbers[SEQUENCES]) or batch.num or batch.vectors or not batch.tokens:
        raise Strange("this llama.cpp lays its structures out in another way")
    lib.llama_set_n_threads(context, threads, threads)
    vocabulary = lib.llama_model_get_vocab(model)
    try:
        yield Opened(model, context, vocabulary, batch, lib.llama_vocab_n_tokens(vocabulary))
    finally:
        lib.llama_free(context)
        lib.llama_model_free(model)


def logits(held: Opened, ids: Sequence[int], begin: int) -> Floats:
    """The logits after each token from `begin` on, (tokens, vocabulary). Raises DistillError where decoding fails."""
    lib, batch = library(), held.batch
    if not ids or min(ids) < 0 or max(ids) >= held.num_tokens:
        raise DistillError(f"a text has a token that the vocabulary of {held.num_tokens} has not, or no token at all")
    lib.llama_memory_clear(lib.llama_get_memory(held.context), True)  # noqa: FBT003 - a C function
    batch.num = len(ids)
    for at, token in enumerate(ids):
        batch.tokens[at], batch.places[at], batch.wanted[at] = token, at, at >= begin
        batch.num_texts[at], batch.texts[at][0] = 1, 0
    if lib.llama_decode(held.context, batch):
        raise DistillError("llama.cpp could not decode a text")
    made = np.empty((len(ids) - begin, held.num_tokens), np.float32)
    for row in range(len(made)):
        made[row] = np.ctypeslib.as_array(lib.llama_get_logits_ith(held.context, begin + row), (held.num_tokens,))
    return made


def tokenized(held: Opened, text: str) -> list[int]:
    """Token ids of a text, without those that begin or end one; control tokens may be spelled in it."""
    data = text.encode()
    room = (INT * (len(data) + 8))()
    num = library().llama_tokenize(held.vocabulary, data, len(data), room, len(room), False, True)  # noqa: FBT003
    return list(room[: max(num, 0)])


def spelled(held: Opened, ids: Sequence[int]) -> str:
    """The text of token ids, piece by piece as it is generated; control tokens are left out."""
    room = c.create_string_buffer(PIECE_BYTES)
    made = b""
    for token in ids:
        num = library().llama_token_to_piece(held.vocabulary, token, room, len(room), 0, False)  # noqa: FBT003
        made += room.raw[: max(num, 0)]
    return made.decode(errors="replace")


def processor() -> str:
    """What of the processor this build uses."""
    return flags(library().llama_print_system_info().decode())


def dequantized(packed: NDArray[np.uint8], kind: str, width: int) -> Floats:
    """Packed rows (rows, bytes) as llama.cpp's own code reads them, (rows, width)."""
    read = getattr(library(), f"dequantize_row_{kind.lower().replace('_k', '_K')}")
    read.restype, read.argtypes = None, (POINTER, POINTER, c.c_int64)
    packed = np.ascontiguousarray(packed)
    made = np.empty((len(packed), width), np.float32)
    read(packed.ctypes.data, made.ctypes.data, made.size)
    return made
