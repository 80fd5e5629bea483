"""What a model's matrices read, and what their errors cost: heard without a trace, and told right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from folders import KINDS, write_model
from torch import Tensor, nn

from stepwell.distill import student
from stepwell.errors import DistillError
from stepwell.quantize.calibrate import Calibration, Tokens, laid, measured
from stepwell.quantize.divergence import Reference
from stepwell.quantize.network import EMBEDDING, HEAD, matrices, swapped

pytestmark = pytest.mark.timeout(300)


def texts(num: int = 24, vocabulary: int = 300, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(2, 9, (num, 2), generator=draw).tolist()
    return [tuple(torch.randint(4, vocabulary, (each,), generator=draw).tolist() for each in size) for size in sizes]  # type: ignore[misc]


def batches(seed: int = 0, num: int = 24) -> list[Tokens]:
    return laid(texts(num, seed=seed), pad=0, rows=8)


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> student.Model:
    """Each architecture, and the plain Llama with an embedding that is the head as well."""
    return student.load(write_model(tmp_path / "model", request.param))


def test_texts_are_laid_side_by_side_and_completions_scored() -> None:
    (batch,) = laid([([5, 6], [7, 8, 9]), ([5], [6])], pad=0)
    assert batch.ids.tolist() == [[5, 6, 0, 0, 0], [5, 6, 7, 8, 9]]
    assert batch.real.tolist() == [[True, True, False, False, False], [True] * 5]
    assert batch.scored.tolist() == [[True, False, False, False, False], [False, True, True, True, False]]
    assert batch.num_scored == 4
    assert [len(each.ids) for each in laid(texts(10), pad=0, rows=4)] == [4, 4, 2]


def test_no_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="no calibration texts"):
        laid([([1, 2], [])], pad=0)
    network = student.load(write_model(tmp_path / "model"))
    with pytest.raises(DistillError, match="no calibration texts"):
        measured(network, [])
    with pytest.raises(DistillError, match="no texts to compare"):
        Reference(network, [])


def test_listening_leaves_no_trace(model: student.Model) -> None:
    modules = [type(each) for each in model.module.modules()]
    asks = [each.requires_grad for each in model.module.parameters()]
    (batch, *_) = batches()
    with torch.no_grad():
        before = model.hidden(batch.ids, None, batch.real)
    measured(model, batches())
    assert [type(each) for each in model.module.modules()] == modules
    assert [each.requires_grad for each in model.module.parameters()] == asks
    with torch.no_grad():
        assert torch.equal(model.hidden(batch.ids, None, batch.real), before)
    assert all(each.grad is None for each in model.module.parameters())


def test_every_matrix_is_heard(model: student.Model) -> None:
    found = measured(model, batches())
    weights = matrices(model)
    assert set(found.terms) == set(weights)
    assert set(found.inputs) == set(weights) - ({EMBEDDING} if HEAD in weights else set())
    for name, weight in weights.items():
        assert found.weights(name).shape == weight.shape
        assert (found.weights(name) >= 0).all()
        assert found.importance(name) is None or found.importance(name).shape == weight.shape[1:]  # type: ignore[union-attr]
    assert found.num_tokens == sum(batch.num_scored for batch in batches())


def test_mean_squared_inputs_are_those_of_the_real_tokens(tmp_path: Path) -> None:
    network = student.load(write_model(tmp_path / "model", "granite"))
    total, num = torch.zeros(32), 0
    name = "layers.1.self_attn.k_proj.weight"
    layer = next(each for key, each in network.module.named_modules() if key.endswith("layers.1.self_attn.k_proj"))
    assert isinstance(layer, nn.Linear)
    for batch in batches():
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _, x, y, seen=seen: seen.append(x[0]))  # noqa: ARG005
        with torch.no_grad():
            network.hidden(batch.ids, None, batch.real)
        hook.remove()
        total += seen[0][batch.real].square().sum(0)
        num += int(batch.real.sum())
    assert torch.allclose(measured(network, batches()).inputs[name], total / num, rtol=0.02)  # 16-bit passes


def test_costs_foretell_the_divergence(model: student.Model) -> None:
    """Of small random errors, in each matrix alone; on other texts the sum of all is right within a half."""
    known, parent = measured(model, batches(0, 160)), Reference(model, batches(1, 80))
    told, found = 0.0, 0.0
    torch.manual_seed(0)
    for name, weight in matrices(model).items():
        error = 0.02 * weight.detach().std() * torch.randn_like(weight)
        told += known.cost(name, error)
        with swapped(model, {name: weight.detach() + error}):
            found += parent.of(model).kl
    assert 0.5 < told / found < 1.5


def test_common_tokens_have_curvatures_of_their_own(tmp_path: Path) -> None:
    network = student.load(write_model(tmp_path / "model", tie_word_embeddings=True))
    known = measured(network, batches())
    own = known.own[EMBEDDING]
    assert len(own.rows) > 100
    assert all((term.rows[own.rows] == 0).all() for term in known.terms[EMBEDDING])
    assert (torch.linalg.eigvalsh(own.columns.double()) > -1e-9).all()


def test_divergence_is_none_from_itself_and_paired_by_text(tmp_path: Path) -> None:
    network = student.load(write_model(tmp_path / "model"))
    parent = Reference(network, batches())
    same = parent.of(network)
    assert same.kl == pytest.approx(0, abs=1e-6)
    assert same.top1 == 1
    name, weight = next(iter(matrices(network).items()))
    with swapped(network, {name: weight.detach() * 1.1}):
        moved = parent.of(network)
    assert moved.kl > 1e-5
    assert moved.kl == pytest.approx(float(moved.rows.sum() / moved.tokens.sum()), rel=1e-5)
    assert 0 < moved.error < moved.kl
    assert len(moved.rows) == 24


def test_a_calibration_without_common_tokens_is_one() -> None:
    assert Calibration({}, {}, 0).own == {}
