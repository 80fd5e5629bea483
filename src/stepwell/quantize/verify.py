"""Whether a file is the model it is said to be: loaded by the real engine in a fresh process, and compared.

Three comparisons, each of which sees what the others do not. Words: the engine cuts texts into the folder's tokens.
Weights: what the file holds, read by gguf's reader, are the codes that were made, or near the folder's weights.
Distributions: the engine, from the file, and torch, from those codes, expect the same next tokens. What came out is the
file's manifest, without which the models folder and `verified = true` refuse it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path

import msgspec
import torch

from stepwell.errors import DistillError
from stepwell.quantize import engine, manifest
from stepwell.quantize.architectures import config_of
from stepwell.quantize.engine import Job, Text, Told
from stepwell.quantize.findings import (
    Findings,
    Limits,
    distributions,
    ends,
    expected,
    ids_of,
    served,
    weights,
    words,
)
from stepwell.quantize.grids import Coded
from stepwell.quantize.network import Network, matrices
from stepwell.quantize.readback import held
from stepwell.quantize.weights import files
from stepwell.verified import Manifest

CORPUS = (
    "The Mill serves French food by the river, doesn't it? It's cheap: £20, or 1,234.50 in 2026!",
    "name[Blue Spice], eatType[coffee shop], customer rating[5 out of 5], familyFriendly[yes]",
    "  two  spaces,\ttabs\n\nand lines \r\n of  all kinds   ",
    "naïve café, Straße, 日本語のテキスト, русский текст, हिन्दी, 👩‍💻🎉 ½ ² ॐ",
    'def f(x):\n    return x**2  # IDs like A1B2-c3, <b>tags</b> and {"json": [1, 2]}',
    "We'll SHOUT, they've whispered; I'd've come.",
)
"""What every tokenizer is tried on, beside a task's own texts."""
EXACT = Limits(kl=1e-4, top1_lost=0.0)
"""transformers computes with 32 bits, as torch does here."""


def verified(
    file: Path,
    folder: Path,
    parent: Network,
    texts: Sequence[Text],
    *,
    coded: Mapping[str, Coded] | None = None,
    corpus: Sequence[str] = (),
    limits: Limits | None = None,
) -> Manifest:
    """Verify a GGUF file and leave its manifest beside it, whether it passes or not.

    `parent` is the folder's model; `texts` are prompts and completions as token ids; `coded` (short names) what the
    matrices were made to be, where that is at hand. Raises DistillError where nothing can be compared at all.
    """
    config, found, job = config_of(folder), Findings(limits or Limits()), asked(file, folder, texts, corpus)
    told, formats = Told(), dict[str, int]()
    try:
        contents = held(file, config)
        formats = contents.counts
        told, logprobs = engine.run(job)
        words(found, folder, job.strings, told)
        ends(found, folder, config, contents)
        weights(found, folder, contents, coded or {})
        distributions(found, parent, texts, torch.from_numpy(logprobs), expected(contents, coded or {}))
        if not found.complaints:
            served(found, file, texts, logprobs)
    except DistillError as error:
        found.complaints.append(str(error).removeprefix(f"{file}: "))
    reference = "codes" if coded else "the file's own weights"
    return written(file, folder, job, found, told, formats=formats, reference=reference)


def verified_folder(
    made: Path,
    folder: Path,
    parent: Network,
    texts: Sequence[Text],
    coded: Mapping[str, Coded],
    *,
    corpus: Sequence[str] = (),
    limits: Limits = EXACT,
) -> Manifest:
    """The same for a folder of compressed-tensors, by transformers; the manifest lies beside its model.safetensors."""
    found, told = Findings(limits), Told()
    job = msgspec.structs.replace(asked(made, folder, texts, corpus), way="transformers")
    sixteen = {name: each.detach().half().float() for name, each in matrices(parent).items()}
    try:
        told, logprobs = engine.run(job)
        words(found, folder, job.strings, told)
        wanted = sixteen | {name: each.decoded() for name, each in coded.items()}
        distributions(found, parent, texts, torch.from_numpy(logprobs), wanted)
    except DistillError as error:
        found.complaints.append(str(error).removeprefix(f"{made}: "))
    formats = dict(Counter(each.format.name for each in coded.values()))
    return written(made / "model.safetensors", folder, job, found, told, formats=formats, reference="codes")


def asked(made: Path, folder: Path, texts: Sequence[Text], corpus: Sequence[str]) -> Job:
    """What the engine is asked. Raises DistillError where there is nothing to compare."""
    if not any(completion for _, completion in texts):
        raise DistillError("there are no texts to verify with: give a task, or rows with prompts and completions")
    corpus = (*CORPUS, *corpus)
    return Job(str(made), tuple(texts), corpus, tuple(tuple(each) for each in ids_of(folder, corpus)))


def written(
    file: Path, folder: Path, job: Job, found: Findings, told: Told, *, formats: dict[str, int], reference: str
) -> Manifest:
    """The manifest, and the same in its place."""
    made = Manifest(
        file=file.name,
        sha256=digest([file]),
        num_bytes=file.stat().st_size,
        passed=not found.complaints,
        complaints=tuple(found.complaints),
        model=folder.name,
        model_sha256=digest(files(folder)),
        tokenizer_sha256=digest([folder / "tokenizer.json"]),
        reference=reference,
        texts_sha256=sha256(msgspec.json.encode(job.texts)).hexdigest(),
        num_texts=len(job.texts),
        num_tokens=sum(len(completion) for _, completion in job.texts),
        corpus_sha256=sha256(msgspec.json.encode(job.strings)).hexdigest(),
        formats=formats,
        figures=found.figures,
        limits=found.limits,
        engine=told.engine,
        processor=told.processor,
    )
    manifest.write(file, made)
    return made


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of files one after the other; each one's own where they are several."""
    hashes = []
    for path in paths:
        with path.open("rb") as opened:
            hashes.append(file_digest(opened, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else sha256("".join(hashes).encode()).hexdigest()
