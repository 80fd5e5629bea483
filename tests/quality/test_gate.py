"""The gate's folder: a plan before the data, pairs that are used up, a verdict nobody can forge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from test_compare import PLAN, made

from stepwell.errors import ConfigError, DistillError, NotAuthentic
from stepwell.quality.compare import GatePlan, Pair
from stepwell.quality.gate import JUDGED, gate, judged, seal
from stepwell.quality.gate import PLAN as PLAN_FILE
from stepwell.quality.promotion import Promotion
from stepwell.quality.verdict import FILE
from stepwell.signing import SigningKey, new_key, trusted

WIDER = msgspec.structs.replace(PLAN, margin=0.06)


@pytest.fixture
def key() -> SigningKey:
    return new_key()


def good(num: int = 600, seed: int = 0) -> list[Pair]:
    return made(num, 0.97, 0.97, seed=seed)


def test_a_plan_is_stated_once_and_may_be_changed_until_pairs_were_judged(tmp_path: Path, key: SigningKey) -> None:
    first = seal(tmp_path, PLAN, key)
    assert (first.plan, first.num_pairs) == (PLAN, PLAN.needed())
    assert seal(tmp_path, PLAN, key) == first
    assert seal(tmp_path, WIDER, key).plan == WIDER
    assert gate(tmp_path, WIDER, good(), model="m", key=key).decision == "promote"
    with pytest.raises(
        DistillError, match=r"plan\.json: the plan of .* was changed \(margin 0\.06 to 0\.05\) after pairs"
    ):
        gate(tmp_path, PLAN, good(seed=1), model="m", key=key)
    with pytest.raises(DistillError, match="was changed"):
        seal(tmp_path, PLAN, key)


def test_a_plan_that_somebody_else_wrote_is_none(tmp_path: Path, key: SigningKey) -> None:
    seal(tmp_path, PLAN, new_key())
    with pytest.raises(NotAuthentic, match="not trusted"):
        gate(tmp_path, PLAN, good(), model="m", key=key)
    seal(tmp_path / "b", PLAN, key)
    file = tmp_path / "b" / PLAN_FILE
    file.write_bytes(file.read_bytes().replace(b"0.05", b"0.50", 1))
    with pytest.raises(NotAuthentic, match="the signature is wrong"):
        seal(tmp_path / "b", PLAN, key)


def test_pairs_are_used_up_by_the_files_that_they_judged(tmp_path: Path, key: SigningKey) -> None:
    plan = msgspec.structs.replace(PLAN, tries=2)
    assert gate(tmp_path, plan, good(), model="a", key=key).tries == 1
    assert gate(tmp_path, plan, good(), model="a", key=key).tries == 1, "the same again is no other try"
    rolled = [msgspec.structs.replace(pair, student=pair.student + " ") for pair in good()]
    assert gate(tmp_path, plan, rolled, model="a", key=key).tries == 2, "other answers of the same file are"
    with pytest.raises(DistillError, match="have judged 2 of the 2 model files"):
        gate(tmp_path, plan, good(), model="b", key=key)
    fresh = [msgspec.structs.replace(pair, prompt=f"fresh {pair.prompt}") for pair in good()]
    assert gate(tmp_path, plan, fresh, model="b", key=key).tries == 1
    assert len(list(judged(tmp_path))) == 3


def test_more_tries_cost_more_pairs() -> None:
    assert msgspec.structs.replace(PLAN, tries=3).needed() > PLAN.needed()


def test_too_few_pairs_use_nothing_up(tmp_path: Path, key: SigningKey) -> None:
    for model in "abc":
        assert gate(tmp_path, PLAN, good(100), model=model, key=key).decision == "cannot tell"
    assert not (tmp_path / JUDGED).exists()
    assert gate(tmp_path, WIDER, good(), model="a", key=key).decision == "promote"


def test_a_slice_that_lacks_pairs_may_get_them(tmp_path: Path, key: SigningKey) -> None:
    plan = msgspec.structs.replace(PLAN, slices=("a", "b"))
    num = plan.needed()
    some = made(num, 1, 1, name="a") + made(9, 1, 1, name="b")
    assert gate(tmp_path, plan, some, model="m", key=key).decision == "cannot tell"
    more = made(num, 1, 1, name="a") + made(num, 1, 1, name="b")
    assert gate(tmp_path, plan, more, model="m", key=key).decision == "promote"


def test_what_was_trained_on_judges_nobody(tmp_path: Path, key: SigningKey) -> None:
    with pytest.raises(DistillError, match="pair '7' is in the training data"):
        gate(tmp_path, PLAN, good(), model="a", key=key, trained_on=["x[P] 7"])
    assert not (tmp_path / FILE).exists()


def test_what_was_trained_on_is_found_in_another_case_and_with_other_spaces(tmp_path: Path, key: SigningKey) -> None:
    with pytest.raises(DistillError, match="pair '7' is in the training data"):
        gate(tmp_path, PLAN, good(), model="a", key=key, trained_on=[" X[p]\n7 "])


def test_what_cannot_be_judged_uses_nothing_up(tmp_path: Path, key: SigningKey) -> None:
    plan = msgspec.structs.replace(PLAN, bleu_margin=5.0)
    pairs = made(plan.needed(), 0.97, 0.97)
    with pytest.raises(DistillError, match="has no references"):
        gate(tmp_path, plan, pairs, model="a", key=key)
    with pytest.raises(ConfigError, match="no verifier 'slot'"):
        gate(tmp_path, msgspec.structs.replace(PLAN, verify="slot"), pairs, model="a", key=key)
    assert not (tmp_path / JUDGED).exists()


def test_half_a_line_of_a_killed_process_is_no_judgement(tmp_path: Path, key: SigningKey) -> None:
    gate(tmp_path, PLAN, good(), model="a", key=key)
    with (tmp_path / JUDGED).open("ab") as file:
        file.write(b'{"at":"2026')
    assert gate(tmp_path, PLAN, good(), model="a", key=key).tries == 1
    with pytest.raises(DistillError, match="1 of the 1"):
        gate(tmp_path, PLAN, good(), model="b", key=key)


KILLED = """
import os, signal, sys
from pathlib import Path
from stepwell.quality import gate
from stepwell.signing import signing_key
sys.path.insert(0, sys.argv[2])
from test_gate import PLAN, good
real = gate.judge
gate.judge = lambda *given, **more: os.kill(os.getpid(), signal.SIGKILL)
gate.gate(Path(sys.argv[1]), PLAN, good(), model="a", key=signing_key())
"""


def test_a_kill_before_the_verdict_still_counts_as_a_look(tmp_path: Path) -> None:
    secret = subprocess.run(
        [sys.executable, "-m", "stepwell.cli", "templates", "key"], capture_output=True, text=True, check=True
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), folders[0]],
        env={**os.environ, "STEPWELL_SIGNING_KEY": secret.stdout.strip(), "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / FILE).exists()
    assert [each.model for each in judged(tmp_path)] == ["a"]


def test_the_verdict_is_signed(tmp_path: Path, key: SigningKey) -> None:
    report = gate(tmp_path, PLAN, good(), model="a", key=key)
    promotion = Promotion(tmp_path)
    assert promotion.verdict(trusted((), key))[1] == report
    with pytest.raises(NotAuthentic, match="not trusted"):
        promotion.promote(trusted((), new_key()))
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes().replace(b"promote", b"refuse!"))
    with pytest.raises(NotAuthentic, match="signature is wrong"):
        promotion.promote(trusted((), key))


def test_a_defaulted_plan_needs_what_the_textbook_says() -> None:
    """n = (z_alpha + z_power)^2 * discordance / margin^2, and some more for the finite number of pairs."""
    plan = GatePlan(power=0.9)
    assert 2142 <= plan.needed() <= 2142 * 1.05
