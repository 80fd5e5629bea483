"""`[synth]` of a recipe: where rows come from, who completes them, what may stay."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from stepwell.errors import ConfigError
from stepwell.quality.verify import verifier
from stepwell.synth import samplers
from stepwell.synth.samplers import LEAF, Slot, Weighted
from stepwell.toml import Section, nearest, placed, typed

FACTS, JSON = "facts", "json"
"""What a prompt may name beside the slots: all of them as `name[…], food[…]`, or as a JSON object."""
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
blanks = re.compile(r"\{([^\W\d_][\w .-]*)\}").findall


class Table(Section, frozen=True):
    """Rows in files: .jsonl, .parquet, or folders of shards; which columns say what."""

    paths: Annotated[tuple[str, ...], Meta(min_length=1)]
    prompt: str = "prompt"
    completion: str = "completion"
    """Text, or a list of texts: one row each."""


class Seeds(Table, frozen=True, kw_only=True):
    """`[synth.seeds]`: what people wrote. A row without a completion is completed by the generator."""

    licence: Annotated[str, Meta(min_length=1)]
    rows: Count | None = None
    """Only so many, spread over the files; by default all."""


class Captured(Section, frozen=True):
    """`[synth.captured]`: rows that the gateway kept of tenants who allow it."""

    paths: Annotated[tuple[str, ...], Meta(min_length=1)]
    rows: Count | None = None


class Sampled(Section, frozen=True):
    """`[synth.sampled]`: prompts whose slots are drawn by the samplers."""

    rows: Count


class Recombined(Section, frozen=True):
    """`[synth.recombined]`: prompts with the slots of one real prompt and the values of others."""

    rows: Count


class Grown(Section, frozen=True):
    """`[synth.grown]`: prompts that the generator makes up by examples (self-instruct, Wang et al. 2023)."""

    rows: Count
    shots: Count = 6
    batch: Count = 8
    """New prompts asked for at once."""
    novelty: Annotated[float, Meta(gt=0, le=1)] = 0.7
    """ROUGE-L to every prompt before must be below this."""
    instructions: str = "You invent requests that users of a text service send. They are varied and real."


class Generator(Section, frozen=True):
    """`[synth.generator]`: who completes prompts: an OpenAI-compatible server, or a GGUF file in this process."""

    url: Annotated[str, Meta(pattern=r"^(https?://|$)")] = ""
    path: str = ""
    model: str = ""
    revision: str = ""
    """By default what the server says of itself, or the file's SHA-256."""
    price: str = ""
    """The row of prices.toml; empty: the model's name."""
    free: bool = False
    """The server is your own: a call costs nothing."""
    key_env: str = ""
    system: str = ""
    ask: str = "{prompt}"
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7
    max_tokens: Count = 256
    num: Count = 1
    """Completions of each prompt."""
    concurrency: Count = 8
    """Prompts completed at once."""
    context_tokens: Count = 1024
    """Of a GGUF file: for a prompt and its completion."""


class Filters(Section, frozen=True):
    """`[synth.filters]`, in the order in which they stand here, cheap ones first."""

    schema: bool = True
    """A made prompt has only slots that the recipe or a real row has."""
    refusals: bool = True
    """Completions that begin as models refuse go."""
    language: str = ""
    """A code such as "en", or a script such as "cyrillic"."""
    verify: str = ""
    """slots, slots_apart, values or module:function."""
    near: Share = 0.8
    """Jaccard similarity from which a row is a near duplicate; 0: none is looked for."""
    near_words: Count = 5
    leak_words: Annotated[int, Meta(ge=8, le=13)] = 13
    words: tuple[int, int] = (1, 2000)
    """Fewest and most words of a completion."""
    perplexity: tuple[Share, Share] | None = None
    """Quantiles of the real rows' perplexity between which a completion must lie: [0.0, 0.99]."""
    round_trip: str = ""
    """Who reads the slots out of a completion again: values, model or module:function."""
    judge: str = ""
    """As in [promise]: model, module:function, exact, agreement, joined by `+`."""
    meaning: Share = 0.0
    """Cosine of two rows' embeddings from which one is a duplicate; 0: none is looked for."""


class Quota(Section, frozen=True):
    """`[synth.quota]`: how many rows of each leaf, or of each value of another slot, may stay."""

    by: str = LEAF
    most: Count | None = None
    rows: dict[str, Annotated[int, Meta(ge=0)]] = msgspec.field(default_factory=dict)
    """For single values, in the place of `most`."""
    least: Annotated[int, Meta(ge=0)] = 0
    """Fewer are an error, told by leaf."""


class Synth(Section, frozen=True):
    """`[synth]`."""

    licence: str = ""
    """Of what is made here."""
    seed: int = 1
    prompt: str = "{facts}"
    """How drawn slots are written."""
    slots: dict[str, Slot] = msgspec.field(default_factory=dict)
    taxonomy: Weighted | None = None
    """Leaves with their weights, `"billing/refund" = 2`; a prompt and other slots name the one drawn as `leaf`."""
    seeds: Seeds | None = None
    captured: Captured | None = None
    sampled: Sampled | None = None
    recombined: Recombined | None = None
    grown: Grown | None = None
    generator: Generator | None = None
    held_out: tuple[Table, ...] = ()
    """Every evaluation set."""
    filters: Filters = Filters()
    quota: Quota | None = None
    real_floor: Share = 0.3
    """At least this share of what stays comes from people: synthetic rows above it go (Gerstgrasser et al. 2024)."""
    max_generation: Count = 1

    @property
    def drawn(self) -> dict[str, Slot]:
        """The slots with the taxonomy's leaf before them."""
        return samplers.with_taxonomy(self.slots, self.taxonomy)


class _File(Struct, frozen=True):
    """What is read here of a recipe; the other sections are others' business."""

    synth: Synth


class Recipe(Struct, frozen=True):
    """The section, and the folder that its paths start from."""

    synth: Synth
    folder: Path

    def path(self, name: str) -> Path:
        """A path of the recipe: from its own folder, or, where that is not there, from where one stands.

        It may name environment variables, `${STEPWELL_DATA}/e2e`. Raises ConfigError where one is not set.
        """
        filled = Path(os.path.expandvars(name))
        if unset := re.search(r"\$\{?(\w+)", str(filled)):
            raise ConfigError(f"the environment variable {unset[1]} is not set, and {name!r} needs it", field="synth")
        beside = self.folder / filled
        return beside if beside.exists() or not filled.exists() else filled


def load(file: Path) -> Recipe:
    """Read and check a recipe's `[synth]`. Raises ConfigError with file, line and field."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error}); name a recipe", file=str(file)) from error
    synth: Synth = typed(text, _File, file=str(file)).synth
    try:
        return checked(synth, file.parent)
    except ConfigError as error:
        raise placed(error, file) from error


def checked(synth: Synth, folder: Path) -> Recipe:
    """The recipe of a section that holds together. Raises ConfigError with its field."""
    samplers.check(synth.drawn)
    check_sources(synth)
    check_generator(synth)
    check_filters(synth)
    check_quota(synth)
    for name in blanks(synth.prompt) if synth.sampled else ():
        if name not in (known := {FACTS, JSON, *synth.drawn}):
            raise ConfigError(f"names {{{name}}}, which is no slot{nearest(name, known)}", field="synth.prompt")
    return Recipe(synth, folder)


def check_sources(synth: Synth) -> None:
    """There are rows to begin with, and what is made of them has a licence."""
    real, made = (synth.seeds, synth.captured), (synth.sampled, synth.recombined, synth.grown)
    if not any((*real, *made)):
        what = "no source: add [synth.seeds], [synth.captured], [synth.sampled], [synth.recombined] or [synth.grown]"
        raise ConfigError(what, field="synth")
    if synth.sampled and not synth.drawn:
        raise ConfigError("nothing to draw from: add [synth.slots.NAME] or [synth.taxonomy]", field="synth.sampled")
    for name, source in (("recombined", synth.recombined), ("grown", synth.grown)):
        if source and not any(real):
            raise ConfigError("needs real rows: add [synth.seeds] or [synth.captured]", field=f"synth.{name}")
    if any(made) and not any(real) and synth.real_floor:
        what = "rows of people are wanted and none are named: add [synth.seeds], or set real_floor = 0"
        raise ConfigError(what, field="synth.real_floor")
    if any(made) and not synth.licence:
        raise ConfigError("say under which licence the made rows stand", field="synth.licence")


def check_generator(synth: Synth) -> None:
    """The generator is one, and whoever needs one has it."""
    given = synth.generator
    if given is None:
        if synth.grown:
            raise ConfigError("needs [synth.generator]", field="synth.grown")
        return
    if bool(given.url) == bool(given.path):
        raise ConfigError("name either url or path", field="synth.generator")
    if given.url and not given.model:
        raise ConfigError("name the server's model", field="synth.generator.model")
    if "{prompt}" not in given.ask:
        raise ConfigError("must hold {prompt}", field="synth.generator.ask")


def check_filters(synth: Synth) -> None:
    """What the filters name is there."""
    given = synth.filters
    if given.verify:
        verifier(given.verify, field="synth.filters.verify")
    for name in ("words", "perplexity"):
        low, high = getattr(given, name) or (0, 1)
        if low >= high:
            raise ConfigError(f"{low} to {high} is no band", field=f"synth.filters.{name}")
    if given.round_trip not in {"", "values", "model"} and ":" not in given.round_trip:
        what = f"no {given.round_trip!r}: values, model or module:function"
        raise ConfigError(what, field="synth.filters.round_trip")
    if synth.generator is None:
        for name in ("round_trip", "judge"):
            if getattr(given, name) == "model":
                raise ConfigError("model needs [synth.generator]", field=f"synth.filters.{name}")


def check_quota(synth: Synth) -> None:
    """The quota can be met."""
    quota = synth.quota
    if quota is None:
        return
    field = "synth.quota"
    if quota.by not in synth.drawn and synth.drawn:
        raise ConfigError(f"{quota.by!r} is no slot{nearest(quota.by, synth.drawn)}", field=f"{field}.by")
    values = samplers.possible(synth.drawn[quota.by]) if quota.by in synth.drawn else None
    if values is not None:
        for name in quota.rows:
            if name not in values:
                raise ConfigError(f"{quota.by} is never {name!r}{nearest(name, values)}", field=f"{field}.rows.{name}")
    most = quota.most if quota.most is not None else quota.least
    if most < quota.least or any(num < quota.least for num in quota.rows.values()):
        raise ConfigError("least is more than the most that may stay", field=f"{field}.least")
    if values and synth.sampled and not (synth.seeds or synth.captured or synth.recombined or synth.grown):
        wanted = quota.least * len(values)
        if wanted > synth.sampled.rows:
            what = f"{len(values)} values with {quota.least} rows each are {wanted}, and {synth.sampled.rows} are drawn"
            raise ConfigError(what, field=f"{field}.least")
