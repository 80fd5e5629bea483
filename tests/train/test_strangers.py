"""Loaders that know nothing of Stepwell read its files: transformers' own GGUF reader, and OpenVINO GenAI where it is."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from stepwell.distill import student
from stepwell.quantize.export import to_gguf
from stepwell.quantize.formats import FORMATS
from stepwell.quantize.grids import Coded, fit, rounded
from stepwell.quantize.network import matrices, swapped

WRITER = ROOT / "models" / "house-writer"
PROMPT = "name[The Mill], eatType[pub], food[French], area[riverside]"
OPENVINO = sys.executable if find_spec("openvino_genai") else ""
NUM_TOKENS = 12
GENERATE = """
import json, sys
import numpy as np
import openvino as ov
import openvino_genai as og
file, ids, num = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
pipe = og.LLMPipeline(file, "CPU", INFERENCE_NUM_THREADS=1)
told = og.GenerationConfig()
told.max_new_tokens, told.do_sample = num, False
held = np.array([ids])
print(json.dumps(list(pipe.generate(og.TokenizedInputs(ov.Tensor(held), ov.Tensor(np.ones_like(held))), told).tokens[0])))
"""


def codes(parent: student.Model, kind: str) -> dict[str, Coded]:
    held = {name: weight.detach() for name, weight in matrices(parent).items()}
    return {name: rounded(fit(FORMATS[kind], each), each) for name, each in held.items()}


@pytest.fixture(scope="module")
def parent() -> student.Model:
    torch.set_num_threads(1)
    return student.load(WRITER)


@pytest.mark.parametrize("kind", ["Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K", "Q2_K"])
def test_transformers_reads_the_file(tmp_path: Path, parent: student.Model, kind: str) -> None:
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate: pip install accelerate")
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds

    coded = codes(parent, kind)
    file = to_gguf(WRITER, tmp_path / "model.gguf", coded=coded)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).eval()
    ids = torch.tensor([parent.prompt_ids(PROMPT)])
    with torch.no_grad(), swapped(parent, {name: each.decoded() for name, each in coded.items()}):
        ours = parent.logits(parent.hidden(ids)[0])
        assert torch.allclose(theirs(ids).logits[0], ours, atol=2e-4, rtol=1e-4)


def test_transformers_reads_its_words(tmp_path: Path, parent: student.Model) -> None:
    from transformers import AutoTokenizer  # noqa: PLC0415

    file = to_gguf(WRITER, tmp_path / "model.gguf")
    words = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    text = "The Mill, a pub by the river: £20 for two!"
    assert words.encode(text, add_special_tokens=False) == parent.tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.skipif(not OPENVINO, reason="needs OpenVINO: pip install 'stepwell[openvino]'")
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_openvino_writes_what_torch_writes(tmp_path: Path, parent: student.Model, kind: str) -> None:
    coded = codes(parent, kind)
    file = to_gguf(WRITER, tmp_path / "model.gguf", coded=coded)
    ids = parent.prompt_ids(PROMPT)
    done = subprocess.run(
        [OPENVINO, "-c", GENERATE, str(file), json.dumps(ids), str(NUM_TOKENS)],
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(done.stdout.splitlines()[-1])
    made = list(ids)
    with torch.no_grad(), swapped(parent, {name: each.decoded() for name, each in coded.items()}):
        for _ in range(NUM_TOKENS):
            made.append(int(parent.logits(parent.hidden(torch.tensor([made]))[0, -1:]).argmax()))
    assert theirs == made[len(ids) :]
