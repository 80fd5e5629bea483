"""The loop in two workers of Ray gives the curve that one process gives, also where a worker dies on the way."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import write_model

from stepwell.cli.main import main
from stepwell.distill import parallel
from stepwell.distill.data import examples
from stepwell.distill.plan import Plan
from stepwell.distill.ray_backend import cluster, spread
from stepwell.distill.student import load
from stepwell.distill.train import Told, train
from stepwell.errors import DistillError
from stepwell.store import tables

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        find_spec("ray") is None, reason="Ray is not installed: pip install torch==2.13.0 'stepwell[ray]'"
    ),
]

PLAN = {"steps": 4, "batch_tokens": 300, "warm_steps": 1, "save_every": 2, "precision": "fp32"}


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    os.environ["OMP_NUM_THREADS"] = "1"
    with ExitStack() as stack:
        try:
            stack.enter_context(cluster(2))
        except DistillError as error:  # it waits half a minute for itself, which is short on a machine under load
            pytest.skip(f"Ray does not start here: {error}")
        from ray import cloudpickle  # noqa: PLC0415 - after its settings

        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker can import a test
        yield


def listening() -> set[str]:
    """Addresses that processes of Ray listen on, as the kernel writes them."""
    sockets = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"ray" in (process / "cmdline").read_bytes():
                sockets |= {str(file.readlink()) for file in (process / "fd").iterdir()}
    lines = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


def test_it_listens_to_this_machine_alone() -> None:
    assert listening() <= {"0100007F", "0" * 16 + "FFFF00000100007F", "0" * 24 + "01000000"}  # 127.0.0.1, and in IPv6


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_model(tmp_path / "student")
    rows = [{"prompt": f"name[The Mill {at}]", "completion": f"The Mill {at} is here."} for at in range(24)]
    tables.write(tmp_path / "rows.jsonl", rows)
    settings = "".join(f"{name} = {json.dumps(value)}\n" for name, value in PLAN.items())
    file = tmp_path / "small.toml"
    file.write_text(f"[student]\nfolder = 'student'\n[train]\ndata = 'rows.jsonl'\n{settings}")
    return file


def losses(log: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in log.read_text().splitlines()]


def learned(given: Mapping[str, Any]) -> Path:
    """What a worker does; the first one dies in its third step, once."""
    died = Path(given["died"])

    def watch(told: Told) -> None:
        if told.step == 3 and parallel.join()[0] == 0 and not died.exists():
            died.touch()
            os._exit(1)

    torch.set_num_threads(1)
    rows = examples(Path(given["rows"]))
    return train(Plan(**PLAN), load(Path(given["student"])), rows, Path(given["out"]), watch=watch).log


def test_two_workers_learn_what_one_process_learns(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curves = []
    for how in ([], ["--ray", "2"]):
        out = recipe.with_name(f"run{len(curves)}")
        assert main(["distill", "train", str(recipe), "--out", str(out), "--json", *how]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (told["steps"], told["stopped"]) == (4, "steps")
        assert (Path(told["folder"]) / "model.safetensors").exists()
        curves.append(losses(Path(told["log"])))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_after_a_worker_died_all_go_on_from_the_checkpoint(recipe: Path) -> None:
    folder = recipe.parent
    given = {name: str(folder / name) for name in ("student", "died")} | {"rows": str(folder / "rows.jsonl")}
    whole = losses(learned({**given, "out": str(folder / "whole"), "died": str(folder)}))
    log = spread(learned, {**given, "out": str(folder / "torn")}, folder / "torn", workers=2)
    assert (folder / "died").exists()
    assert losses(log) == pytest.approx(whole, rel=1e-4)


def test_a_worker_that_always_fails_is_told(tmp_path: Path) -> None:
    given = {"student": str(tmp_path / "none"), "rows": str(tmp_path / "none.jsonl"), "died": "", "out": str(tmp_path)}
    with pytest.raises(DistillError, match=r"none\.jsonl: there is no such file"):
        spread(learned, given, tmp_path, workers=1, tries=0)


def test_more_workers_than_there_is_room_for_are_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "train", str(recipe), "--ray", "4096"]) == 2
    assert "--ray 4096: the cluster has room for 2," in capsys.readouterr().err
