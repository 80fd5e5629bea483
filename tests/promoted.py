"""A promotion that is there already: a signed verdict about a model, and a stage."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import msgspec

from stepwell.quality.compare import GatePlan
from stepwell.quality.files import lay
from stepwell.quality.promotion import Promotion, Stage
from stepwell.quality.verdict import FILE, Decision, Finding, Report, written
from stepwell.signing import SigningKey, signed, trusted


def report(
    model: str,
    *,
    decision: Decision = "promote",
    margin: float = 0.02,
    reason: str = "by a test",
    slices: tuple[str, ...] = (),
) -> Report:
    """`slices`: the values of the slot `kind` that passed, where not all did."""
    plan = msgspec.to_builtins(GatePlan(margin=margin, slices=slices, slice_by="slot:kind" if slices else ""))
    findings = [Finding(name, "right", "non-inferior", "by a test", 1, 1, margin) for name in slices]
    return Report(decision, reason, findings, plan, "0" * 64, "0" * 64, model, "2026-11-26T00:00:00+00:00")


def put(folder: Path, key: SigningKey, verdict: Report) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lay(folder / FILE, signed(written(verdict), key))


def promoted(
    folder: Path, key: SigningKey, model: str, stage: Stage, *, margin: float = 0.02, reason: str = "by a test"
) -> Promotion:
    put(folder, key, report(model, margin=margin, reason=reason))
    promotion = Promotion(folder)
    promotion.promote(trusted((), key), to=stage, because="a test")
    return promotion


def public(key: SigningKey) -> str:
    return b64encode(key.public.public_bytes_raw()).decode()
