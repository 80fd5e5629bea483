"""llama.cpp in a fresh process: its library and its server say the same, and what goes wrong there is told here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_folders import write_folder
from test_words import byte_level
from tokenizers import Tokenizer

from conftest import ROOT
from stepwell.errors import DistillError
from stepwell.quantize import engine
from stepwell.quantize.engine import Job, Text, Told, distributions, run
from stepwell.quantize.export import to_gguf

WRITER = ROOT / "models" / "house-writer"
FILE = WRITER / "house-writer.gguf"
PROMPT = "name[The Mill], eatType[pub], food[French], area[riverside]"
SAID = " The Mill is a French pub by the riverside."


def texts() -> list[Text]:
    words = Tokenizer.from_file(str(WRITER / "tokenizer.json"))
    prompt, said = (words.encode(text, add_special_tokens=False).ids for text in (PROMPT, SAID))
    return [([1, *prompt, 2], [*said, 3, 5]), ([1, *prompt[:3]], said[:2]), ([1], []), ([1], said[:1])]


def test_library_and_server_say_the_same() -> None:
    by_library, by_server = (distributions(FILE, texts(), way=way) for way in ("library", "server"))
    num = sum(len(completion) for _, completion in texts())
    assert by_library.shape == by_server.shape == (num, 2048)
    assert by_library.dtype == np.float32
    assert np.allclose(np.exp(by_library.astype(float)).sum(1), 1, atol=1e-5)
    apart = np.exp(by_library.astype(float)) * (by_library - by_server)
    assert abs(apart.sum(1).mean()) < 1e-4


def test_texts_do_not_see_each_other() -> None:
    together = distributions(FILE, texts())
    alone = np.concatenate([distributions(FILE, [text]) for text in texts()])
    assert np.array_equal(together, alone)


def test_tokens_are_told_by_both() -> None:
    strings = (PROMPT, "<sep> é 日本 1,234", "")
    spans = ((283, 696), ())
    told = [run(Job(str(FILE), strings=strings, spans=spans, way=way))[0] for way in ("library", "server")]
    assert told[0].tokens == told[1].tokens
    assert told[0].spelled == told[1].spelled
    assert told[0].processor == told[1].processor != ""
    assert told[0].engine.startswith("xllamacpp 2")


def test_where_the_library_is_strange_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ran = engine.ran

    def strange(folder: Path, job: Job) -> Told:
        asked.append(job.way)
        return (
            Told("lays its structures out in another way", strange=True) if job.way == "library" else ran(folder, job)
        )

    monkeypatch.setattr(engine, "ran", strange)
    assert distributions(FILE, texts()[1:2]).shape == (2, 2048)
    assert asked == ["library", "server"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[: len(data) // 2], "cannot load it"),
        (lambda _: b"GGUF" + b"\xff" * 64, "cannot load it"),
        (lambda _: b"", "cannot load it"),
        (lambda data: data.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_uq.weight"), "cannot load it"),
    ],
)
def test_a_damaged_file_is_told_and_harms_nobody(tmp_path: Path, change: object, said: str) -> None:
    file = tmp_path / "damaged.gguf"
    file.write_bytes(change(FILE.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DistillError, match=f"damaged.gguf: .*{said}"):
        distributions(file, texts())


def test_tokens_that_there_are_not_are_told() -> None:
    for ids in ([2048], [-1]):
        with pytest.raises(DistillError, match="the vocabulary of 2048 has not"):
            distributions(FILE, [([1, *ids], [1])])
    with pytest.raises(DistillError, match="no token at all"):
        distributions(FILE, [([], [1])])


def test_an_engine_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TIMEOUT_S", 0.05)
    with pytest.raises(DistillError, match="was not done after"):
        distributions(FILE, texts())


def test_a_long_text_is_read_whole(tmp_path: Path) -> None:
    words = byte_level("gpt-2")
    file = to_gguf(write_folder(tmp_path / "model", words, max_position_embeddings=2048), tmp_path / "m.gguf", "F32")
    ids = np.random.default_rng(0).integers(4, 256, 1500).tolist()
    whole = distributions(file, [(ids[:1], ids[1:])])
    assert whole.shape == (1499, words.get_vocab_size())
    start = distributions(file, [(ids[:1], ids[1:200])])
    assert np.abs(whole[:199] - start).max() < 1e-2
