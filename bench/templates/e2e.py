"""E2E: a template for each structure, written by the house writer, else harvested from train and dev; scored on test.

Only names are blanks; every other fact is in the fixed text, so that each template is checked for exactly what it says.
Whatever was decided (the writer first, harvest second, the sample names) was decided on dev.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stepwell.config import EmbeddedEngine
from stepwell.demo.score import read, score
from stepwell.engines.asking import ask
from stepwell.engines.embedded import Embedded
from stepwell.quality.slots import ATTRIBUTES, errors, facts_of
from stepwell.templates import structure
from stepwell.templates.check import check
from stepwell.templates.compile import bundle
from stepwell.templates.compose import composed
from stepwell.templates.fill import Filled, load
from stepwell.templates.harvest import Pair, delexicalised, harvest
from stepwell.templates.prompt import answered_text
from stepwell.templates.schema import Schema, Slot, Values

WRITER = Path(__file__).parents[2] / "models" / "house-writer" / "house-writer.gguf"
SLOTS = {name.replace(" ", "_"): name for name in ATTRIBUTES}
NAMES = ("name", "near")
SAMPLES = (
    ("Blue Spice", "Burger King"),
    ("The Punter", "Café Sicilia"),
    ("The Mill", "Café Rouge"),
    ("Alimentum", "The Bakers"),
)
"""Names that the writer is asked with, and that every template is tried with; all are in train or dev."""
LEVELS = (
    *(f"{stars} {words}" for stars in (1, 3, 5) for words in ("out of 5", "star")),
    *("£20-25", "£20", "£30"),
)
"""Other words for the schema's levels, by its own account; the slot checker knows which is which."""
SIDE_BY_SIDE = 16
MAX_CANDIDATES = 12


def measure(data: Path) -> dict[str, float | None]:
    """BLEU (0 to 100), and slot errors by the house's checker; the second checker's are printed."""
    known = [*pairs_of(read(data / "devset.csv")), *pairs_of(train(data / "train.jsonl"))]
    tests = read(data / "testset_w_refs.csv")
    wanted = [values_of(mr) for mr in tests]
    schema = schema_of([values for values, _ in known] + wanted)
    names = list(dict.fromkeys(name_of(values) for values in wanted))
    written = asyncio.run(relayed(names))
    templates, sources = chosen(schema, names, [written, harvest(schema, known)])
    filler = load(bundle(schema, "en", templates))
    said = {}
    for mr, values in zip(tests, wanted, strict=True):
        result = filler.fill(name_of(values), values)
        said[mr] = result.text if isinstance(result, Filled) else ""
    answered = sum(map(bool, said.values()))
    print(f"  E2E: {len(templates)} of {len(names)} structures ({sources}), {answered} of {len(said)} inputs answered")
    got = score(said, tests)
    print(
        f"  BLEU {got.bleu:.2f}, slot errors {got.slot_errors:.2%}, by the second checker {got.slot_errors_apart:.2%}"
    )
    print(f"  {got.signature}")
    return {"e2e_bleu": round(got.bleu, 2), "e2e_slot_errors": round(got.slot_errors, 5)}


def train(file: Path) -> dict[str, list[str]]:
    """Human texts of each input of the training part."""
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts[row["mr"]] += row["refs"]
    return texts


def values_of(mr: str) -> Values:
    """The facts of an input by slot."""
    return {name.replace(" ", "_"): value for name, value in facts_of(mr).items()}


def pairs_of(texts: Mapping[str, Sequence[str]]) -> Iterable[Pair]:
    """Facts with their sentences."""
    return ((values_of(mr), ref) for mr, refs in texts.items() for ref in refs)


def schema_of(rows: Sequence[Values]) -> Schema:
    """Names are blanks, all else is closed."""
    closed: defaultdict[str, set[str]] = defaultdict(set)
    for values in rows:
        for slot, value in values.items():
            closed[slot].add(str(value))
    slots = [
        Slot(name=slot, kind="entity", values=tuple(each[at] for each in SAMPLES)) for at, slot in enumerate(NAMES)
    ]
    slots += [
        Slot(name=slot, kind="choice", values=tuple(sorted(closed[slot])), blank=False)
        for slot in SLOTS
        if slot not in NAMES
    ]
    return Schema(name="e2e", slots=tuple(slots), channel="page", allowed=LEVELS)


def name_of(values: Values) -> str:
    """The structure: names are blanks."""
    return structure.name({slot: None if slot in NAMES else str(value) for slot, value in values.items()})


async def relayed(names: Sequence[str]) -> dict[str, list[str]]:
    """What the house writer says of each structure, with the sample names taken out again."""
    engine = Embedded("writer", EmbeddedEngine(path=str(WRITER), slots=SIDE_BY_SIDE, threads=1))
    limit = asyncio.Semaphore(SIDE_BY_SIDE)
    schema = schema_of([structure_values(name, *SAMPLES[0]) for name in names])

    async def one(name: str, sample: tuple[str, str]) -> tuple[str, str] | None:
        values = structure_values(name, *sample)
        facts = ", ".join(f"{attribute}[{values[slot]}]" for slot, attribute in SLOTS.items() if slot in values)
        body = json.dumps({"model": "w", "temperature": 0, "messages": [{"role": "user", "content": facts}]}).encode()
        async with limit:
            reply, _ = await ask(engine, "w", facts, body)
        return delexicalised(schema, values, answered_text(reply))

    try:
        asked = [(name, sample) for name in names for sample in SAMPLES]
        told = await asyncio.gather(*(one(*each) for each in asked))
    finally:
        await engine.close()
    found: defaultdict[str, list[str]] = defaultdict(list)
    for (name, _), made in zip(asked, told, strict=True):
        if made and made[0] == name and made[1] not in found[name]:
            found[name].append(made[1])
    return found


def structure_values(name: str, venue: str, near: str) -> Values:
    """Values for a structure."""
    samples = {"name": venue, "near": near}
    return {slot: value if value is not None else samples[slot] for slot, value in structure.read(name).items()}


def chosen(
    schema: Schema, names: Sequence[str], sources: Sequence[Mapping[str, Sequence[str]]]
) -> tuple[dict[str, list[str]], str]:
    """For each structure the first candidate that passes every gate, from the first source that has one."""
    templates: dict[str, list[str]] = {}
    counts = [0] * (len(sources) + 1)

    def verify(values: Values, text: str) -> list[str]:
        found = errors({SLOTS[slot]: str(value) for slot, value in values.items()}, text)
        return [*found.missing, *found.wrong, *found.added]

    for name in names:
        own = [each.get(name, []) for each in sources]
        candidates = [*enumerate(own), (len(sources), composed(structure.read(name), sources[-1], {}))]
        for place, texts in candidates:
            verdicts = check(schema, "en", name, texts[:MAX_CANDIDATES], verify=verify)
            kept = [each.source for each in verdicts if each.kept]
            if kept:
                templates[name] = kept[:1]
                counts[place] += 1
                break
    return templates, f"{counts[0]} by the house writer, {counts[1]} harvested"
