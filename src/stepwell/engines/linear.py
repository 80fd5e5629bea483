"""A model's matrix products, as ONNX operators: in float32, or in int8 with what that needs to stay near."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from stepwell.engines.onnx_file import CONTRIB, Graph

Array = NDArray[np.float32]

STEPS = 63
"""Of a weight. With 127, the sum of two products passes what CPUs without VNNI add it up in (AVX2): the same weights
would give other vectors there. It costs a cosine of 0.001."""
SMOOTHING = 0.75
"""How much of what makes inputs uneven is moved into the weights."""


def plain(graph: Graph, given: str, weight: Array, bias: Array, spread: Array | None) -> str:  # noqa: ARG001
    """In float32."""
    return graph.op("Add", graph.op("MatMul", given, graph.array(weight.T)), graph.array(bias))


def int8(graph: Graph, given: str, weight: Array, bias: Array, spread: Array | None) -> str:
    """In int8: the weights with a scale for each output, the inputs with one for the whole tensor, found as they come.

    Where the inputs' `spread` is known they are first made even, and the weights take what was divided out
    (SmoothQuant, Xiao et al., arXiv 2211.10438, with a layer norm's own scales in place of calibration texts).
    """
    if spread is not None:
        even = spread**SMOOTHING / np.abs(weight).max(axis=0) ** (1 - SMOOTHING)
        even = (even / np.exp(np.log(even).mean())).astype(np.float32)
        given = graph.op("Mul", given, graph.array(1 / even))
        weight = weight * even
    scale = (np.abs(weight).max(axis=1) / STEPS).astype(np.float32)
    codes = np.rint(weight / scale[:, None]).astype(np.int8).T
    arrays = (codes, scale, np.zeros(len(scale), np.int8), bias)
    return graph.op("DynamicQuantizeMatMul", given, *map(graph.array, arrays), domain=CONTRIB)


Linear = Callable[[Graph, str, Array, Array, Array | None], str]
"""Writes weight (outputs, inputs) times a tensor, plus bias, into a graph, and gives the result's name. The last
argument says how large each input usually is, where that is known."""

PRECISIONS: Mapping[str, Linear] = {"fp32": plain, "int8": int8}
