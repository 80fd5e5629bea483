"""A campaign as a person writes it: `campaign.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from stepwell.config import HttpEngine
from stepwell.errors import ConfigError
from stepwell.templates.bandit import Rules
from stepwell.templates.schema import Schema
from stepwell.templates.schema_file import parse
from stepwell.toml import Section, typed

Source = Literal["teacher", "writer", "harvest"]


class Plan(Section, frozen=True):
    """`[campaign]`: who writes, what about, in which tone."""

    sources: Annotated[tuple[Source, ...], Meta(min_length=1)]
    tone: str = "friendly and plain"
    examples: str = ""
    """JSONL of `{"values": {…}, "text": "…"}`: harvested, and shown to the teacher."""
    catalogue: str = ""
    """CSV, JSONL or Parquet: its rows say which structures are written."""
    outcomes: str = ""
    """JSONL or CSV of what readers did with the variants: what works better is shown more (`templates/bandit.py`)."""
    rules: Rules = Rules()
    """`[campaign.rules]`: which variants may be chosen at all, and how outcomes count."""
    structures: tuple[str, ...] = ()
    """Further structures, such as "area+food+name"."""
    num_variants: Annotated[int, Meta(ge=1, le=96)] = 12
    """At most so many variants of a structure are published."""


class TeacherSection(Section, frozen=True):
    """`[teacher]`: an OpenAI-compatible server that writes."""

    url: Annotated[str, Meta(pattern=r"^https?://")]
    model: str
    price: str = ""
    """The row of prices.toml; empty: the model's name."""
    key_env: str = ""
    batches: bool = False
    """Ask over the server's /v1/batches where it has them."""

    @property
    def engine(self) -> HttpEngine:
        """The engine that this describes; every try is a call of its own in the account, so it tries nothing again."""
        return HttpEngine(url=self.url, model=self.model, key_env=self.key_env, retries=0)


class WriterSection(Section, frozen=True):
    """`[writer]`: a small model in this process."""

    path: str
    attributes: dict[str, str]
    """How the model calls the slots, in its own order."""


class PublishSection(Section, frozen=True):
    """`[publish]`: where bundles go."""

    url: str
    expires_days: Annotated[float, Meta(gt=0)] = 30.0
    key_env: str = "STEPWELL_SIGNING_KEY"


class File(Section, frozen=True):
    """The file."""

    campaign: Plan
    publish: PublishSection
    schema: dict[str, Any]
    teacher: TeacherSection | None = None
    writer: WriterSection | None = None


class Campaign(msgspec.Struct, frozen=True):
    """The file with its schema, and the folder that its paths start from."""

    file: File
    schema: Schema
    folder: Path

    def path(self, name: str) -> Path:
        """A path of the file."""
        return self.folder / name


def load(path: Path) -> Campaign:
    """Read and check a campaign. Raises ConfigError and TemplateError with file and field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error}); name a campaign.toml", file=str(path)) from error
    file: File = typed(text, File, file=str(path))
    for source, section in (("teacher", file.teacher), ("writer", file.writer), ("harvest", file.campaign.examples)):
        if source in file.campaign.sources and not section:
            wanted = "examples" if source == "harvest" else f"[{source}]"
            raise ConfigError(f"the source {source!r} needs {wanted}", file=str(path), field="campaign.sources")
    return Campaign(file, parse(file.schema, str(path)), path.parent)
