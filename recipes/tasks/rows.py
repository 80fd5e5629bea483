"""Write a task's rows and tokenizer: `python -m recipes.tasks.rows NAME runs/tasks/NAME`.

`train.jsonl` is learned from; `dev.jsonl`, of other prompts, tells which weights are the best; `calibration.jsonl` is a
sample of what is learned, `search.jsonl` chooses a recipe, `gate.jsonl` proves it, `sealed.jsonl` is reported on, and
used for nothing else. `words` is a byte-level BPE tokenizer of the texts that are learned.
"""

from __future__ import annotations

import argparse
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from recipes.tasks import sources
from recipes.tasks.sources import NAMES, Texts
from recipes.writer import data, tokenizer
from stepwell.distill.data import Example
from stepwell.distill.replay import Values, swaps, values_of
from stepwell.store import tables
from stepwell.synth.leaks import leaks

VOCABULARY = 1024
CONTEXT = 512
NUM_DEV, NUM_CALIBRATION = 128, 8192
SWAPS = {"viggo": 8, "sgd": 12}
"""Rows about something else that are tried for each text with facts."""
INVENTED = {
    "e2e": "name near",
    "viggo": "name developer",
    "sgd": "restaurant_name hotel_name place_name event_name property_name therapist_name recipient_name "
    "attraction_name movie_name title song_name artist album director",
}
"""Slots whose values are names: most of the values that are swapped in have never been heard."""
NUM_INVENTED = 600
TEXTS = frozenset(INVENTED)
"""Tasks whose completions are texts about facts; the others' are labels."""


def write(name: str, out: Path) -> dict[str, int]:
    """A task's files in a folder; how many rows each has. Raises FileNotFoundError where there is no data."""
    parts = sources.parts(name)
    dev = dict(sorted(parts.learn.items(), key=lambda each: sources.share(each[0], "dev"))[:NUM_DEV])
    learn = {prompt: texts for prompt, texts in parts.learn.items() if prompt not in dev}
    asked = {sources.key(prompt) for part in (dev, parts.search, parts.gate, parts.sealed) for prompt in part}
    train = [each for each in learned(name, learn) if sources.key(each.prompt) not in asked]
    files = {"dev": dev, "search": parts.search, "gate": parts.gate, "sealed": parts.sealed}
    words = out / "words"
    shutil.rmtree(words, ignore_errors=True)
    tokenizer.write(tokenizer.learned(lines(train), VOCABULARY), words, CONTEXT)
    sample = sampled(train, [*parts.gate, *parts.sealed])
    for part, examples in (("train", train), ("calibration", sample)):
        told = ({"prompt": each.prompt, "completion": each.completion} for each in examples)
        tables.write(out / f"{part}.jsonl", told)
    for part, texts in files.items():
        tables.write(out / f"{part}.jsonl", judged(texts))
    return {"train": len(train), "calibration": len(sample), **{part: len(texts) for part, texts in files.items()}}


def sampled(train: Sequence[Example], held: Sequence[str]) -> list[Example]:
    """A sample of what is learned, no row with so many words in a row of what judges."""
    drawn = random.Random(0).sample(train, min(len(train), 2 * NUM_CALIBRATION))
    found = leaks([(each.prompt, each.completion) for each in drawn], [(prompt, "") for prompt in held])
    return [each for at, each in enumerate(drawn) if at not in found][:NUM_CALIBRATION]


def judged(texts: Texts) -> Iterator[Mapping[str, object]]:
    """Rows that judge: one a prompt, with all texts that people wrote."""
    for prompt, said in texts.items():
        yield {"prompt": prompt, "completion": said[0], "references": said}


def lines(train: Iterable[Example]) -> Iterator[str]:
    """What the tokenizer learns from."""
    for each in train:
        yield each.prompt
        yield each.completion


def learned(name: str, texts: Texts, seed: int = 0) -> list[Example]:
    """The rows that are learned: people's, and where they are about facts the same about something else."""
    chance = random.Random(seed)
    if name == "e2e":
        return [example for _ in range(2) for example in restaurants(texts, chance)]
    rows = [Example(prompt, text) for prompt, said in texts.items() for text in dict.fromkeys(said)]
    if name not in TEXTS:
        return rows
    values = with_invented(values_of(texts), INVENTED[name].split(), chance)
    return rows + [made for row in rows for made in swaps(row, SWAPS[name], values, lambda *_: [], chance)]


def restaurants(texts: Texts, chance: random.Random) -> Iterator[Example]:
    """E2E's texts as the house writer learns them: the agreeing ones more often, three in ten about invented places."""
    groups = {mr: list(data.weighted(mr, said)) for mr, said in texts.items()}
    for group in data.epoch(groups, chance, share_renamed=0.3):
        yield from (Example(group.mr, text) for text in group.texts)


def with_invented(values: Values, slots: Iterable[str], chance: random.Random) -> Values:
    """Values, and as many more that are invented for slots that hold names."""
    invented = {slot: [data.invented_name(chance) for _ in range(NUM_INVENTED)] for slot in slots if slot in values}
    return {slot: [*each, *invented.get(slot, [])] for slot, each in values.items()}


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    print(", ".join(f"{part} {num:,}" for part, num in write(given.name, given.out).items()))


if __name__ == "__main__":
    main()
