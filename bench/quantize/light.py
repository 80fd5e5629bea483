"""What serving the house writer takes: bytes on disk, the time of its imports, memory under requests; without torch.

All of it in a fresh environment with `pip install '.[embedded]'` and nothing else. Memory is the gateway's, resident,
the model in it, while 16 callers ask it 320 questions, every fourth for JSON, and at its most.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench import cpu
from bench.distill.install import on_disk

ROOT = Path(__file__).parents[2]
STARTS, CALLERS, QUESTIONS, SHOWN = 11, 16, 320, 8
ABSENT = ("torch", "numpy", "transformers")
IMPORTS = """
import time
cpu_s, clock_s = time.process_time(), time.perf_counter()
import stepwell.cli.serve, xllamacpp
print(time.process_time() - cpu_s, time.perf_counter() - clock_s)
"""
CONFIG = """
[server]
port = 0
[cache]
path = ""
[ledger]
path = "{folder}/ledger.db"
[engines.writer]
type = "embedded"
path = "{file}"
threads = 1
[routes.writer]
engines = ["writer"]
price = "gpt-4o-mini"
cache = false
"""
FACTS = "name[The Amber Fox {number}], eatType[pub], food[{food}], area[riverside], near[The Well]"
PLACE = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}}, "required": ["name"]}


def measure(*, quick: bool) -> dict[str, float]:
    """`install_mb`, `import_ms` and `rss_mb`."""
    with tempfile.TemporaryDirectory(prefix="stepwell-light-") as name:
        folder = Path(name)
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        python = venv / "bin" / "python"
        pip = [str(python), "-m", "pip", "install", "-q", "--retries", "5", f"{ROOT}[embedded]"]
        if subprocess.run(pip, check=False, stderr=subprocess.DEVNULL).returncode:
            print("stepwell[embedded] could not be installed: not measured", flush=True)
            return {}
        check_absent(python)
        subprocess.run([str(python), "-c", IMPORTS], check=True, capture_output=True, cwd=folder)
        sizes = on_disk(venv)
        told = ", ".join(f"{package} {size / 1e6:.1f}" for package, size in sizes.most_common(SHOWN))
        print(f"stepwell[embedded]: {sizes.total() / 1e6:.0f} MB ({told})", flush=True)
        return {
            "install_mb": round(sizes.total() / 1e6, 1),
            "import_ms": import_ms(python, folder, 3 if quick else STARTS),
            "rss_mb": rss_mb(venv, folder, QUESTIONS // 4 if quick else QUESTIONS),
        }


def check_absent(python: Path) -> None:
    """Raise where something heavy came along after all."""
    code = f"from importlib.util import find_spec; print([each for each in {ABSENT} if find_spec(each)])"
    found = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    if found != "[]":
        raise RuntimeError(f"the extra embedded brings {found}")


def import_ms(python: Path, folder: Path, num: int) -> float:
    """Median CPU milliseconds of importing what serving the writer needs, in a new process."""
    told = [
        subprocess.run([str(python), "-c", IMPORTS], check=True, capture_output=True, text=True, cwd=folder).stdout
        for _ in range(num)
    ]
    cpu_s, clock_s = (median(float(line.split()[at]) for line in told) for at in (0, 1))
    print(f"imports: {cpu_s * 1e3:.0f} ms of CPU, {clock_s * 1e3:.0f} ms by the clock", flush=True)
    return round(cpu_s * 1e3, 1)


def rss_mb(venv: Path, folder: Path, num: int) -> float:
    """The most memory that the gateway was seen to take, in 10^6 bytes."""
    file = min((ROOT / "models" / "house-writer").glob("*.gguf"), key=lambda each: each.stat().st_size)
    (folder / "stepwell.toml").write_text(CONFIG.format(folder=folder, file=file))
    with serving(venv, folder) as (process, url):
        before = cpu.rss_mb(process.pid)
        most = before
        with ThreadPoolExecutor(CALLERS) as callers:
            for at, _ in enumerate(callers.map(lambda number: ask(url, number), range(num))):
                most = max(most, cpu.rss_mb(process.pid) if at % CALLERS == 0 else 0)
        most = max(most, cpu.rss_mb(process.pid))
    print(f"{file.name}: {before:.0f} MB loaded, {most:.0f} MB at most while {num} questions were answered", flush=True)
    return round(most, 1)


@contextmanager
def serving(venv: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`stepwell serve` in the fresh environment."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(venv / "bin" / "stepwell"), "serve"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield process, line.split()[1]
    finally:
        process.terminate()
        process.wait(60)
        if process.stdout:
            process.stdout.close()


def ask(url: str, number: int) -> None:
    """One question; what it answers is not judged here."""
    facts = FACTS.format(number=number, food=("French", "Indian", "Italian")[number % 3])
    fields = {"model": "writer", "messages": [{"role": "user", "content": facts}], "temperature": 1.0, "max_tokens": 60}
    if number % 4 == 0:
        fields["response_format"] = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE}}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(fields).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310 - our own server on loopback
            reply.read()
    except urllib.error.HTTPError as error:
        if error.code != 502:  # JSON that the writer could not finish
            raise
        error.close()


if __name__ == "__main__":
    began_s = time.monotonic()
    print(json.dumps(measure(quick="--quick" in sys.argv)), f"{time.monotonic() - began_s:.0f} s")
