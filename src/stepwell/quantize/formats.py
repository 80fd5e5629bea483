"""The formats of weights that engines read: how many numbers share a scale, what a code may be, and what that costs.

GGUF's are llama.cpp's blocks (ggml-common.h); `int8`, `int4_g32` and `int4_g128` are compressed-tensors', whose scales
have 16 bits.
"""

from __future__ import annotations

from msgspec import Struct

from stepwell.errors import DistillError

ROW = 0
"""A group as wide as the row."""


class Format(Struct, frozen=True):
    """One format: a weight is `step * code + floor`, with a step (and a floor) for every group."""

    name: str
    group: int
    """Weights that share a step; ROW: all of a row."""
    low: int
    high: int
    """Codes, both ends included."""
    block: int
    """Weights that are stored together: a row's width must be a multiple of it."""
    block_bytes: int
    """Bytes of a block; 0 where a group is a row."""
    floors: bool = False
    """Whether a group has a floor, too; without one the codes lie around 0."""
    scale_low: int = 0
    scale_high: int = 0
    """Where steps are themselves codes (K-quants): their range, under a 16-bit number for the whole block."""
    engine: str = "gguf"
    """Which kind of file has it: gguf or compressed-tensors."""

    @property
    def nested(self) -> bool:
        """Whether steps are themselves codes."""
        return self.scale_high > 0

    def bits(self, width: int) -> float:
        """Bits a weight takes in a row so wide, scales included."""
        if self.block_bytes:
            return 8 * self.block_bytes / self.block
        return 8 + 16 / width

    def fits(self, width: int) -> bool:
        """Whether rows so wide can be written."""
        return width % self.block == 0


FORMATS = {
    each.name: each
    for each in (
        Format("Q8_0", 32, -127, 127, 32, 34),
        Format("Q6_K", 16, -32, 31, 256, 210, scale_low=-128, scale_high=127),
        Format("Q5_K", 32, 0, 31, 256, 176, floors=True, scale_high=63),
        Format("Q5_1", 32, 0, 31, 32, 24, floors=True),
        Format("Q5_0", 32, -16, 15, 32, 22),
        Format("Q4_K", 32, 0, 15, 256, 144, floors=True, scale_high=63),
        Format("Q4_1", 32, 0, 15, 32, 20, floors=True),
        Format("Q4_0", 32, -8, 7, 32, 18),
        Format("Q3_K", 16, -4, 3, 256, 110, scale_low=-32, scale_high=31),
        Format("Q2_K", 16, 0, 3, 256, 84, floors=True, scale_high=15),
        Format("int8", ROW, -127, 127, 1, 0, engine="compressed-tensors"),
        Format("int4_g128", 128, -8, 7, 128, 66, engine="compressed-tensors"),
        Format("int4_g32", 32, -8, 7, 32, 18, engine="compressed-tensors"),
    )
}
PLAIN = {"F32": 32, "F16": 16, "BF16": 16}
"""Numbers as they are: bits of each."""


def format_of(name: str) -> Format:
    """The format of a name. Raises DistillError where there is none."""
    if name not in FORMATS:
        raise DistillError(f"no format {name!r}: {', '.join(FORMATS)}")
    return FORMATS[name]


def check(format_: Format, name: str, width: int) -> None:
    """Raise DistillError where a weight's rows do not fit a format."""
    if format_.fits(width):
        return
    others = ", ".join(each.name for each in FORMATS.values() if each.engine == format_.engine and each.fits(width))
    what = f"{name} is {width} wide, and {format_.name} takes {format_.block} at a time"
    raise DistillError(f"{what}: take {others or 'no format'}, or another width")
