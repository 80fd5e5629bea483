"""Wordings wait until it is known whose answer they lead to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stepwell.cache import wordings
from stepwell.cache.key import Identity
from stepwell.cache.wordings import Wordings
from stepwell.index.rows import KeyAdded

VECTOR = np.ones(8, np.float32) / np.sqrt(8, dtype=np.float32)
WHO = Identity(exact=b"x" * 32, partition=b"p" * 32, text="hi", principal=b"who")
OLD, FRESH = b"o" * 32, b"f" * 32


@pytest.mark.parametrize(("right", "leads_to"), [(True, OLD), (False, FRESH)])
def test_the_judge_says_where_a_wording_leads_in_either_order(leads_to: bytes, *, right: bool) -> None:
    for order in itertools.permutations(("answered", "judged")):
        waiting = Wordings("e")
        waiting.asked(WHO, VECTOR, OLD)
        rows: list[KeyAdded | None] = []
        for event in order:
            if event == "answered":
                rows.append(waiting.answered(WHO.exact, FRESH, 5.0))
            else:
                rows.append(waiting.judged(WHO.exact, right=right))
        first, last = rows
        assert first is None
        assert last is not None
        assert (last.answer, last.partition, last.expires_s, last.text) == (leads_to, WHO.partition, 5.0, "hi")
        assert not waiting.waiting


def test_without_a_candidate_nobody_is_waited_for() -> None:
    waiting = Wordings("e")
    waiting.asked(WHO, VECTOR, b"")
    row = waiting.answered(WHO.exact, FRESH, 5.0)
    assert row is not None
    assert row.answer == FRESH
    assert len(row.vector) == 8


def test_what_nobody_asked_or_was_answered_from_here_adds_nothing() -> None:
    waiting = Wordings("e")
    assert waiting.answered(b"?" * 32, FRESH, 5.0) is None
    assert waiting.judged(b"?" * 32, right=True) is None
    waiting.asked(WHO, VECTOR, OLD)
    waiting.forget(WHO.exact)
    assert waiting.judged(WHO.exact, right=True) is None


def test_the_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordings, "MOST_WAITING", 3)
    waiting = Wordings("e")
    for number in range(9):
        waiting.asked(Identity(exact=bytes([number]), partition=b"p", text="t", principal=b""), VECTOR, OLD)
    assert list(waiting.waiting) == [b"\x06", b"\x07", b"\x08"]
