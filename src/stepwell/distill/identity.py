"""What a training run is known by: a checkpoint of another run is not gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from stepwell.distill.lora import adapters
from stepwell.distill.plan import Plan
from stepwell.distill.sparse import SparseRows
from stepwell.distill.student import Model, fingerprint
from stepwell.distill.weights import Transform


def named(transform: Transform | None, since: int) -> list[str]:
    """What a run says of its transform: its name, where it has one, and the step from which it counts."""
    return [] if transform is None else [str(getattr(transform, "name", "")), str(since)]


def identity_of(
    plan: Plan,
    student: Model,
    data: str,
    teacher: Model | None,
    sparse: SparseRows | None,
    *,
    transform: Sequence[str] = (),
) -> str:
    """Digest of what must be the same for a run to go on; weights that it begins with are known by their folder."""
    free = {"steps", "save_every", "measure_every", "patience", "data", "dev"}
    said = {name: value for name, value in msgspec.to_builtins(plan).items() if name not in free}
    shapes = [(name, list(weight.shape)) for name, weight in student.module.named_parameters()]
    scales = [layer.scale for _, layer in adapters(student.module)]
    begins = [fingerprint(model.folder) for model in (student, teacher) if model is not None]
    begins += [*([sparse.digest] if sparse is not None else []), *transform]
    return sha256(msgspec.json.encode([said, shapes, student.tokenizer_hash, data, scales, begins])).hexdigest()
