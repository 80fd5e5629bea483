"""Where a specialist stands: stages, evidence, and a roll-back that no kill undoes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from promoted import promoted, put, report
from stepwell.errors import DistillError, StoreError
from stepwell.quality.promotion import FILE, Promotion
from stepwell.quality.sequential import Counts
from stepwell.signing import SigningKey, new_key, trusted


@pytest.fixture
def key() -> SigningKey:
    return new_key()


def test_it_goes_on_stage_by_stage_and_live_only_by_evidence(tmp_path: Path, key: SigningKey) -> None:
    promotion, keys = Promotion(tmp_path), trusted((), key)
    assert promotion.standing().stage == ""
    with pytest.raises(DistillError, match="no verdict"):
        promotion.promote(keys)
    put(tmp_path, key, report("m", margin=0.1))
    assert [promotion.promote(keys).stage for _ in range(2)] == ["shadow", "canary"]
    with pytest.raises(DistillError, match=r"not yet shown .* none yet"):
        promotion.promote(keys)
    about = promotion.standing().about
    for _ in range(200):
        promotion.record(about, student=True, teacher=True)
    standing = promotion.promote(keys)
    assert (standing.stage, standing.counts) == ("live", Counts(0, 0, 200))
    assert standing.reason.startswith("audits: 200, ")
    assert promotion.promote(keys).stage == "live"


def test_a_person_may_know_better_but_not_against_the_evidence(tmp_path: Path, key: SigningKey) -> None:
    promotion = promoted(tmp_path, key, "m", "live")
    keys, about = trusted((), key), promotion.standing().about
    while promotion.record(about, student=False, teacher=True).stage != "rolled back":
        assert promotion.standing().counts.losses < 40
    assert "margin -2.00%" in promotion.standing().reason
    with pytest.raises(DistillError, match="audits have shown it to be worse"):
        promotion.promote(keys, to="live", because="I like it")
    put(tmp_path, key, report("m", reason="judged again"))
    with pytest.raises(DistillError, match="audits have shown it to be worse"):
        promotion.promote(keys)
    put(tmp_path, key, report("another"))
    standing = promotion.promote(keys)
    assert (standing.stage, standing.counts) == ("shadow", Counts())
    assert promotion.record(about, student=False, teacher=True).counts == Counts(), "an audit of the old file is late"


@pytest.mark.parametrize("decision", ["refuse", "cannot tell"])
def test_only_a_verdict_that_says_so_promotes(tmp_path: Path, key: SigningKey, decision: str) -> None:
    put(tmp_path, key, report("m", decision=decision))  # type: ignore[arg-type]
    with pytest.raises(DistillError, match=f"the gate says {decision}: by a test"):
        Promotion(tmp_path).promote(trusted((), key), to="live", because="please")


def test_a_roll_back_by_hand_may_be_taken_back(tmp_path: Path, key: SigningKey) -> None:
    with pytest.raises(DistillError, match="nothing was promoted"):
        Promotion(tmp_path).roll_back("why not")
    promotion = promoted(tmp_path, key, "m", "live")
    assert promotion.roll_back("a bad day").reason == "by hand: a bad day"
    assert promotion.promote(trusted((), key)).stage == "shadow"


AUDITING = """
import sys
from pathlib import Path
from stepwell.quality.promotion import Promotion
promotion = Promotion(Path(sys.argv[1]))
about = promotion.standing().about
print("on", flush=True)
while True:
    print(promotion.record(about, student=False, teacher=sys.argv[2] == "bad").counts.num, flush=True)
"""


def test_no_audit_that_was_told_is_lost_by_a_kill(tmp_path: Path, key: SigningKey) -> None:
    promotion = promoted(tmp_path, key, "m", "live")
    for _ in range(3):
        before = promotion.standing().counts.num
        process = subprocess.Popen(
            [sys.executable, "-c", AUDITING, str(tmp_path), "good"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(8)]
        os.kill(process.pid, signal.SIGKILL)
        rest = process.communicate()[0].split()
        told = [int(line) for line in [*seen[1:], *rest] if line.strip()]
        assert before < max(told) <= promotion.standing().counts.num <= max(told) + 1


def test_processes_count_together_and_all_see_the_roll_back(tmp_path: Path, key: SigningKey) -> None:
    promotion = promoted(tmp_path, key, "m", "canary")
    about = promotion.standing().about
    with ThreadPoolExecutor(4) as many:
        told = list(many.map(lambda _: Promotion(tmp_path).record(about, student=False, teacher=True), range(24)))
    assert promotion.standing().stage == "rolled back"
    assert promotion.standing().counts == Counts(0, 24, 0)
    assert sorted(each.counts.losses for each in told) == list(range(1, 25))
    with sqlite3.connect(tmp_path / FILE) as database:
        moves = [row[0] for row in database.execute("SELECT stage FROM moves ORDER BY rowid")]
    assert moves == ["canary", "rolled back"]
    database.close()


def test_a_damaged_file_is_told_and_a_new_one_is_seen(tmp_path: Path, key: SigningKey) -> None:
    promotion = promoted(tmp_path, key, "m", "live")
    assert promotion.standing().stage == "live"
    for file in tmp_path.glob(f"{FILE}*"):
        file.unlink()
    assert promotion.standing().stage == ""
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="cannot be read or written"):
        promotion.standing()
    promotion.close()
