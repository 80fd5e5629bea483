"""llama.cpp's own matrix products (ggml), called where they lie: in the library of the xllamacpp wheel, by ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache

import numpy as np
from numpy.typing import NDArray

from stepwell.errors import DistillError
from stepwell.quantize.weights import Floats
from stepwell.quantize.wheel import Signatures, functions

TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "BF16": 30,
}
"""Numbers of ggml.h's enum ggml_type: the ones in GGUF files."""
SPARE = 8
"""Tensors more than are asked for."""


class Place(ctypes.Structure):
    """ggml_init_params: memory for descriptions of tensors, none for what is in them."""

    _fields_ = (("size", c_size_t), ("memory", c_void_p), ("no_alloc", c_bool))


Log = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
Kinds = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)
SIGNATURES: Signatures = {
    "ggml_init": (c_void_p, (Place,)),
    "ggml_free": (None, (c_void_p,)),
    "ggml_log_set": (None, (Log, c_void_p)),
    "ggml_tensor_overhead": (c_size_t, ()),
    "ggml_graph_overhead_custom": (c_size_t, (c_size_t, c_bool)),
    "ggml_row_size": (c_size_t, (c_int, c_int64)),
    "ggml_quantize_chunk": (c_size_t, (c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p)),
    "ggml_new_tensor_2d": (c_void_p, (c_void_p, c_int, c_int64, c_int64)),
    "ggml_mul_mat": (c_void_p, (c_void_p, c_void_p, c_void_p)),
    "ggml_new_graph_custom": (c_void_p, (c_void_p, c_size_t, c_bool)),
    "ggml_build_forward_expand": (None, (c_void_p, c_void_p)),
    "ggml_backend_cpu_init": (c_void_p, ()),
    "ggml_backend_cpu_set_n_threads": (None, (c_void_p, c_int)),
    "ggml_backend_cpu_buffer_type": (c_void_p, ()),
    "ggml_backend_cpu_reg": (c_void_p, ()),
    "ggml_backend_reg_dev_get": (c_void_p, (c_void_p, c_size_t)),
    "ggml_backend_reg_get_proc_address": (c_void_p, (c_void_p, c_char_p)),
    "ggml_backend_dev_supports_op": (c_bool, (c_void_p, c_void_p)),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, (c_void_p, c_void_p)),
    "ggml_backend_buffer_free": (None, (c_void_p,)),
    "ggml_backend_tensor_set": (None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_backend_tensor_get": (None, (c_void_p, c_void_p, c_size_t, c_size_t)),
    "ggml_backend_graph_compute": (c_int, (c_void_p, c_void_p)),
    "ggml_backend_free": (None, (c_void_p,)),
}


@Log
def silent(level: int, text: bytes, data: int | None) -> None:
    """Say nothing."""


@cache
def library() -> ctypes.CDLL:
    """ggml, silent. Raises DistillError where the engine is not installed."""
    found = functions(SIGNATURES)
    found.ggml_log_set(silent, None)
    return found


@contextmanager
def products(format_: str, rows: int, width: int, *, num: int, tokens: int = 1) -> Iterator[Callable[[], int]]:
    """What multiplies `tokens` inputs by so many matrices of a format, on one thread; a call does it once.

    The weights lie as llama.cpp would lay them: in the order of a special kernel where it has one for them.
    """
    ggml = library()
    shape = (rows, width, tokens)
    with ExitStack() as stack:
        inner, outer, matrices, ends, inputs = described(stack, format_, shape, num)
        graph = ggml.ggml_new_graph_custom(outer, nodes(num), False)  # noqa: FBT003 - no gradients
        for end in ends:
            ggml.ggml_build_forward_expand(graph, end)
        kind = next((each for each in special() if computes(format_, shape, each)), ggml.ggml_backend_cpu_buffer_type())
        buffer(stack, inner, kind)
        buffer(stack, outer, ggml.ggml_backend_cpu_buffer_type())
        fill(format_, shape, matrices, inputs)
        backend = ggml.ggml_backend_cpu_init()
        stack.callback(ggml.ggml_backend_free, backend)
        ggml.ggml_backend_cpu_set_n_threads(backend, 1)
        yield lambda: int(ggml.ggml_backend_graph_compute(backend, graph))


def nodes(num: int) -> int:
    """Room in a graph of so many products."""
    return 2 * num + SPARE


def described(
    stack: ExitStack, format_: str, shape: tuple[int, int, int], num: int
) -> tuple[int, int, list[int], list[int], int]:
    """Matrices and their products with one input, without memory yet: places, matrices, products, input."""
    ggml = library()
    rows, width, tokens = shape
    inner, outer = place(stack, num), place(stack, num, graph=nodes(num))
    inputs = ggml.ggml_new_tensor_2d(outer, TYPES["F32"], width, tokens)
    matrices = [ggml.ggml_new_tensor_2d(inner, TYPES[format_], width, rows) for _ in range(num)]
    return inner, outer, matrices, [ggml.ggml_mul_mat(outer, each, inputs) for each in matrices], inputs


def place(stack: ExitStack, num: int, graph: int = 0) -> int:
    """A place for the descriptions of so many tensors, and of a graph."""
    ggml = library()
    size = (num + SPARE) * ggml.ggml_tensor_overhead()
    if graph:
        size += ggml.ggml_graph_overhead_custom(graph, False)  # noqa: FBT003
    context = ggml.ggml_init(Place(size, None, True))  # noqa: FBT003
    stack.callback(ggml.ggml_free, context)
    return int(context)


def buffer(stack: ExitStack, context: int, kind: int) -> None:
    """Memory of a kind for all tensors of a place. Raises DistillError where there is not enough."""
    ggml = library()
    made = ggml.ggml_backend_alloc_ctx_tensors_from_buft(context, kind)
    if not made:
        raise DistillError("there is no memory for the matrices that are to be timed: name a smaller footprint")
    stack.callback(ggml.ggml_backend_buffer_free, made)


@cache
def special() -> tuple[int, ...]:
    """Kinds of memory in which weights lie in the order of special kernels (llama.cpp's CPU_REPACK, AMX)."""
    ggml = library()
    place_of = ggml.ggml_backend_reg_get_proc_address(ggml.ggml_backend_cpu_reg(), b"ggml_backend_dev_get_extra_bufts")
    if not place_of:
        return ()
    listed = Kinds(place_of)(device())
    kinds: list[int] = []
    while listed and listed[len(kinds)]:
        kinds.append(int(listed[len(kinds)]))
    return tuple(kinds)


def device() -> int:
    """The processor."""
    ggml = library()
    return int(ggml.ggml_backend_reg_dev_get(ggml.ggml_backend_cpu_reg(), 0))


def computes(format_: str, shape: tuple[int, int, int], kind: int) -> bool:
    """Whether matrices can be multiplied by where they lie in this kind of memory."""
    with ExitStack() as stack:
        inner, _, _, ends, _ = described(stack, format_, shape, 1)
        buffer(stack, inner, kind)
        return bool(library().ggml_backend_dev_supports_op(device(), ends[0]))


def fill(format_: str, shape: tuple[int, int, int], matrices: list[int], inputs: int) -> None:
    """Normal numbers for matrices and inputs."""
    rows, width, tokens = shape
    chance = np.random.default_rng(0)
    data = quantized(format_, chance.standard_normal((rows, width), dtype=np.float32))
    for each in matrices:
        library().ggml_backend_tensor_set(each, data.ctypes.data, 0, data.nbytes)
    read = chance.standard_normal((tokens, width), dtype=np.float32)
    library().ggml_backend_tensor_set(inputs, read.ctypes.data, 0, read.nbytes)


def quantized(format_: str, weight: Floats) -> NDArray[np.uint8]:
    """A matrix (rows, width) as ggml's own quantizer writes it: (rows, bytes)."""
    ggml = library()
    rows, width = weight.shape
    data = np.empty((rows, ggml.ggml_row_size(TYPES[format_], width)), np.uint8)
    source = np.ascontiguousarray(weight, np.float32)
    ggml.ggml_quantize_chunk(TYPES[format_], source.ctypes.data, data.ctypes.data, 0, rows, width, None)
    return data
