"""A campaign of templates, from its catalogue to a signed bundle: catalogue, write, check, review, compile, publish."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stepwell.campaigns.file import Campaign
from stepwell.campaigns.run import Folders, Stage, Work
from stepwell.campaigns.sources import Allowed, Job, bytes_of, written
from stepwell.errors import TemplateError
from stepwell.quality.slots import ATTRIBUTES, errors
from stepwell.signing import signing_key
from stepwell.store.objects import opened
from stepwell.templates import rows, structure
from stepwell.templates.bandit import weights as weights_of
from stepwell.templates.check import Verify, check
from stepwell.templates.compile import bundle
from stepwell.templates.manifest import Manifest
from stepwell.templates.outcomes import read as read_outcomes
from stepwell.templates.prompt import Task
from stepwell.templates.publish import Terms, publish
from stepwell.templates.published import read
from stepwell.templates.review import Decision, Draft, Queue, sorted_out
from stepwell.templates.schema import Schema, Values

QUEUE = "review.jsonl"
"""A campaign's decisions, in its folder."""


class Refused(Struct, frozen=True):
    """A draft that the check did not let pass."""

    draft: Draft
    gate: str
    reason: str


class Waiting(TemplateError):  # noqa: N818 - an outcome, said as one
    """Texts wait for a person."""


def stages(job: Job) -> list[Stage]:
    """The stages that end in compiled bundles; publishing depends on the moment, so it is no stage."""
    campaign, file = job.campaign, job.campaign.file
    schema = msgspec.json.encode(campaign.schema)
    plan = file.campaign
    written_by = msgspec.json.encode((plan, file.teacher, file.writer))
    queue = Queue(job.root / QUEUE)
    return [
        Stage("catalogue", schema + bytes_of(campaign, plan.catalogue), catalogue(job)),
        Stage("write", schema + written_by + bytes_of(campaign, plan.examples), writing(job)),
        Stage("check", b"", checking(campaign)),
        Stage("review", b"", reviewing(queue, job.allowed)),
        Stage("compile", bytes_of(campaign, plan.outcomes), compiling(campaign)),
    ]


def catalogue(job: Job) -> Work:
    """Which structures there are: those of the catalogue's rows by traffic, and those that the file names."""

    def work(_: Folders, out: Path) -> None:
        campaign, plan = job.campaign, job.campaign.file.campaign
        counts: Counter[str] = Counter()
        if plan.catalogue:
            for values in rows.good(campaign.path(plan.catalogue), campaign.schema, skip_bad=job.allowed.skip_bad):
                counts[structure.name(said_by(campaign.schema, values))] += 1
        for name in plan.structures:
            listed_too = structure.parse(name, campaign.schema)
            if listed_too is None:
                raise TemplateError(f"structure {name!r}: a slot that the schema has not")
            counts.setdefault(structure.name(listed_too), 0)
        if not counts:
            raise TemplateError("nothing to write: name a catalogue or structures in [campaign]")
        tasks = [Task(locale, name) for name, _ in counts.most_common() for locale in campaign.schema.locales]
        put(out / "tasks.jsonl", tasks)

    return work


def said_by(schema: Schema, values: Mapping[str, Any]) -> structure.Structure:
    """The structure of a row: a choice that cannot be a blank is said in fixed text."""
    slots = {slot.partition(".")[0] for slot in values if slot != rows.READER}
    closed = {slot.name for slot in schema.slots if not slot.blank}
    return {slot: str(values[slot]) if slot in closed else None for slot in slots}


def writing(job: Job) -> Work:
    """Drafts from every source."""

    def work(before: Folders, out: Path) -> None:
        tasks = list(taken(before["catalogue"] / "tasks.jsonl", Task))
        found: defaultdict[Task, dict[str, str]] = defaultdict(dict)
        for source in job.campaign.file.campaign.sources:
            for task, sources in written(job, source, tasks).items():
                for each in sources:
                    found[task].setdefault(each, source)
        drafts = [Draft(task.locale, task.name, text, who) for task in found for text, who in found[task].items()]
        put(out / "drafts.jsonl", drafts)

    return work


def checking(campaign: Campaign) -> Work:
    """Keep what passes every gate; each rejection with its reason."""

    def work(before: Folders, out: Path) -> None:
        drafts: defaultdict[Task, list[Draft]] = defaultdict(list)
        for draft in taken(before["write"] / "drafts.jsonl", Draft):
            drafts[Task(draft.locale, draft.name)].append(draft)
        kept: list[Draft] = []
        refused: list[Refused] = []
        for task, own in drafts.items():
            sources = [draft.source for draft in own]
            verdicts = check(campaign.schema, task.locale, task.name, sources, verify=told_apart(campaign, task))
            good = [draft for draft, verdict in zip(own, verdicts, strict=True) if verdict.kept]
            kept += good[: campaign.file.campaign.num_variants]
            refused += [
                Refused(draft, each.gate, each.reason)
                for draft, each in zip(own, verdicts, strict=True)
                if not each.kept
            ]
        put(out / "drafts.jsonl", kept)
        put(out / "refused.jsonl", refused)

    return work


def told_apart(campaign: Campaign, task: Task) -> Verify | None:
    """The checker of the house writer's domain, for structures that it knows."""
    attributes = campaign.file.writer.attributes if campaign.file.writer else {}
    if not set(structure.read(task.name)) <= set(attributes) or not set(attributes.values()) <= set(ATTRIBUTES):
        return None

    def verify(values: Values, text: str) -> list[str]:
        facts = {attributes[slot]: str(value) for slot, value in values.items()}
        found = errors(facts, text)
        told = (("says nothing of", found.missing), ("says something else of", found.wrong), ("adds", found.added))
        return [f"{what} {', '.join(names)}" for what, names in told if names]

    return verify


def reviewing(queue: Queue, allowed: Allowed) -> Work:
    """What a person has approved. Raises Waiting while some are undecided."""

    def work(before: Folders, out: Path) -> None:
        drafts = list(taken(before["check"] / "drafts.jsonl", Draft))
        decisions = queue.decisions()
        if allowed.auto_approve:
            new = [Decision(draft.id, "approve", "--auto-approve") for draft in drafts if draft.id not in decisions]
            queue.decide(new)
            decisions = queue.decisions()
        approved, waiting = sorted_out(drafts, decisions)
        if waiting:
            raise Waiting(f"{len(waiting)} texts wait for approval: stepwell templates review {queue.file.parent}")
        put(out / "drafts.jsonl", approved)

    return work


def compiling(campaign: Campaign) -> Work:
    """One bundle a locale. Raises TemplateError where a locale has no text at all."""

    def work(before: Folders, out: Path) -> None:
        templates: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for draft in taken(before["review"] / "drafts.jsonl", Draft):
            templates[draft.locale][draft.name].append(draft.source)
        for locale in campaign.schema.locales:
            if not templates[locale]:
                raise TemplateError(f"not one text for {locale} was approved; look at the reasons of the stage check")
            weights = weighed(campaign, templates[locale])
            (out / f"{locale}.json").write_bytes(bundle(campaign.schema, locale, templates[locale], weights=weights))
        tasks = taken(before["catalogue"] / "tasks.jsonl", Task)
        missing = [task for task in tasks if task.name not in templates[task.locale]]
        put(out / "missing.jsonl", missing)

    return work


def weighed(campaign: Campaign, templates: Mapping[str, Sequence[str]]) -> dict[str, list[int]] | None:
    """How often each variant is to be shown, by the rules and what readers did; None where neither says anything."""
    plan = campaign.file.campaign
    if not plan.outcomes and not plan.rules.excluded:
        return None
    told = list(read_outcomes(campaign.path(plan.outcomes))) if plan.outcomes else []
    spoken = {each.template for each in told} | set(plan.rules.excluded)
    return weights_of(told, {name: len(templates[name]) for name in sorted(spoken) if name in templates}, plan.rules)


def published(campaign: Campaign, bundles: Path) -> Manifest:
    """Put the bundles live, unless they are. Raises TemplateError and StoreError."""
    section = campaign.file.publish
    key = signing_key(section.key_env)
    url = section.url
    objects = opened(url if "://" in url else str(campaign.path(url)))
    data = {file.stem: file.read_bytes() for file in sorted(bundles.glob("*.json"))}
    try:
        manifest, live = read(objects, {key.id: key.public})
    except TemplateError:
        live = None
    if live == data and manifest.state == "live":
        return manifest
    terms = Terms(expires_days=section.expires_days)
    return publish(objects, data, campaign=campaign.schema.name, key=key, terms=terms)


def put(file: Path, lines: Iterable[Struct]) -> None:
    """Write JSONL."""
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def taken(file: Path, kind: type[Any]) -> Iterator[Any]:
    """Read JSONL that a stage wrote."""
    for line in file.read_bytes().splitlines():
        yield msgspec.json.decode(line, type=kind)
