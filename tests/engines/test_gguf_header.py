"""What a GGUF file says of itself."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import WRITER
from stepwell.engines.gguf_header import header
from stepwell.errors import ConfigError


def test_it_reads_what_the_package_gguf_reads() -> None:
    told, theirs = header(WRITER), gguf.GGUFReader(WRITER)
    assert told.architecture == "llama"
    assert sum(told.formats.values()) == len(theirs.tensors)
    assert told.formats == Counter(tensor.tensor_type.name for tensor in theirs.tensors)
    mine = {name: value for name, value in told.fields.items() if value != []}
    for field in theirs.fields.values():
        if not field.name.startswith("GGUF.") and field.contents() not in ([], None):
            assert mine[field.name] == field.contents()


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match="does not begin with GGUF"):
        header(tmp_path / "text")
    with pytest.raises(ConfigError, match="cannot be read"):
        header(tmp_path / "none")


def test_lists_in_lists_without_end_are_damage(tmp_path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<I", 9)
    (tmp_path / "deep").write_bytes(head + struct.pack("<IQ", 9, 1) * 5000)
    with pytest.raises(ConfigError, match="is no whole GGUF file"):
        header(tmp_path / "deep")


HEAD = WRITER.read_bytes()[:3000]


@given(st.integers(0, len(HEAD) - 1), st.binary(max_size=12))
def test_damage_is_an_error_and_no_crash(tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.gguf"
    file.write_bytes(HEAD[:at] + junk + HEAD[at + len(junk) :])
    with pytest.raises(ConfigError):
        header(file)
