"""Products are llama.cpp's own: every format multiplies, and what is timed is what was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from stepwell.quantize import ggml
from stepwell.quantize.formats import FORMATS
from stepwell.quantize.latency import measured, nanoseconds

SERVED = [name for name, each in FORMATS.items() if each.engine == "gguf"]


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", *SERVED])
def test_every_format_multiplies(name: str) -> None:
    with ggml.products(name, 64, 256, num=2) as run:
        assert run() == 0


def test_times_are_of_every_format_that_fits_a_shape() -> None:
    found = nanoseconds(
        measured([(64, 256), (64, 96), (64, 256)], ["Q8_0", "Q4_K", "int8"], footprint_bytes=1, rounds=1)
    )
    assert set(found) == {("Q8_0", 64, 256), ("Q4_K", 64, 256), ("Q8_0", 64, 96)}
    assert all(each > 0 for each in found.values())


def test_a_larger_matrix_takes_longer() -> None:
    found = nanoseconds(measured([(64, 256), (2048, 256)], ["Q8_0"]))
    assert found["Q8_0", 2048, 256] > 4 * found["Q8_0", 64, 256]


def test_four_bits_lie_in_the_order_of_the_kernel_that_has_one() -> None:
    special = ggml.special()
    if not special:
        pytest.skip("llama.cpp has no special kernels for this processor")
    assert any(ggml.computes("Q4_0", (64, 256, 1), kind) for kind in special)
    assert not any(ggml.computes("F32", (64, 256, 1), kind) for kind in special)


def test_what_it_writes_is_as_long_as_the_format_says() -> None:
    weight = np.random.default_rng(0).standard_normal((8, 512)).astype(np.float32)
    for name in SERVED:
        assert ggml.quantized(name, weight).nbytes == 8 * 512 * FORMATS[name].bits(512) / 8
