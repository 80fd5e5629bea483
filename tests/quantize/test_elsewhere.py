"""Other people's quantizers by subprocess: what they make appears whole or not at all, and what fails says why."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from random_folders import write_folder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from conftest import ROOT
from stepwell.cli.main import main
from stepwell.errors import DistillError
from stepwell.quantize.elsewhere import Asked, Made, quantized

REAL = {"llm-compressor": ROOT / ".venv-llmc/bin/python", "autoround": ROOT / ".venv-autoround/bin/python"}
TEXTS = tuple(tuple(range(3, 3 + num)) for num in (9, 12, 12, 15, 20, 20, 20, 24))
TELLS = """
told = {"loaded_s": 1, "quantized_s": 2, "saved_s": 3, "device": "cpu", "versions": {"fake": "1"}}
pathlib.Path(sys.argv[3]).with_name("told.json").write_text(json.dumps(told))
"""
MAKES = """
(out / "model.safetensors").write_bytes(b"0123456789")
(out / "config.json").write_text("{}")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["the well is deep and the stairs are many"], trainer)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_folder(folder, tokenizer, hidden_size=128, intermediate_size=256)
    said = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def fake(folder: Path, body: str) -> Path:
    """An interpreter that does this in place of the script."""
    python = folder / "python"
    head = f"#!{sys.executable}\nimport json, os, pathlib, sys, time\nif sys.argv[2] == '-c': raise SystemExit(0)\n"
    job = "job = json.loads(pathlib.Path(sys.argv[3]).read_text())\nout = pathlib.Path(job['out'])\n"
    python.write_text(head + job + body)
    python.chmod(0o755)
    return python


def asked(model: Path, folder: Path, body: str, **changes: object) -> Asked:
    fields = {"tool": "llm-compressor", "scheme": "W4A16", "out": folder / "made", "texts": TEXTS, "timeout_s": 30.0}
    return Asked(model=model, python=fake(folder, body), **{**fields, **changes})


def left(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.name != "python")


def test_what_was_made_lies_under_its_name_with_the_tokenizer(model: Path, tmp_path: Path) -> None:
    made = quantized(asked(model, tmp_path, MAKES + TELLS, scheme="NVFP4"))
    assert (made.num_bytes, made.quantized_s, made.versions) == (10, 2.0, {"fake": "1"})
    assert "compute capability 10.0" in made.needs
    assert left(tmp_path) == ["made"]
    assert (tmp_path / "made" / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


def test_a_gguf_preset_becomes_one_file_wherever_the_tool_puts_it(model: Path, tmp_path: Path) -> None:
    body = "(out / 'deep').mkdir()\n(out / 'deep' / 'tiny-Q2.gguf').write_bytes(b'GGUF')\n" + TELLS
    made = quantized(asked(model, tmp_path, body, tool="autoround", scheme="Q2_K_S", out=tmp_path / "a.gguf"))
    assert (tmp_path / "a.gguf").read_bytes() == b"GGUF"
    assert made.num_bytes == 4
    assert left(tmp_path) == ["a.gguf"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("sys.exit('CUDA out of memory')", "status 1; it said last:\nCUDA out of memory"),
        ("(out / 'half').write_bytes(b'x')\nos.kill(os.getpid(), 9)", "was ended by signal 9"),
        (MAKES, "it said last:\nnothing"),
        (TELLS, "was to write one config.json and wrote nothing"),
        ("time.sleep(60)", "was not done after 1 s"),
    ],
)
def test_a_process_that_fails_leaves_nothing_and_says_why(model: Path, tmp_path: Path, body: str, says: str) -> None:
    with pytest.raises(DistillError) as error:
        quantized(asked(model, tmp_path, body, timeout_s=1.0 if "sleep" in body else 30.0))
    assert says in str(error.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scheme": "W3A16"}, "has no scheme 'W3A16' here: W4A16"),
        ({"texts": ()}, "no calibration texts"),
        ({"python": Path("/nowhere/python")}, "is no Python that runs"),
        ({"python": Path(sys.executable)}, "has no llmcompressor: name --python ENV/bin/python, or make one"),
        ({"out": Path("made.gguf")}, "a GGUF preset goes to FILE.gguf"),
        ({"model": Path("/nowhere")}, "is no Hugging Face folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(
    model: Path, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    wrong = {"model": model, "out": tmp_path / "made", "python": fake(tmp_path, ""), "texts": TEXTS, **changes}
    with pytest.raises(DistillError) as error:
        quantized(Asked(tool="llm-compressor", **{"scheme": "W4A16", **wrong}))
    assert says in str(error.value)
    assert left(tmp_path) == []


def test_what_is_there_is_not_written_over(model: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(DistillError, match="is there already"):
        quantized(asked(model, tmp_path, MAKES + TELLS))


def test_killed_half_way_nothing_has_the_name_and_the_next_try_works(model: Path, tmp_path: Path) -> None:
    python = fake(tmp_path, "(out / 'config.json').write_text('{}')\ntime.sleep(20)\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "the well", "completion": "is deep"}) + "\n")
    words = ["quantize", "elsewhere", "llm-compressor", str(model), "--texts", str(rows), "--scheme", "W4A16"]
    words += ["--python", str(python), "--out", str(tmp_path / "made")]
    with subprocess.Popen([sys.executable, "-m", "stepwell.cli", *words], start_new_session=True) as process:
        while not (tmp_path / ".made.part" / "config.json").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "made").exists()
    fake(tmp_path, MAKES + TELLS)
    assert main(words) == 0
    assert (tmp_path / "made" / "model.safetensors").read_bytes() == b"0123456789"
    assert left(tmp_path) == ["made", "rows.jsonl"]


def real(model: Path, folder: Path, tool: str, scheme: str, out: str) -> Made:
    if not REAL[tool].exists():
        pytest.skip(f"no environment of {tool}: make peers")
    return quantized(Asked(tool, scheme, model, folder / out, REAL[tool], TEXTS, iters=2))


@pytest.mark.timeout(900)
def test_llm_compressor_itself_writes_a_folder_that_names_its_scheme(model: Path, tmp_path: Path) -> None:
    made = real(model, tmp_path, "llm-compressor", "W4A16", "made")
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    assert made.versions.keys() >= {"llmcompressor", "compressed-tensors"}


@pytest.mark.timeout(900)
def test_autoround_itself_writes_a_folder_of_two_bits(model: Path, tmp_path: Path) -> None:
    made = real(model, tmp_path, "autoround", "W2A16G32", "made")
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["quantization_config"]["bits"] == 2
    assert 0 < made.num_bytes < (model / "model.safetensors").stat().st_size
    assert made.quantized_s > 0
