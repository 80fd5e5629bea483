"""How far files are from the parent in the engine, as a table; `stepwell.quantize.engine_divergence` measures it."""

from __future__ import annotations

from collections.abc import Mapping

from stepwell.quantize.divergence import Divergence


def told(found: Mapping[str, Divergence], sizes: Mapping[str, int]) -> str:
    """A line a file: bytes, KL with its standard error, top-1 agreement."""
    lines = [f"{'file':<34} {'bytes':>10} {'KL x 1000':>18} {'top-1 %':>8}"]
    for name, each in found.items():
        kl = f"{1000 * each.kl:.3f} ± {1000 * each.error:.3f}"
        lines.append(f"{name:<34} {sizes[name]:>10,} {kl:>18} {100 * each.top1:>8.2f}")
    return "\n".join(lines)
