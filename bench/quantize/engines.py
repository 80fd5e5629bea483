"""Tokens a CPU second of our engines, as they pick themselves, beside four others on one model: one thread each.

They live in `.venv-engines` (`make .venv-engines/.engines`): transformers, CTranslate2, onnxruntime-genai, OpenVINO and
this checkout. Each is a process of its own, they take turns, figures are medians over all rounds.
`decode` is one request alone, after its prompt; `batch32` are 32 requests at once, new tokens only, prompts as time.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.quantize.engines_arm import ARMS

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-engines"
OURS, PEERS = [[name for name in ARMS if name.startswith("stepwell") == ours] for ours in (True, False)]
ROUNDS, QUICK_ROUNDS = 9, 2
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Rounds = dict[str, list[dict[str, list[float]]]]


def measure(*, quick: bool) -> dict[str, float]:
    """`decode_tok_per_cpu_s` and `batch32_tok_per_cpu_s` of our Q4_0 file, both against the best peer, and Q8_0's."""
    if not (VENV / "bin" / "python").exists():
        print(f"no {VENV.name}: make {VENV.name}/.engines; not measured", flush=True)
        return {}
    with tempfile.TemporaryDirectory(prefix="stepwell-engines-") as name:
        folder = Path(name)
        run("bench.quantize.engines_build", folder)
        for kind in ("Q4_0", "Q8_0"):
            size = ("--rounds", "2" if quick else "3", "--tokens", "16")
            run("stepwell.cli", "engines", "test", f"{kind}.gguf", *size, cwd=folder)
        (folder / "stepwell-data" / "engines.json").rename(folder / "engines.json")
        with started(folder) as processes:
            rounds = turns(processes, QUICK_ROUNDS if quick else ROUNDS)
    return told(rounds)


def run(module: str, *words: object, cwd: Path = ROOT) -> None:
    """A module in the engines' environment; what it says is shown where it fails."""
    command = [str(VENV / "bin" / "python"), "-m", module, *map(str, words)]
    done = subprocess.run(command, check=False, cwd=cwd, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-800:]}")
    print("".join(line + "\n" for line in done.stdout.splitlines() if line.startswith("auto:")), end="", flush=True)


def environment() -> dict[str, str]:
    """One thread each; what lies in this checkout is found from anywhere."""
    return {**os.environ, **dict.fromkeys(ONE_THREAD, "1"), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


@contextmanager
def started(folder: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Every engine in a process, loaded one after the other; one that is not there is said and left out."""
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in (*OURS, *PEERS):
            process = subprocess.Popen(
                [str(VENV / "bin" / "python"), "-m", "bench.quantize.engines_arm", name, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd=ROOT,
                env=environment(),
            )
            if heard(process) is None:
                print(f"{name}: not measured: {(process.communicate()[1].splitlines() or ['it died'])[-1]}", flush=True)
            else:
                processes[name] = process
        yield processes
    finally:
        for process in processes.values():
            process.communicate()


def heard(process: subprocess.Popen[str]) -> object:
    """What a process answers; None where it died. Lines that are not ours are passed over."""
    for line in process.stdout or ():
        try:
            return json.loads(line)
        except ValueError:
            continue
    return None


def turns(processes: Mapping[str, subprocess.Popen[str]], num: int) -> Rounds:
    """Rounds, one engine after the other."""
    rounds: Rounds = {name: [] for name in processes}
    for _ in range(num):
        for name, process in processes.items():
            print("round", file=process.stdin, flush=True)
            made = heard(process)
            if isinstance(made, dict):
                rounds[name].append(made)
    return {name: made for name, made in rounds.items() if len(made) == num}


def told(rounds: Rounds) -> dict[str, float]:
    """Show every engine, and give ours, absolute and to the best peer."""
    figures: dict[str, float] = {}
    for regime, key in (("decode", "decode"), ("batch", "batch32")):
        cpu = {name: [each[regime][0] for each in made] for name, made in rounds.items()}
        clock = {name: median(each[regime][1] for each in made) for name, made in rounds.items()}
        print(f"{key}: tokens a CPU second, median (least to most), and a second by the clock")
        for name, all_of in sorted(cpu.items(), key=lambda pair: -median(pair[1])):
            spread = f"({min(all_of):,.0f} to {max(all_of):,.0f})"
            print(f"  {name:<24} {median(all_of):>7,.0f} {spread:<18} {clock[name]:>7,.0f}")
        peers = {name: median(all_of) for name, all_of in cpu.items() if name in PEERS}
        for name, suffix in zip(OURS, ("", "_q8_0"), strict=True):
            if name in cpu:
                figures[f"{key}{suffix}_tok_per_cpu_s"] = round(median(cpu[name]), 1)
                if peers:
                    figures[f"{key}{suffix}_vs_best_peer"] = round(median(cpu[name]) / max(peers.values()), 3)
    return figures
