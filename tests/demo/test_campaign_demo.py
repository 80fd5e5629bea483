"""The demonstration's campaign on a small audience: every reader gets a text."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from conftest import WRITER
from stepwell.demo.campaign import played, show


def test_every_reader_gets_a_text_for_a_few_calls(tmp_path: Path) -> None:
    told = played(tmp_path, WRITER, 3000)
    assert told is not None
    assert told.num_filled == told.num_readers == 3000
    assert 0 < told.num_calls <= 300
    assert 500 < told.wire_bytes < 4000
    assert len(set(told.samples)) == 4
    out = io.StringIO()
    show(told, 2e-5, "as gpt-4o-mini", Console(file=out, width=100))
    assert "model calls" in out.getvalue()
    assert "$0.060" in out.getvalue() or "$0.06" in out.getvalue()
