"""A teacher that runs here: its texts, its scores, or what it expected at every place of a text.

Work is done in parts, each a file that is written whole: a run that was killed goes on behind the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.nn import functional

from stepwell.distill import batch, sparse, topk
from stepwell.distill.answered import talk
from stepwell.distill.data import Example
from stepwell.distill.generate import generate
from stepwell.distill.student import Model, fingerprint, load, native
from stepwell.distill.teach import Job, Outcome
from stepwell.distill.topk import Floats, TopK
from stepwell.engines.answers import Spent
from stepwell.errors import DistillError
from stepwell.quality.refusals import other_language
from stepwell.quality.verify import verifier

PART_ROWS = 512
BATCH_TOKENS = 8192
HASH_CHARS = 12
Row = Mapping[str, Any]


def given(job: Job, rows: Sequence[Row]) -> list[Outcome]:
    """What the teacher gives for rows, in their order. Raises DistillError."""
    section = job.section
    folder = job.path(section.path)
    device = torch.device(section.device)
    model = load(folder, device=section.device, dtype=native(device))
    revision = fingerprint(folder)[:HASH_CHARS]
    named = [{**row, "id": str(row.get("id") or at)} for at, row in enumerate(rows)]
    work = Work(job, model, revision)
    if section.give == "scores":
        return [Outcome({**row, "score": score}, at) for at, (row, score) in enumerate(work.scored(named))]
    taught = list(work.written(named))
    if section.give == "logits":
        work.logits([each.row for each in taught if not each.reason])
    return taught


class Work:
    """A loaded teacher at work for a job."""

    def __init__(self, job: Job, model: Model, revision: str) -> None:
        self.job, self.model, self.revision = job, model, revision
        section = job.section
        self.verify = verifier(section.verifier, field="teacher.verifier") if section.verifier else None

    # --- texts

    def written(self, rows: Sequence[Row]) -> Iterator[Outcome]:
        """Rows with the teacher's texts; where logits are asked for, a text that is there already stays."""
        section = self.job.section
        stays = section.give == "logits" and all(row.get("completion") for row in rows)
        texts = [[row["completion"]] for row in rows] if stays else self.texts([row["prompt"] for row in rows])
        for at, (row, found) in enumerate(zip(rows, texts, strict=True)):
            for number, text in enumerate(dict.fromkeys(found)):
                name = f"{row['id']}-{number}" if number else row["id"]
                told = {} if stays else self.provenance(text, number, row["prompt"])
                yield Outcome({**row, **told, "id": name}, at, self.reason(row["prompt"], text))

    def texts(self, prompts: Sequence[str]) -> list[list[str]]:
        """The teacher's texts for prompts, part by part."""
        section = self.job.section
        asked = [section.ask.replace("{prompt}", prompt) for prompt in prompts]
        settings = (section.num, section.temperature, section.max_tokens, section.seed, self.revision)

        def work(part: Sequence[str]) -> list[list[str]]:
            return generate(
                self.model,
                part,
                num=section.num,
                temperature=section.temperature,
                max_tokens=section.max_tokens,
                seed=section.seed,
            )

        return self.in_parts("texts", asked, settings, work)

    def in_parts(self, name: str, items: Sequence[Any], settings: Any, work: Callable[[Any], list[Any]]) -> list[Any]:  # noqa: ANN401 - JSON
        """What `work` makes of items, each part kept under a name for all that it depends on."""
        made: list[Any] = []
        for part in parts(items):
            file = self.job.out / "parts" / f"{name}-{digest([settings, part])}.json"
            if not file.exists():
                write_whole(file, msgspec.json.encode(work(part)))
            made += msgspec.json.decode(file.read_bytes())
            self.job.watch(len(made), len(items), Spent())
        return made

    def reason(self, prompt: str, text: str) -> str:
        """Why a text is not learned from; "" where it is."""
        section = self.job.section
        if not text.strip():
            return "empty"
        language = other_language(text, section.language) if section.language else ""
        if language:
            return f"in another language: {language}"
        complaints = self.verify(prompt, text) if self.verify is not None else []
        return f"{section.verifier} complains: {', '.join(complaints)}" if complaints else ""

    def provenance(self, text: str, number: int, prompt: str) -> dict[str, Any]:
        """Who wrote it, and how."""
        section = self.job.section
        return {
            "completion": text,
            "messages": talk(prompt, text),
            "generator": section.name,
            "generator_rev": self.revision,
            "params": {"temperature": section.temperature, "max_tokens": section.max_tokens},
            "seed": section.seed + number,
            "tokens_out": len(self.model.text_ids(text)),
        }

    # --- what it expects

    def scored(self, rows: Sequence[Row]) -> Iterator[tuple[Row, float]]:
        """Rows with the mean probability (geometric) of their completion's tokens, 0 to 1."""

        def work(part: Sequence[Sequence[str]]) -> list[float]:
            told = expected(self.model, [Example(prompt, text, id=str(at)) for at, (prompt, text) in enumerate(part)])
            found = {name: float(np.exp(logp[np.arange(len(ids)), ids].mean())) for name, ids, logp in told}
            return [found[str(at)] for at in range(len(part))]

        pairs = [[row["prompt"], row["completion"]] for row in rows]
        yield from zip(rows, self.in_parts("scores", pairs, self.revision, work), strict=True)

    def logits(self, rows: Sequence[Row]) -> None:
        """Write what the teacher expects of each row's text, a file a part."""
        section, out = self.job.section, self.job.out / "logits"
        settings = (section.cover, section.most_k, section.least, section.sampled, section.seed, self.revision)
        size = self.model.tokenizer.get_vocab_size()
        wanted = set()
        done = 0
        for part in parts(rows):
            texts = [[row["id"], row["prompt"], row["completion"]] for row in part]
            file = out / f"{digest([settings, texts])}.sparse"
            wanted.add(file)
            if not file.exists():
                told = expected(self.model, [Example(prompt, text, id=name) for name, prompt, text in texts])
                kept = ((name, self.kept(ids, logp)) for name, ids, logp in told)
                kind: sparse.Kind = "sampled" if section.sampled else "topk"
                hashed = self.model.tokenizer_hash
                sparse.write(file, kept, tokenizer_hash=hashed, vocabulary=size, kind=kind)
            done += len(part)
            self.job.watch(done, len(rows), Spent())
        for file in set(out.glob("*.sparse")) - wanted:  # of other rows or settings
            file.unlink()

    def kept(self, ids: list[int], logp: Floats) -> TopK:
        """What is stored of a text's places."""
        section = self.job.section
        if section.sampled:
            seed = int(digest([section.seed, ids]), 16)
            return topk.sampled(np.array(ids), logp, num=section.sampled, seed=seed)
        return topk.top(np.array(ids), logp, cover=section.cover, most=section.most_k, least=section.least)


def expected(model: Model, examples: Sequence[Example]) -> Iterator[tuple[str, list[int], Floats]]:
    """Each example's tokens and the model's log-probabilities [tokens, vocabulary] of what stands there, by its id."""
    rows = [
        batch.Row(group.prompt, (text,), group.asked)
        for group in batch.groups_of(model, examples)
        for text in group.texts
    ]
    rows.sort(key=lambda row: row.num_tokens)
    for chunk in by_tokens(rows):
        laid = batch.laid_out(chunk, packs=model.packs, pad=model.words.pad).to(model.device)
        with torch.inference_mode():
            hidden = model.hidden(laid.ids, laid.places, laid.mask).flatten(0, 1)[laid.sources]
        at = 0
        for row in chunk:
            (text,) = row.texts
            with torch.inference_mode():
                logits = model.logits(hidden[at : at + len(text.ids)]).float()
                logp = functional.log_softmax(logits, dim=-1).cpu().numpy()
            at += len(text.ids)
            yield text.id, text.ids, logp


def by_tokens(rows: Sequence[batch.Row]) -> Iterator[list[batch.Row]]:
    """Rows, shortest first, in batches of at most BATCH_TOKENS as laid out."""
    chunk: list[batch.Row] = []
    for row in rows:
        if chunk and (len(chunk) + 1) * row.num_tokens > BATCH_TOKENS:
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


def parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Items in parts."""
    for start in range(0, len(items), PART_ROWS):
        yield items[start : start + PART_ROWS]


def digest(value: Any) -> str:  # noqa: ANN401 - JSON
    """A name for it."""
    return sha256(msgspec.json.encode(value)).hexdigest()[:HASH_CHARS]


def write_whole(file: Path, data: bytes) -> None:
    """Write a file, whole or not at all. Raises DistillError."""
    incoming = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        incoming.write_bytes(data)
        incoming.replace(file)
    except OSError as error:
        raise DistillError(f"cannot be written ({error.strerror})", file=str(file)) from error
