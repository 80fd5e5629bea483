"""No model file without its manifest: what ships has one, a file is placed with it, and a killed process breaks neither."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from conftest import ROOT
from stepwell import verified
from stepwell.errors import DistillError
from stepwell.quantize import manifest
from stepwell.verified import Manifest

SHIPPED = sorted((ROOT / "models").rglob("*.gguf"))
LOOP = """
import sys
from pathlib import Path
from stepwell.quantize.manifest import shelve
folder = Path(sys.argv[1])
while True:
    for name in ("a.gguf", "b.gguf"):
        print(name, flush=True)
        shelve(folder / name, folder / "models", "model.gguf")
"""


def made(file: Path, data: bytes, *, passed: bool = True, complaints: tuple[str, ...] = ()) -> Path:
    file.write_bytes(data)
    held = Manifest(
        file=file.name, sha256=sha256(data).hexdigest(), num_bytes=len(data), passed=passed, complaints=complaints
    )
    manifest.write(file, held)
    return file


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_what_ships_was_verified_as_it_is(file: Path) -> None:
    manifest.check(file)
    held = verified.read(file)
    assert held is not None
    assert held.figures["kl"] <= held.limits["kl"]


def test_a_file_is_placed_with_its_manifest(tmp_path: Path) -> None:
    models = tmp_path / "models"
    placed = manifest.shelve(made(tmp_path / "a.gguf", b"GGUF a"), models)
    assert placed == models / "a.gguf"
    assert verified.complaint(placed) == ""
    replaced = manifest.shelve(made(tmp_path / "b.gguf", b"GGUF b"), models, "a.gguf")
    held = verified.read(replaced)
    assert held is not None
    assert (replaced.read_bytes(), held.file, held.before) == (b"GGUF b", "a.gguf", None)
    assert sorted(each.name for each in models.iterdir()) == ["a.gguf", "a.gguf.manifest.json"]


def test_what_was_not_verified_is_refused_and_leaves_all_as_it_was(tmp_path: Path) -> None:
    models = tmp_path / "models"
    manifest.shelve(made(tmp_path / "a.gguf", b"GGUF a"), models)
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(b"GGUF")
    changed = made(tmp_path / "changed.gguf", b"GGUF")
    changed.write_bytes(b"GGUG")
    damaged = made(tmp_path / "damaged.gguf", b"GGUF")
    verified.place(damaged).write_bytes(verified.place(damaged).read_bytes()[:40])
    failed = made(tmp_path / "failed.gguf", b"GGUF", passed=False, complaints=("the engine cuts texts otherwise",))
    gone = made(tmp_path / "gone.gguf", b"GGUF")
    gone.unlink()
    for file, said in (
        (bare, "no manifest bare.gguf.manifest.json"),
        (changed, "is not the file that changed.gguf.manifest.json names"),
        (damaged, "that can be read"),
        (failed, "did not pass its verification: the engine cuts"),
        (gone, "cannot be read"),
    ):
        with pytest.raises(DistillError, match=said):
            manifest.shelve(file, models, "a.gguf")
        assert (models / "a.gguf").read_bytes() == b"GGUF a"
        manifest.check(models / "a.gguf")


def test_a_process_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    either = {letter: letter.encode() * 2_000_000 for letter in "ab"}
    for letter, data in either.items():
        made(tmp_path / f"{letter}.gguf", data)
    placed = manifest.shelve(tmp_path / "a.gguf", tmp_path / "models", "model.gguf")
    seen = set()
    for turn in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(1 + turn % 3):
                assert process.stdout.readline()
            time.sleep(0.002 * turn)
            process.send_signal(signal.SIGKILL)
        manifest.check(placed)
        seen.add(placed.read_bytes()[:1])
        assert placed.read_bytes() in either.values()
    assert seen == {b"a", b"b"}
    manifest.shelve(tmp_path / "a.gguf", tmp_path / "models", "model.gguf")
    assert placed.read_bytes() == either["a"]


@pytest.mark.parametrize("stop", ["part", "manifest", "file"])
def test_wherever_it_was_stopped_what_lies_there_is_valid(tmp_path: Path, stop: str) -> None:
    placed = manifest.shelve(made(tmp_path / "a.gguf", b"GGUF a"), tmp_path / "models", "m.gguf")
    old = verified.read(placed)
    new = made(tmp_path / "b.gguf", b"GGUF b")
    told = verified.read(new)
    assert old is not None
    assert told is not None
    (placed.parent / ".m.gguf.part").write_bytes(b"GG" if stop == "part" else b"GGUF b")
    if stop != "part":
        manifest.write(
            placed, Manifest(**{name: getattr(told, name) for name in Manifest.__struct_fields__} | {"before": old})
        )
    if stop == "file":
        (placed.parent / ".m.gguf.part").replace(placed)
    manifest.check(placed)
    assert placed.read_bytes() == (b"GGUF b" if stop == "file" else b"GGUF a")
