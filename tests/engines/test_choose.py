"""Engines by their section: where a model file must be verified, any other one is refused before it is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from stepwell.config import EmbeddedEngine
from stepwell.engines.choose import chosen
from stepwell.errors import ConfigError
from stepwell.verified import place

SHIPPED = next((ROOT / "models" / "house-student").glob("*.gguf"))


async def test_a_verified_file_is_loaded() -> None:
    engine = chosen("small", EmbeddedEngine(path=str(SHIPPED), verified=True, slots=1))
    await engine.close()


def test_any_other_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / SHIPPED.name
    shutil.copyfile(SHIPPED, file)
    with pytest.raises(ConfigError, match=r"verified: has no manifest .*stepwell quantize verify"):
        chosen("small", EmbeddedEngine(path=str(file), verified=True))
    shutil.copyfile(place(SHIPPED), place(file))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(ConfigError, match="is not the file that"):
        chosen("small", EmbeddedEngine(path=str(file), verified=True))
