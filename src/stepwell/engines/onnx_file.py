"""Writes an ONNX model: the few parts of its protobuf schema (onnx.proto3, IR version 8) that a plain graph needs.

The numbers are the schema's field numbers. So neither `onnx` nor `protobuf` is needed where a model is only run.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Attribute = int | float | str | Sequence[int]
Array = NDArray[Any]

IR_VERSION, OPSET = 8, 17
CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
FLOAT, INT64 = 1, 7
TYPES = {"float32": FLOAT, "uint8": 2, "int8": 3, "int64": INT64, "float16": 10}
VARINT, SIZED, FIXED32 = 0, 2, 5


class Graph:
    """A graph being written: operators in order, and the arrays they use. Tensors are named t0, t1 and so on."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.arrays: list[bytes] = []
        self.num_names = 0

    def named(self) -> str:
        """A name that no other tensor has."""
        self.num_names += 1
        return f"t{self.num_names - 1}"

    def array(self, values: Array) -> str:
        """Add an array; give its name."""
        name = self.named()
        self.arrays.append(tensor(name, values))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", output: str = "", **attributes: Attribute) -> str:
        """Add an operator with one output; give the output's name."""
        output = output or self.named()
        self.nodes.append(node(kind, inputs, (output,), domain, attributes))
        return output

    def split(self, given: str, sizes: Sequence[int]) -> list[str]:
        """Cut a tensor along its last axis."""
        parts = [self.named() for _ in sizes]
        self.nodes.append(node("Split", (given, self.array(np.array(sizes, np.int64))), parts, "", {"axis": -1}))
        return parts

    def model(self, inputs: Sequence[bytes], outputs: Sequence[bytes]) -> bytes:
        """The whole model as bytes; `inputs` and `outputs` come from `value`."""
        graph = b"".join(
            [
                *(sized(1, each) for each in self.nodes),
                sized(2, b"graph"),
                *(sized(5, each) for each in self.arrays),
                *(sized(11, each) for each in inputs),
                *(sized(12, each) for each in outputs),
            ]
        )
        opsets = [sized(8, sized(1, domain) + number(2, of)) for domain, of in ((b"", OPSET), (CONTRIB.encode(), 1))]
        return b"".join([number(1, IR_VERSION), sized(2, b"stepwell"), sized(7, graph), *opsets])


def value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    """An input or output; a side with a name instead of a length may have any length."""
    sides = (number(1, side) if isinstance(side, int) else sized(2, side.encode()) for side in shape)
    dimensions = b"".join(sized(1, side) for side in sides)
    return sized(1, name.encode()) + sized(2, sized(1, number(1, kind) + sized(2, dimensions)))


def tensor(name: str, values: Array) -> bytes:
    """An array as TensorProto, its values as raw little-endian bytes."""
    shape = b"".join(number(1, side) for side in values.shape)
    raw = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    return b"".join([shape, number(2, TYPES[values.dtype.name]), sized(8, name.encode()), sized(9, raw)])


def node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, attributes: dict[str, Attribute]
) -> bytes:
    """An operator as NodeProto; an input that is left out has an empty name."""
    return b"".join(
        [
            *(sized(1, name.encode()) for name in inputs),
            *(sized(2, name.encode()) for name in outputs),
            sized(4, kind.encode()),
            *(sized(5, attribute(name, given)) for name, given in attributes.items()),
            sized(7, domain.encode()),
        ]
    )


def attribute(name: str, given: Attribute) -> bytes:
    """An operator's setting as AttributeProto."""
    head = sized(1, name.encode())
    match given:
        case float():
            return head + varint(2 << 3 | FIXED32) + struct.pack("<f", given) + number(20, 1)
        case int():
            return head + number(3, given) + number(20, 2)
        case str():
            return head + sized(4, given.encode()) + number(20, 3)
        case _:
            return head + b"".join(number(8, each) for each in given) + number(20, 7)


def sized(field: int, content: bytes) -> bytes:
    """A field of bytes."""
    return varint(field << 3 | SIZED) + varint(len(content)) + content


def number(field: int, given: int) -> bytes:
    """A field that is a whole number; negative ones in two's complement of 64 bits."""
    return varint(field << 3 | VARINT) + varint(given % 2**64)


def varint(given: int) -> bytes:
    """Seven bits a byte, the lowest first (protobuf)."""
    out = bytearray()
    while given > 0x7F:  # noqa: PLR2004
        out.append(given & 0x7F | 0x80)
        given >>= 7
    out.append(given)
    return bytes(out)
