"""How quickly the command starts, and what the extra `train` takes on disk with the CPU build of torch.

A start is a new process of `stepwell --help` or `stepwell distill --help`, in CPU seconds: the seconds on a free core.
The disk is a fresh environment's: torch, then this checkout with the extra, as pip leaves them, compiled files (.pyc)
among them; the environment's own pip and setuptools are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
TORCH = "torch==2.13.0"
COMMANDS = (["--help"], ["distill", "--help"])
STARTS = 11
NOT_OURS = ("pip", "setuptools", "_distutils_hack", "pkg_resources", "distutils-precedence")
SHOWN = 12


def measure(*, quick: bool) -> dict[str, Any]:
    """`cli_start_s`, `install_bytes`, and the latter with the extra `transformers`."""
    figures: dict[str, Any] = {"cli_start_s": max(start_s(words, 5 if quick else STARTS) for words in COMMANDS)}
    with tempfile.TemporaryDirectory(prefix="stepwell-install-") as folder:
        venv = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        for key, wanted in (
            ("", TORCH),
            ("install_bytes", f"{ROOT}[train]"),
            ("install_bytes_transformers", f"{ROOT}[transformers]"),
        ):
            pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--retries", "5", wanted]
            if subprocess.run(pip, check=False, stderr=subprocess.DEVNULL).returncode:
                print(f"{wanted} could not be installed: not measured", flush=True)
                return figures
            sizes = on_disk(venv)
            told = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in sizes.most_common(SHOWN))
            print(f"{key or TORCH}: {sizes.total() / 1e6:,.0f} MB ({told}; .pyc {pyc(venv) / 1e6:.0f})", flush=True)
            if key:
                figures[key] = sizes.total()
    return figures


def start_s(words: list[str], num: int) -> float:
    """Median CPU seconds of a new process, its children included."""
    command = [str(Path(sys.executable).with_name("stepwell")), *words]
    taken_s, clock_s = [], []
    for _ in range(num):
        before, began_s = os.times(), time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        after = os.times()
        taken_s.append(after.children_user + after.children_system - before.children_user - before.children_system)
        clock_s.append(time.monotonic() - began_s)
    print(f"stepwell {' '.join(words)}: {median(taken_s):.2f} CPU s, {median(clock_s):.2f} s by the clock", flush=True)
    return round(median(taken_s), 3)


def on_disk(venv: Path) -> Counter[str]:
    """Bytes of files by package folder."""
    (site,) = (venv / "lib").glob("python*/site-packages")
    sizes: Counter[str] = Counter()
    for file in site.rglob("*"):
        name = file.relative_to(site).parts[0]
        if file.is_file() and not file.is_symlink() and not name.startswith(NOT_OURS):
            sizes[name] += file.stat().st_size
    return sizes


def pyc(venv: Path) -> int:
    """Bytes of compiled files, pip's own among them."""
    return sum(file.stat().st_size for file in venv.rglob("*.pyc"))
