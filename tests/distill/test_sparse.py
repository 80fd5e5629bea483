from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stepwell.distill import sparse
from stepwell.distill.sparse import SparseRows
from stepwell.distill.sparse_block import LOGP, level_of
from stepwell.distill.topk import TopK, sampled, top
from stepwell.errors import DistillError

VOCABULARY = 2048


def teacher(
    num_tokens: int, seed: int = 0, vocabulary: int = VOCABULARY, sharp: float = 3.0
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    logits = sharp * rng.standard_normal((num_tokens, vocabulary))
    logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return rng.integers(0, vocabulary, num_tokens), logp.astype(np.float32)


def written(folder: Path, num_rows: int = 5) -> tuple[Path, dict[str, TopK]]:
    rows = {f"row-{n}": top(*teacher(3 + n, n), cover=0.95, most=12) for n in range(num_rows)}
    sparse.write(folder / "a.sparse", rows.items(), tokenizer_hash="t" * 64, vocabulary=VOCABULARY)
    return folder / "a.sparse", rows


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file, rows = written(tmp_path)
    read = SparseRows.open(file, "t" * 64)
    assert list(read) == list(rows)
    assert len(read) == len(rows)
    assert read.get("nobody") is None
    for name, row in rows.items():
        found = read.get(name)
        assert found is not None
        assert np.array_equal(found.token_ids, row.token_ids)
        assert np.array_equal(found.ids, row.ids)
        assert np.array_equal(np.isfinite(found.logp), np.isfinite(row.logp))
        close = np.abs(np.exp(found.logp) - np.exp(row.logp))
        assert close.max() < 0.02
        assert np.abs(np.exp(found.rest_logp) - np.exp(row.rest_logp)).max() < 0.02
        assert np.allclose(np.exp(found.logp).sum(axis=1) + np.exp(found.rest_logp), 1, atol=1e-5)


def test_blocks_leave_memory_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "BLOCK_ROWS", 1)
    file, rows = written(tmp_path)
    read = SparseRows.open(file, "t" * 64, cache_bytes=1)
    for name in [*rows, *rows]:
        assert np.array_equal(read.get(name).ids, rows[name].ids)
    assert len(read.blocks) == 1


def test_shards_are_one(tmp_path: Path) -> None:
    for shard in range(3):
        row = {f"{shard}": top(*teacher(4, shard))}
        sparse.write(tmp_path / f"{shard}.sparse", row.items(), tokenizer_hash="t", vocabulary=VOCABULARY)
    assert sorted(SparseRows.open(tmp_path, "t")) == ["0", "1", "2"]


def test_a_large_vocabulary_keeps_its_ids(tmp_path: Path) -> None:
    row = top(*teacher(3, 1, 70_000, 8.0))
    sparse.write(tmp_path / "a.sparse", [("a", row)], tokenizer_hash="t", vocabulary=70_000)
    found = SparseRows.open(tmp_path / "a.sparse", "t").get("a")
    assert np.array_equal(found.ids, row.ids)


def test_another_tokenizer_fails_at_once(tmp_path: Path) -> None:
    file, _ = written(tmp_path)
    with pytest.raises(DistillError, match=r"a\.sparse: was written with the tokenizer tttttttttttt, this is uuu"):
        SparseRows.open(file, "u" * 64)


def test_a_file_cut_anywhere_is_a_clear_error(tmp_path: Path) -> None:
    file, _ = written(tmp_path)
    data = file.read_bytes()
    for end in range(0, len(data), max(1, len(data) // 60)):
        cut = tmp_path / "cut.sparse"
        cut.write_bytes(data[:end])
        with pytest.raises(DistillError, match=r"cut short|no file of sparse logits|damaged footer"):
            SparseRows.open(cut, "t" * 64)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_changed_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("changed")
    file, rows = written(folder)
    whole = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(whole)
    with pytest.raises(DistillError):
        read_all(file, rows)


def read_all(file: Path, rows: dict[str, TopK]) -> None:
    read = SparseRows.open(file, "t" * 64)
    for name in rows:
        read.get(name)


def test_nothing_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="cannot be read"):
        SparseRows.open(tmp_path / "none.sparse", "t")
    with pytest.raises(DistillError, match=r"holds no \*\.sparse file"):
        SparseRows.open(tmp_path, "t")


def test_tokens_outside_the_vocabulary_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    row = top(*teacher(3))
    with pytest.raises(DistillError, match="outside a vocabulary of 100"):
        sparse.write(tmp_path / "a.sparse", [("a", row)], tokenizer_hash="t", vocabulary=100)
    assert not (tmp_path / "a.sparse").exists()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 9), st.floats(0.5, 0.9999), st.integers(1, 40), st.floats(0.1, 10))
def test_the_fewest_tokens_that_hold_the_mass(
    num_tokens: int, seed: int, cover: float, most: int, sharp: float
) -> None:
    tokens, logp = teacher(num_tokens, seed, 50, sharp)
    row = top(tokens, logp, cover=cover, most=most)
    mass = np.exp(row.logp).sum(axis=1)
    used = np.isfinite(row.logp)
    assert np.all((mass >= cover - 1e-5) | (used.sum(axis=1) == min(most, 50)))
    assert np.allclose(mass + np.exp(row.rest_logp), 1, atol=1e-4)
    without_last = mass - np.exp(np.where(used, row.logp, np.inf).min(axis=1))
    assert np.all((without_last < cover + 1e-5) | (used.sum(axis=1) == 1))
    assert np.array_equal(np.take_along_axis(logp, row.ids, axis=1)[used], row.logp[used])
    assert np.array_equal(row.ids[:, 0], logp.argmax(axis=1)) or len(np.unique(logp)) < logp.size


def test_sampled_ids_are_the_whole_distribution_in_expectation() -> None:
    tokens, logp = teacher(1, 3, 30, 1.0)
    total = np.zeros(30)
    num = 2000
    for seed in range(num):
        row = sampled(tokens, logp, num=12, seed=seed)
        np.add.at(total, row.ids[0], np.exp(row.logp[0]))
    truth = np.exp(logp[0])
    spread = np.sqrt(truth * (1 - truth) / (12 * num))
    assert np.all(np.abs(total / num - truth) < 5 * spread + 1e-6)
    assert np.isneginf(row.rest_logp).all()


def test_sampled_rows_keep_their_kind(tmp_path: Path) -> None:
    row = sampled(*teacher(5), num=12, seed=1)
    sparse.write(tmp_path / "a.sparse", [("a", row)], tokenizer_hash="t", vocabulary=VOCABULARY, kind="sampled")
    read = SparseRows.open(tmp_path / "a.sparse", "t")
    assert read.kind == "sampled"
    assert np.array_equal(read.get("a").ids, row.ids)
    assert np.isneginf(read.get("a").rest_logp).all()


def test_levels_are_monotone_and_their_own_nearest() -> None:
    assert np.array_equal(level_of(LOGP), np.arange(256))
    assert np.all(np.diff(LOGP) < 0)
    assert level_of(np.float32([-np.inf, -1000.0, 0.0])).tolist() == [255, 255, 0]


def test_an_empty_text_is_a_row_like_any_other(tmp_path: Path) -> None:
    nothing = TopK(np.zeros(0, int), np.zeros((0, 1), int), np.zeros((0, 1), np.float32), np.zeros(0, np.float32))
    sparse.write(tmp_path / "a.sparse", [("a", nothing)], tokenizer_hash="t", vocabulary=10)
    assert SparseRows.open(tmp_path / "a.sparse", "t").get("a").ids.shape == (0, 1)
