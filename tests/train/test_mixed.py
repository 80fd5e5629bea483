"""Mixed precision: a table of true losses, a choice within its budget, and a repair that is never worse or dearer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import rows, words

from stepwell.distill import student
from stepwell.distill.plan import StudentSection
from stepwell.errors import DistillError
from stepwell.quantize import sensitivity
from stepwell.quantize.allocate import allocated
from stepwell.quantize.calibrate import laid, measured
from stepwell.quantize.divergence import Reference
from stepwell.quantize.network import swapped
from stepwell.quantize.recipe import Rule, num_bytes, uniform
from stepwell.quantize.repair import repaired
from stepwell.quantize.resume import Past
from stepwell.quantize.sensitivity import Table
from stepwell.quantize.shelf import Shelf, shelf

FORMATS = ("Q8_0", "Q4_K", "Q2_K")


class Case:
    def __init__(self, folder: Path, *, tied: bool = True, hidden: int = 256, sure: float = 3) -> None:
        section = StudentSection(hidden=hidden, layers=2, heads=2, kv_heads=1, inner=256, context=128, tied=tied)
        self.model = student.create(section, words(folder), 0)
        with torch.no_grad():  # trained weights make sharper guesses than new ones
            self.model.module.embed_tokens.weight.mul_(sure)
        texts = [(self.model.prompt_ids(each.prompt), self.model.text_ids(each.completion)) for each in rows(4)]
        self.batches = laid(texts, pad=self.model.words.pad, rows=4)
        self.shelf: Shelf = shelf(self.model, measured(self.model, self.batches[:1]))
        self.reference = Reference(self.model, self.batches[1:])

    def table(self, **more: object) -> Table:
        return sensitivity.measured(self.model, self.shelf, self.reference, **{"formats": FORMATS} | more)

    def joint(self, recipe: object) -> float:
        with swapped(self.model, self.shelf.all(recipe)):
            return self.reference.of(self.model).kl


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def table(case: Case) -> Table:
    return case.table()


def test_every_entry_is_the_loss_of_the_whole_model_with_that_one_matrix(case: Case, table: Table) -> None:
    for entry in table.entries[:: len(table.entries) // 9]:
        with swapped(case.model, {entry.name: case.shelf.weight(entry.name, Rule(entry.format))}):
            assert entry.kl == pytest.approx(case.reference.of(case.model).kl, rel=1e-6, abs=1e-9)


def test_the_table_has_every_matrix_once_and_the_files_bytes(case: Case, table: Table) -> None:
    assert table.names == tuple(case.shelf.weights)
    assert "lm_head.weight" not in table.names  # tied: one variable, that counts as both
    assert len(table.entries) == len(table.names) * len(FORMATS)
    for format_ in FORMATS:
        size = sum(entry.num_bytes for entry in table.entries if entry.format == format_)
        assert size == num_bytes(uniform(format_), case.shelf.shapes)


def test_fewer_bits_lose_more_on_the_whole(table: Table) -> None:
    lost = [sum(entry.kl for entry in table.entries if entry.format == format_) for format_ in FORMATS]
    assert lost[0] < lost[1] < lost[2]


def test_the_model_is_as_it_was(case: Case) -> None:
    before = {name: weight.clone() for name, weight in case.shelf.weights.items()}
    layers = list(case.model.module.layers)
    case.table(formats=("Q2_K",), base=uniform("Q8_0"))
    assert list(case.model.module.layers) == layers
    assert case.reference.of(case.model).kl == 0
    assert all(torch.equal(before[name], weight) for name, weight in shelf(case.model, None).weights.items())


def test_the_other_way_round_all_others_are_quantized(case: Case) -> None:
    base = uniform("Q2_K")
    table = case.table(formats=("Q2_K", "Q8_0"), base=base)
    joint = case.joint(base)
    assert all(entry.kl == pytest.approx(joint, rel=1e-5) for entry in table.entries if entry.format == "Q2_K")
    lifted = [entry.kl for entry in table.entries if entry.format == "Q8_0"]
    assert sum(lifted) / len(lifted) < joint


def test_a_head_of_its_own_is_a_variable_of_its_own(tmp_path: Path) -> None:
    untied = Case(tmp_path, tied=False)
    table = untied.table(formats=("Q2_K",))
    assert {"lm_head.weight", "embed_tokens.weight"} < set(table.names)
    entry = next(entry for entry in table.entries if entry.name == "lm_head.weight")
    with swapped(untied.model, {entry.name: untied.shelf.weight(entry.name, Rule("Q2_K"))}):
        assert entry.kl == pytest.approx(untied.reference.of(untied.model).kl, rel=1e-6)


def test_formats_that_do_not_fit_are_left_out_and_16_bits_fit_always(tmp_path: Path) -> None:
    narrow = Case(tmp_path, hidden=72)
    table = narrow.table(formats=("Q4_K", "Q8_0"))
    found = {entry.name: entry.format for entry in table.entries}
    assert found["embed_tokens.weight"] == "F16"  # 72 is a multiple of no block
    assert found["layers.0.mlp.down_proj.weight"] in {"Q4_K", "Q8_0"}  # 256 wide


@pytest.mark.parametrize("bits", [2.7, 3.6, 5.0])
def test_a_choice_is_within_its_budget_and_its_recipe_says_the_same(case: Case, table: Table, bits: float) -> None:
    budget = int(table.num_weights * bits / 8)
    picked = allocated(table.choices(), budget)
    recipe = table.recipe(picked)
    assert {name: recipe.rule(name).format for name in picked} == {name: each.format for name, each in picked.items()}
    assert num_bytes(recipe, case.shelf.shapes) == sum(each.cost for each in picked.values()) <= budget


def test_mixed_beats_uniform_of_the_same_bytes(case: Case, table: Table) -> None:
    size = num_bytes(uniform("Q4_K"), case.shelf.shapes)
    assert case.joint(table.recipe(allocated(table.choices(), size))) <= case.joint(uniform("Q4_K")) * 1.001


def test_a_table_is_read_as_it_was_written(tmp_path: Path, table: Table) -> None:
    sensitivity.write(tmp_path / "table.json", table)
    assert sensitivity.read(tmp_path / "table.json") == table
    (tmp_path / "table.json").write_text("{")
    with pytest.raises(DistillError, match="no table"):
        sensitivity.read(tmp_path / "table.json")


def test_what_is_foreseen_goes_with_what_is_measured(case: Case, table: Table) -> None:
    foreseen = sensitivity.predicted(case.shelf, formats=FORMATS)
    measured_kl, kl = (torch.tensor([entry.kl for entry in each.entries]).log() for each in (table, foreseen))
    assert torch.corrcoef(torch.stack([measured_kl, kl]))[0, 1] > 0.9
    assert [entry.num_bytes for entry in foreseen.entries] == [entry.num_bytes for entry in table.entries]
    with pytest.raises(DistillError, match="calibration"):
        sensitivity.predicted(shelf(case.model, None))


def test_repair_is_never_worse_and_never_dearer_and_the_same_every_time(case: Case, table: Table) -> None:
    budget = int(table.num_weights * 3.2 / 8)
    worst = {name: max(group, key=lambda each: each.loss) for name, group in table.choices().items()}
    one = repaired(case.model, case.shelf, case.reference, table, worst, budget=budget)
    assert one.complete
    assert one.rounds > 0
    assert one.cost <= budget
    assert one.kl < one.kl_before
    assert one.kl == pytest.approx(case.joint(one.recipe), rel=1e-5)
    assert one == repaired(case.model, case.shelf, case.reference, table, worst, budget=budget)
    assert case.reference.of(case.model).kl == 0


def test_repair_without_time_leaves_everything_as_it_was(case: Case, table: Table) -> None:
    picked = allocated(table.choices(), int(table.num_weights * 3.2 / 8))
    found = repaired(case.model, case.shelf, case.reference, table, picked, budget=10**9, limit_s=0)
    assert not found.complete
    assert found.recipe == table.recipe(picked)
    assert found.kl == found.kl_before


def test_what_lies_before_a_layer_is_not_computed_again(case: Case) -> None:
    past, seen = Past(case.model), []
    with past.listening():
        case.reference.of(case.model)
    hooks = [layer.register_forward_hook(lambda *_, at=at: seen.append(at)) for at, layer in enumerate(past.layers)]
    with past.from_layer_of("layers.1.mlp.up_proj.weight"):
        assert case.reference.of(case.model).kl == 0
    for hook in hooks:
        hook.remove()
    assert set(seen) == {1}


def test_a_model_that_is_sure_of_everything_is_coded_too(tmp_path: Path) -> None:
    sure = Case(tmp_path, sure=8)
    assert torch.isfinite(sure.shelf.weight("layers.0.mlp.up_proj.weight", Rule("Q4_K"))).all()


def test_a_model_with_a_damaged_weight_is_refused(tmp_path: Path) -> None:
    damaged = Case(tmp_path)
    with torch.no_grad():
        damaged.model.module.layers[0].mlp.up_proj.weight[3, 4] = float("nan")
    with pytest.raises(DistillError, match=r"layers.0.mlp.up_proj.weight holds NaN"):
        measured(damaged.model, damaged.batches[:1])
    with pytest.raises(DistillError, match=r"layers.0.mlp.up_proj.weight holds NaN"):
        shelf(damaged.model, None).weight("layers.0.mlp.up_proj.weight", Rule("Q4_K", "round"))
