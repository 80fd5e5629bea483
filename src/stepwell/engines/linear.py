"""A model's matrix products, as ONNX operators: in float32, or in int8 with what that needs to stay near."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from stepwell.engines.onnx_file import CONTRIB, Graph

Array = NDArray[np.float32]

STEPS = 63
"""Of a weight. With 127, the sum of two products passes what CPUs without VNNI add it up in (AVX2): the same weights
would give other vectors there."""
SMOOTHING = 0.75
"""How much of what makes inputs uneven is moved into the weights."""
BLOCK, BLOCK_STEPS, BLOCK_ZERO = 128, 127, 128


def plain(graph: Graph, given: str, weight: Array, bias: Array, spread: Array | None) -> str:  # noqa: ARG001
    """In float32."""
    return graph.op("Add", graph.op("MatMul", given, graph.array(weight.T)), graph.array(bias))


def int8(graph: Graph, given: str, weight: Array, bias: Array, spread: Array | None) -> str:
    """In int8: as suits the inputs.

    Where their `spread` is known they are first made even, and the weights take what was divided out (SmoothQuant,
    Xiao et al., arXiv 2211.10438, with a layer norm's own scales in place of calibration texts). A product that takes
    many inputs to few outputs comes behind a GELU, where few values are large: it is done in blocks.
    """
    if weight.shape[1] > weight.shape[0]:
        return in_blocks(graph, given, weight, bias)
    if spread is not None:
        even = spread**SMOOTHING / np.abs(weight).max(axis=0) ** (1 - SMOOTHING)
        even = (even / np.exp(np.log(even).mean())).astype(np.float32)
        given = graph.op("Mul", given, graph.array(1 / even))
        weight = weight * even
    return whole(graph, given, weight, bias)


def whole(graph: Graph, given: str, weight: Array, bias: Array) -> str:
    """Weights with a scale for each output, inputs with one for the whole tensor, found as they come."""
    scale = (np.abs(weight).max(axis=1) / STEPS).astype(np.float32)
    codes = np.rint(weight / scale[:, None]).astype(np.int8).T
    arrays = (codes, scale, np.zeros(len(scale), np.int8), bias)
    return graph.op("DynamicQuantizeMatMul", given, *map(graph.array, arrays), domain=CONTRIB)


def in_blocks(graph: Graph, given: str, weight: Array, bias: Array) -> str:
    """Weights and inputs with a scale for every 128 of them."""
    outputs, inputs = weight.shape
    parts = weight.reshape(outputs, inputs // BLOCK, BLOCK)
    scale = (np.abs(parts).max(axis=2) / BLOCK_STEPS).astype(np.float32)
    codes = (np.rint(parts / scale[..., None]) + BLOCK_ZERO).astype(np.uint8)
    shape = {"K": inputs, "N": outputs, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    arrays = (graph.array(codes), graph.array(scale), "", "", graph.array(bias))
    return graph.op("MatMulNBits", given, *arrays, domain=CONTRIB, **shape)


Linear = Callable[[Graph, str, Array, Array, Array | None], str]
"""Writes weight (outputs, inputs) times a tensor, plus bias, into a graph, and gives the result's name. The last
argument says how large each input usually is, where that is known."""

PRECISIONS: Mapping[str, Linear] = {"fp32": plain, "int8": int8}
