"""The demonstration's campaign: the city guide's texts for a million readers, written once, filled for each."""

from __future__ import annotations

import os
import random
import shutil
from base64 import b64encode
from pathlib import Path
from time import perf_counter

import polars as pl
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table

import stepwell
from stepwell.campaigns import file
from stepwell.campaigns.run import run
from stepwell.campaigns.sources import Allowed, Job
from stepwell.campaigns.templates import published, stages
from stepwell.demo.city import AREAS, EAT_TYPES, FOODS, names
from stepwell.demo.figures import money
from stepwell.engines.answers import Spent
from stepwell.signing import new_key
from stepwell.store.objects import opened
from stepwell.templates import audience
from stepwell.templates.manifest import NAME

EXAMPLE = Path(stepwell.__file__).parents[2] / "examples" / "city-guide"
NUM_READERS = 1_000_000
FIRST_NAMES = ("Mia", "Noah", "Zoë", "Elif", "Tom", "Ines", "Ravi", "Ana", "Luca", "Yuki")
KEY = "STEPWELL_DEMO_KEY"


class Campaign(Struct, frozen=True):
    """What a run came to."""

    num_calls: int
    num_texts: int
    write_s: float
    fill_s: float
    num_readers: int
    num_filled: int
    wire_bytes: int
    """What one reader's device loads: the bundle in brotli, and the manifest."""
    texts_bytes: int
    """All filled texts."""
    samples: tuple[str, ...]


def played(folder: Path, model: Path, num_readers: int = NUM_READERS) -> Campaign | None:
    """Run the example's campaign in a folder, and fill its texts; None without the example. Raises StepwellError."""
    if not (EXAMPLE / "campaign.toml").is_file():
        return None
    campaign = file.load(copied(folder / "campaign", model))
    calls = [Spent()]
    job = Job(
        campaign, folder / "campaign" / "root", Allowed(auto_approve=True, progress=lambda *told: calls.append(told[2]))
    )
    began_s = perf_counter()
    done = run(stages(job), job.root)
    os.environ[KEY] = b64encode(new_key().private.private_bytes_raw()).decode()
    manifest = published(campaign, done["compile"])
    write_s = perf_counter() - began_s
    users, out = folder / "readers.parquet", folder / "messages.parquet"
    readers(num_readers).write_parquet(users)
    began_s = perf_counter()
    counts = audience.run(users, out, audience.Wanted((done["compile"] / "en.json").read_bytes()))
    fill_s = perf_counter() - began_s
    texts = pl.scan_parquet(out).select("text")
    site = opened(campaign.file.publish.url)
    wire = [site.get(key) for key in (f"{manifest.bundles['en'].path}.br", NAME)]
    return Campaign(
        num_calls=max(spent.calls for spent in calls),
        num_texts=(done["review"] / "drafts.jsonl").read_bytes().count(b"\n"),
        write_s=write_s,
        fill_s=fill_s,
        num_readers=counts.rows,
        num_filled=counts.filled,
        wire_bytes=sum(len(held.data) for held in wire if held),
        texts_bytes=int(texts.select(pl.col("text").str.len_bytes().sum()).collect().item()),
        samples=tuple(texts.head(60).collect()["text"].drop_nulls().unique(maintain_order=True).head(4)),
    )


def copied(folder: Path, model: Path) -> Path:
    """The example in a folder of its own, with this run's model and place."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLE, folder)
    path = folder / "campaign.toml"
    text = path.read_text(encoding="utf-8").replace("../../models/house-writer/house-writer.gguf", str(model))
    text = text.replace('"../../runs/city-guide/site"', f'"{folder / "site"}"\nkey_env = "{KEY}"')
    path.write_text(text, encoding="utf-8")
    return path


def readers(num: int, seed: int = 1) -> pl.DataFrame:
    """So many invented readers, a third of them for each of three messages."""
    chance = random.Random(seed)  # noqa: S311 - an audience, not a secret
    numbers = pl.int_range(num, eager=True)
    kind = numbers % 3

    def some(values: list[str] | tuple[str, ...], only: pl.Series) -> pl.Series:
        places = pl.Series([chance.randrange(len(values)) for _ in range(997)]).gather(numbers % 997)
        return pl.select(pl.when(only).then(pl.Series(list(values)).gather(places))).to_series()

    def counted(step: int, top: int, only: pl.Series) -> pl.Series:
        return pl.select(pl.when(only).then(numbers * step % top + 1)).to_series()

    foods = tuple(food for food in FOODS if food != "Fast food")
    columns = {
        "first_name": some(FIRST_NAMES, kind < 2),  # noqa: PLR2004 - of three kinds
        "name": some(tuple(names()), kind > 0),
        "food": some(foods, kind > 0),
        "eat_type": some(EAT_TYPES, kind > 1),
        "area": some(AREAS, kind > 1),
        "points": counted(7919, 5000, kind == 0),
        "minutes": counted(31, 40, kind == 1),
    }
    return pl.DataFrame({"reader": "reader-" + numbers.cast(pl.String)} | columns)


def show(told: Campaign, usd_a_text: float, priced_as: str, console: Console) -> None:
    """The table: the campaign beside one generation a reader."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("a campaign", "this one", "a call a reader"):
        drawn.add_column(name, justify="left" if name == "a campaign" else "right", no_wrap=True)
    rate = told.num_filled / told.fill_s
    large_usd = usd_a_text * told.num_filled
    rows = (
        ("readers", f"{told.num_readers:,}", f"{told.num_readers:,}"),
        ("model calls", f"{told.num_calls:,} (house writer)", f"{told.num_filled:,}"),
        ("texts written, checked, live", f"{told.num_texts:,}", "unchecked"),
        ("seconds: write, check, publish", f"{told.write_s:.1f}", "-"),
        ("seconds: fill all", f"{told.fill_s:.1f} ({rate / 1e6:.1f} M a second)", "-"),
        ("bytes to a device", f"{told.wire_bytes:,} once", f"{told.texts_bytes / told.num_filled:,.0f} a text"),
        ("cost", money(usd_a_text * told.num_calls, large_usd / 1000), money(large_usd, large_usd)),
    )
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)
    for text in told.samples:
        console.print(f"  {text}", markup=False, highlight=False)
    console.print(f"[dim]A call at {usd_a_text * 1000:.4f} USD a thousand: {priced_as}[/]", highlight=False)
