"""A kill anywhere between a file's row and its content leaves nothing on the disk that nobody has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest

from stepwell.config_kept import FineTuning
from stepwell.errors import BadRequest, StoreError
from stepwell.gateway.database import Database
from stepwell.gateway.tuning import file_rows
from stepwell.gateway.tuning.file_rows import LONGEST_S, File
from stepwell.gateway.tuning.files import PURPOSE, Files


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    section = FineTuning(models={"m": "m.toml"}, folder=str(tmp_path / "kept"), tenant_bytes=100)
    database = Database(tmp_path / "kept" / "files.db", file_rows.SCHEMA)
    yield Files(section, database, lambda *_: "")
    database.shut()


def content(files: Files) -> list[str]:
    return sorted(path.name for path in files.folder.iterdir())


def age(files: Files, seconds: float) -> None:
    files.database.do(lambda database: database.execute("UPDATE moving SET at_s = at_s - ?", (seconds,)))


async def test_what_was_killed_while_it_came_is_undone(files: Files) -> None:
    files.expect("a", "file-1", 60)
    files.write("file-1", lambda out: out.write(b"x" * 60))
    (files.folder / "file-1.part").write_bytes(b"x")
    with pytest.raises(BadRequest, match="more than 100 bytes"):
        files.expect("a", "file-2", 60)
    files.expect("b", "file-3", 60)
    await files.clean()
    assert content(files) == ["file-1.jsonl", "file-1.part"], "it may still be coming"
    age(files, LONGEST_S + 1)
    await files.clean()
    assert content(files) == []
    files.expect("a", "file-2", 60)
    with pytest.raises(StoreError, match="not awaited"):
        files.keep(File("a", "file-1", "r.jsonl", PURPOSE, 60, time(), None))


async def test_what_was_killed_while_it_went_is_finished(files: Files) -> None:
    files.expect("a", "file-1", 60)
    files.write("file-1", lambda out: out.write(b"x" * 60))
    files.keep(File("a", "file-1", "r.jsonl", PURPOSE, 60, time(), None))
    await files.clean()
    assert content(files) == ["file-1.jsonl"]
    files.database.do(lambda database: file_rows.leaves(database, "file-1"))
    with pytest.raises(BadRequest):
        files.expect("a", "file-2", 60)
    await files.clean()
    assert content(files) == []
    files.expect("a", "file-2", 60)


async def test_what_is_kept_is_the_gateways_alone(files: Files, tmp_path: Path) -> None:
    files.expect("a", "file-1", 60)
    files.write("file-1", lambda out: out.write(b"x" * 60))
    kept = tmp_path / "kept"
    assert {oct(each.stat().st_mode & 0o777) for each in (kept, files.folder)} == {"0o700"}
    private = [files.path("file-1"), *kept.glob("files.db*[!k]")]
    assert len(private) >= 2
    assert {oct(each.stat().st_mode & 0o777) for each in private} == {"0o600"}
