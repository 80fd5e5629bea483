"""Other people's quantizers, each in an environment of its own: llm-compressor for vLLM, AutoRound at 2 and 3 bits.

Both pin versions of transformers that training here need not have; so they are asked by subprocess, by a script that
imports nothing of Stepwell. What they make appears under its name whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec
from msgspec import Struct

from stepwell.errors import DistillError
from stepwell.quantize.weights import told
from stepwell.quantize.words import split_of

SCRIPT = Path(__file__).with_name("elsewhere_run.py")
Tool = Literal["llm-compressor", "autoround"]
PACKAGES: dict[str, tuple[str, str]] = {
    "llm-compressor": ("llmcompressor", "llmcompressor"),
    "autoround": ("auto_round", "auto-round"),
}
"""A tool's module and package."""
SCHEMES: dict[str, tuple[str, ...]] = {
    "llm-compressor": ("W4A16", "W4A16_ASYM", "W8A16", "W8A8", "FP8", "FP8_DYNAMIC", "NVFP4", "NVFP4A16", "MXFP4"),
    "autoround": ("W2A16", "W2A16G64", "W2A16G32", "W3A16", "W3A16G32", "W4A16", "W4A16G32", "W8A16"),
}
GGUF = ("Q2_K_S", "Q3_K_S", "Q3_K_M", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_K_S", "Q6_K", "Q8_0")
"""GGUF presets that AutoRound writes by itself."""
NEEDS = {
    "FP8": "a GPU that multiplies 8-bit floats (compute capability 8.9)",
    "FP8_DYNAMIC": "a GPU that multiplies 8-bit floats (compute capability 8.9)",
    "NVFP4": "a GPU that multiplies 4-bit floats (compute capability 10.0)",
}
"""What vLLM needs to run a scheme as it is; writing it needs no GPU."""
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
LAST_LINES = 8


class Asked(Struct, frozen=True):
    """What is wanted."""

    tool: Tool
    scheme: str
    model: Path
    """A Hugging Face folder."""
    out: Path
    """A folder that is not there yet; or, of a GGUF preset, FILE.gguf."""
    python: Path
    """The interpreter of the tool's environment."""
    texts: tuple[tuple[int, ...], ...]
    """Token ids of whole texts to calibrate on."""
    iters: int = 200
    """Steps that AutoRound learns for each block."""
    device: str = "auto"
    threads: int = 1
    seed: int = 0
    timeout_s: float = 6 * 3600.0


class Made(Struct, frozen=True):
    """What was made, and what it took in CPU seconds."""

    out: str
    num_bytes: int
    loaded_s: float
    """Imports and the model."""
    quantized_s: float
    """AutoRound saves as it goes: there it is in this."""
    saved_s: float
    device: str
    versions: dict[str, str]
    needs: str = ""
    """What runs it as it is; empty: whatever runs its kind of file."""


class Told(Struct, frozen=True):
    """What the script says."""

    loaded_s: float
    quantized_s: float
    saved_s: float
    device: str
    versions: dict[str, str]


def quantized(asked: Asked) -> Made:
    """Ask a tool. Raises DistillError where its environment or its scheme is not there, or where its process fails."""
    check(asked)
    part = asked.out.with_name(f".{asked.out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        took = ran(asked, part)
        made = found(asked, part)
        if made.is_dir():
            for name in TOKENIZER:
                if (asked.model / name).is_file() and not (made / name).exists():
                    shutil.copyfile(asked.model / name, made / name)
        kept(made, asked.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Made(str(asked.out), size(asked.out), **msgspec.structs.asdict(took), needs=NEEDS.get(asked.scheme, ""))


def check(asked: Asked) -> None:
    """Raise DistillError for what can be seen to be wrong before anything is loaded."""
    known = (*SCHEMES[asked.tool], *(GGUF if asked.tool == "autoround" else ()))
    if asked.scheme not in known:
        raise DistillError(f"{asked.tool} has no scheme {asked.scheme!r} here: {', '.join(known)}")
    if not (asked.model / "config.json").is_file():
        raise DistillError("is no Hugging Face folder: there is no config.json in it", file=str(asked.model))
    if not any(asked.texts):
        raise DistillError("there are no calibration texts: give rows with prompts and completions")
    if (asked.out.suffix == ".gguf") != (asked.scheme in GGUF):
        raise DistillError("a GGUF preset goes to FILE.gguf, any other scheme to a folder", file=str(asked.out))
    if asked.out.exists():
        raise DistillError("is there already: name another, or remove it", file=str(asked.out))
    has_package(asked.python, asked.tool)


def has_package(python: Path, tool: Tool) -> None:
    """Raise DistillError where there is no such interpreter, or the tool is not installed for it."""
    module, package = PACKAGES[tool]
    make = f"make one: python -m venv ENV && ENV/bin/pip install torch==2.13.0 && ENV/bin/pip install {package}"
    asking = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
    try:
        done = subprocess.run([python.absolute(), "-I", "-c", asking], capture_output=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DistillError(f"is no Python that runs ({error}); name --python ENV/bin/python, or {make}") from error
    if done.returncode:
        raise DistillError(f"has no {package}: name --python ENV/bin/python, or {make}", file=str(python))


def ran(asked: Asked, part: Path) -> Told:
    """Run the script; what it makes lies in `part`. Raises DistillError with its last lines where it fails."""
    with TemporaryDirectory(prefix="stepwell-") as name:
        job, log = Path(name) / "job.json", Path(name) / "log"
        job.write_bytes(msgspec.json.encode(job_of(asked, part)))
        command = (asked.python.absolute(), "-I", SCRIPT, job)
        with log.open("wb") as lines:
            try:
                done = subprocess.run(  # noqa: S603 - the operator's interpreter, a script of ours
                    command,
                    env=surroundings(asked),
                    stdin=subprocess.DEVNULL,
                    stdout=lines,
                    stderr=lines,
                    cwd=name,
                    timeout=asked.timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                what = f"{asked.tool} was not done after {asked.timeout_s:g} s: give it more time, or fewer texts"
                raise DistillError(what) from error
        answer = Path(name) / "told.json"
        if done.returncode or not answer.is_file():
            raise DistillError(f"{asked.tool} {ended(done.returncode)}; it said last:\n{last_lines(log)}")
        return msgspec.json.decode(answer.read_bytes(), type=Told)


def job_of(asked: Asked, part: Path) -> dict[str, object]:
    """What the script is told."""
    gguf = asked.scheme in GGUF
    return {
        "tool": asked.tool,
        "scheme": f"GGUF:{asked.scheme}" if gguf else asked.scheme,
        "format": f"gguf:{asked.scheme.lower()}" if gguf else "auto_round",
        "split": split_of(told(asked.model / "tokenizer.json").get("pre_tokenizer") or {}) if gguf else "",
        "model": str(asked.model.resolve()),
        "out": str(part.resolve()),
        "texts": asked.texts,
        "iters": asked.iters,
        "device": asked.device,
        "threads": asked.threads,
        "seed": asked.seed,
    }


def surroundings(asked: Asked) -> dict[str, str]:
    """The environment's variables: no hub is asked, and no more threads are started than wanted."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return os.environ | offline | {"OMP_NUM_THREADS": str(asked.threads), "TOKENIZERS_PARALLELISM": "false"}


def ended(code: int) -> str:
    """How a process ended."""
    return f"was ended by signal {-code}" if code < 0 else f"failed with status {code}"


def last_lines(log: Path) -> str:
    """The end of what it said, progress bars left out."""
    said = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    return "\n".join([line for line in said if line.strip() and "it/s" not in line][-LAST_LINES:]) or "nothing"


def found(asked: Asked, part: Path) -> Path:
    """What was made: a GGUF file, or the folder with a config.json. Raises DistillError where it is not there."""
    wanted = "*.gguf" if asked.scheme in GGUF else "config.json"
    files = sorted(part.rglob(wanted))
    if len(files) != 1:
        listed = ", ".join(str(each.relative_to(part)) for each in part.rglob("*")) or "nothing"
        raise DistillError(f"{asked.tool} was to write one {wanted} and wrote {listed}")
    return files[0] if asked.scheme in GGUF else files[0].parent


def kept(made: Path, out: Path) -> None:
    """Put what was made under its name, once it is on the disk."""
    for file in [made] if made.is_file() else [each for each in made.rglob("*") if each.is_file()]:
        with file.open("rb") as written:
            os.fsync(written.fileno())
    made.rename(out)


def size(out: Path) -> int:
    """Bytes of a file, or of a folder's weights."""
    files = [out] if out.is_file() else sorted(out.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files)
