"""How fast each engine ran a file on this machine, as `stepwell engines test` measured it, and which one to take."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec
from msgspec import Struct

from stepwell.config_embedded import EmbeddedEngine, Which
from stepwell.errors import ConfigError

PACKAGES: dict[Which, str] = {"llamacpp": "xllamacpp", "openvino": "openvino-genai"}
"""In the order in which they are taken where none is better."""
NAMES: dict[Which, str] = {"llamacpp": "llama.cpp", "openvino": "OpenVINO"}
CLEARLY = 1.15
"""So much faster the other engine must be: less is noise, and a second engine takes memory."""


class Speed(Struct, frozen=True):
    """New tokens a second of processor time, and of the clock: medians over rounds."""

    tokens_per_cpu_s: float
    tokens_per_s: float
    spread: float = 0.0
    """Of the first, largest less smallest round as a share of the median."""


class Place(Struct, frozen=True):
    """What figures hold for: other files, versions, processors and settings have others."""

    file_sha256: str
    engine: Which
    version: str
    processor: str
    threads: int
    cache_type_k: str
    cache_type_v: str


class Figures(Struct, frozen=True):
    """One engine on one file."""

    place: Place
    load_cpu_s: float
    prompt_tokens_per_cpu_s: float
    decode: dict[int, Speed]
    """By how many requests run at once; their prompts count as time, not as tokens."""
    memory_mb: float


class Pick(Struct, frozen=True):
    """Which engine answers: `few`, and `many` from so many requests at once on."""

    few: Which
    many: Which
    many_from: int = 0


def installed() -> list[Which]:
    """Engines that are installed here."""
    return [engine for engine in PACKAGES if version(engine)]


def version(engine: Which) -> str:
    """An engine's version; empty where it is not installed."""
    try:
        return metadata.version(PACKAGES[engine])
    except metadata.PackageNotFoundError:
        return ""


def place(config: EmbeddedEngine, engine: Which, file_sha256: str) -> Place:
    """What figures of this engine would hold for."""
    return Place(
        file_sha256,
        engine,
        version(engine),
        processor(),
        config.threads,
        config.cache_type_k,
        config.cache_type_v,
    )


def processor() -> str:
    """What this machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def sha256_of(path: str) -> str:
    """The file's hash. Raises ConfigError."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", file=path, field="path") from error


def kept(path: str) -> list[Figures]:
    """All figures in a file; none where there is no such file. Raises ConfigError for one that is damaged."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=list[Figures])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"holds no figures ({error}); delete it", file=path, field="figures") from error


def keep(path: str, new: Sequence[Figures]) -> None:
    """Add figures to a file, whole or not at all, in the place of older ones. Raises ConfigError."""
    places = {each.place for each in new}
    all_of = [*(each for each in kept(path) if each.place not in places), *new]
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.format(msgspec.json.encode(all_of)))
        part.replace(target)
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", file=path, field="figures") from error


def of_this(config: EmbeddedEngine) -> list[Figures]:
    """The figures that hold for a file here and now. Raises ConfigError."""
    known = kept(config.figures)
    if not known:
        return []
    file_sha256 = sha256_of(config.path)
    wanted = [place(config, engine, file_sha256) for engine in installed()]
    return [each for each in known if each.place in wanted]


def pick(figures: Sequence[Figures]) -> Pick | None:
    """The better engine for one request and for many, by processor time; None without figures."""
    by_engine = {each.place.engine: each.decode for each in figures if each.decode}
    if not by_engine:
        return None
    engines = [engine for engine in PACKAGES if engine in by_engine]
    sizes = sorted(set.intersection(*(set(decode) for decode in by_engine.values())))
    if not sizes:
        return None
    winners = {size: better(engines, by_engine, size) for size in sizes}
    few, many = winners[sizes[0]], winners[sizes[-1]]
    if few == many:
        return Pick(few, many)
    last_few = max(size for size in sizes if winners[size] != many)
    return Pick(few, many, next(size for size in sizes if size > last_few))


def better(engines: Sequence[Which], decode: dict[Which, dict[int, Speed]], size: int) -> Which:
    """The first of the engines, unless another is clearly faster."""
    first = engines[0]
    best = max(engines, key=lambda engine: decode[engine][size].tokens_per_cpu_s)
    clear = decode[best][size].tokens_per_cpu_s > CLEARLY * decode[first][size].tokens_per_cpu_s
    return best if clear else first
