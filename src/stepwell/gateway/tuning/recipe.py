"""The recipe of a job: the operator's own, with the job's rows, teacher, seed and settings put in."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepwell.config_kept import FineTuning
from stepwell.errors import BadRequest, ConfigError
from stepwell.gateway.tuning.job_rows import Job

TRAINING, VALIDATION, RECIPE = "training.jsonl", "validation.jsonl", "recipe.toml"
PATHS = frozenset({"path", "paths", "folder", "tokenizer", "data", "dev"})
"""Keys of a recipe that name files."""
BYTES_A_TOKEN = 4
BATCH_TOKENS, RATE = 4096, 2e-3
"""What a recipe that says nothing trains with (`distill/plan.py`)."""
AS_GIVEN = {"filters": {"near": 0.0, "words": [1, 1_000_000]}, "real_floor": 0.0}
"""Where the recipe says nothing of rows: examples are learned as they are, but for repetitions and what is held out."""

Tree = dict[str, Any]
BARE = re.compile(r"[A-Za-z0-9_-]+")


def recipe(job: Job, section: FineTuning, *, num_rows: int, num_bytes: int) -> Tree:
    """The job's recipe; its rows lie beside it. Raises ConfigError where the operator's cannot be read."""
    tree = placed(Path(section.models[job.model]))
    seeds = {"paths": [TRAINING], "licence": section.licence}
    if job.method == "supervised":
        tree.pop("teacher", None)
        tree.pop("synth", None)
        tree["train"] = {**tree.get("train", {}), "loss": "ce", "on_policy": 0.0}
    elif job.teacher:
        tree["teacher"] = placed(Path(section.teachers[job.teacher])).get("teacher", {})
    synth = tree["synth"] = {**tree.get("synth", AS_GIVEN), "seeds": seeds, "seed": job.seed}
    synth.pop("captured", None)
    if job.validation_file:
        synth["held_out"] = [{"paths": [VALIDATION]}]
    train = {name: value for name, value in tree.get("train", {}).items() if name not in {"data", "dev"}}
    changed = plan(train, job.hyperparameters, num_rows, num_bytes)
    bounded(changed, section.max_steps)
    tree["train"] = {**train, **changed, "seed": job.seed}
    tree["name"] = job.id
    return tree


def plan(train: Mapping[str, Any], wanted: Mapping[str, Any], num_rows: int, num_bytes: int) -> Tree:
    """OpenAI's settings as those of `[train]`; batches are counted in tokens here, which are estimated."""
    tokens = max(1.0, num_bytes / BYTES_A_TOKEN / max(1, num_rows))
    changed: Tree = {}
    if wanted.get("learning_rate_multiplier", "auto") != "auto":
        changed["rate"] = float(train.get("rate", RATE)) * float(wanted["learning_rate_multiplier"])
    if wanted.get("batch_size", "auto") != "auto":
        changed["batch_tokens"] = max(1, round(int(wanted["batch_size"]) * tokens))
    if wanted.get("n_epochs", "auto") != "auto":
        batch_tokens = changed.get("batch_tokens", train.get("batch_tokens", BATCH_TOKENS))
        changed["steps"] = max(1, round(int(wanted["n_epochs"]) * num_rows * tokens / batch_tokens))
    return changed


def bounded(changed: Mapping[str, Any], max_steps: int) -> None:
    """Raise BadRequest where a job wants more steps than one may have."""
    if (steps := changed.get("steps", 0)) > max_steps:
        what = f"comes to {steps} steps, and {max_steps} is the most: fewer epochs, larger batches, or fewer rows"
        raise BadRequest(what, param="hyperparameters.n_epochs")


def placed(path: Path) -> Tree:
    """A recipe whose paths hold wherever it lies. Raises ConfigError."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"this recipe cannot be read ({error})", file=str(path)) from error
    found: Tree = found_from(tree, path.absolute().parent)
    return found


def found_from(value: Any, folder: Path, key: str = "") -> Any:  # noqa: ANN401 - whatever TOML holds
    """A tree whose relative paths, where they are there, start at the root of the disk."""
    if isinstance(value, dict):
        return {name: found_from(each, folder, name) for name, each in value.items()}
    if isinstance(value, list):
        return [found_from(each, folder, key) for each in value]
    if key in PATHS and isinstance(value, str) and value and (folder / value).exists():
        return str((folder / value).resolve())
    return value


def written(tree: Mapping[str, Any]) -> str:
    """A tree as TOML."""
    return "".join(f"{key(name)} = {value_of(each)}\n" for name, each in ordered(tree)) + "".join(tables(tree))


def tables(tree: Mapping[str, Any], above: str = "") -> list[str]:
    """The tables of a tree, each under its own head."""
    found = []
    for name, each in tree.items():
        if isinstance(each, Mapping):
            head = f"{above}{key(name)}"
            lines = "".join(f"{key(name)} = {value_of(value)}\n" for name, value in ordered(each))
            found += [f"\n[{head}]\n{lines}", *tables(each, f"{head}.")]
    return found


def ordered(tree: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What stands in a table itself."""
    return [(name, each) for name, each in tree.items() if not isinstance(each, Mapping)]


def value_of(value: object) -> str:
    """A value in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_of, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key(name)} = {value_of(each)}' for name, each in value.items())}}}"
    return quoted(value) if isinstance(value, str) else str(value)


def key(name: str) -> str:
    """A key, in quotes where it needs them."""
    return name if BARE.fullmatch(name) else quoted(name)


def quoted(text: str) -> str:
    """A string of TOML: JSON's, but for the one control character that JSON lets stand."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
