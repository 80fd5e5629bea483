"""ViGGO: which dialogue acts of the test set templates from train and dev can say; the rest is refused.

An act is a structure with its slots; what a person said in other words (ratings, yes and no) stays in the fixed text,
for acts with that very value. Where nobody has said an act, a text for part of its slots and sentences for the others
are put together. Every text is checked: each blank's value, and each yes and no by its words.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stepwell.templates import structure
from stepwell.templates.articles import articled
from stepwell.templates.check import check
from stepwell.templates.compile import bundle
from stepwell.templates.compose import composed
from stepwell.templates.fill import Filled, load
from stepwell.templates.harvest import Pair, delexicalised
from stepwell.templates.schema import Schema, Slot, Values

BLANKS = (
    "name",
    "developer",
    "release_year",
    "exp_release_date",
    "genres",
    "platforms",
    "player_perspective",
    "esrb",
    "specifier",
)
LISTS = ("genres", "platforms", "player_perspective")
YES_NO = {
    "has_multiplayer": r"multi-?\s?player|single-?\s?player|\bsolo\b|co-op|by yourself"
    r"|(?:play|friends?) (?:with|together|online)",
    "available_on_steam": r"\bSteam\b",
    "has_linux_release": r"\bLinux\b",
    "has_mac_release": r"\bMacs?\b",
}
"""Words by which a yes or no is told; no text may have them whose act has not the slot."""
NO = (
    r"\b(?:no|not|non|nor|neither|never|without|lacks?|isn't|doesn't|don't|can't|cannot|won't|only|unavailable|haven't"
    r"|hasn't|nothing|unfortunately|sadly)\b|n't\b|\bnon|single-?\s?player|\bsolo\b|by yourself"
)
JUDGED = (
    r"\b(?:rat(?:ed|ing)|good|great|excellent|amazing|poor|bad|average|decent|fun|best|love|hate|dislike|boring|awful"
    r"|favou?rite|okay|mediocre|enjoy\w*|fantastic|terrible|solid)\b"
)
JOINTS = r"(?:,? and |,? or |, | |/|, as well as )(?:the |an? )?"
SYSTEMS = ("Steam", "Linux", "Mac", "Macs", "SteamOS", "Multiplayer", "ESRB")
"""Names that a yes or no is about, and the one that ratings by age go by."""
MAX_CANDIDATES = 24


def measure(data: Path) -> dict[str, float]:
    """Share of the test set's distinct acts that are answered."""
    known = [(values_of(row["mr"]), row["ref"]) for part in ("train", "valid") for row in rows(data / f"{part}.csv")]
    wanted = list({row["mr"]: values_of(row["mr"]) for row in rows(data / "test.csv")}.values())
    made, refused = answers(known, wanted)
    wrong = sum(bool(told_wrong(values, text)) for values, text in made)
    share = len(made) / len(wanted)
    told = f"{len(made)} of {len(wanted)} acts answered ({share:.1%}), {len(refused)} refused"
    print(f"  ViGGO: {told}; {wrong} with a slot error by the checker that let them pass")
    return {"viggo_coverage": round(share, 4)}


def rows(file: Path) -> Iterator[dict[str, str]]:
    """The rows of a part."""
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def values_of(mr: str) -> Values:
    """An act's slots, and the act itself as one of them."""
    act, _, listed = mr.partition("(")
    return {"act": act} | {slot: spoken(slot, value) for slot, value in re.findall(r"([a-z_]+)\[([^\]]*)\]", listed)}


def spoken(slot: str, value: str) -> str:
    """A value as it is said: ages without their explanation, lists with an `and`."""
    if slot == "esrb":
        return value.partition(" (")[0]
    items = value.split(", ")
    if slot in LISTS and len(items) > 1:
        return f"{', '.join(items[:-1])} and {items[-1]}"
    return value


def normal(values: Values, text: str) -> str:
    """A person's sentence with every list in the order and with the joints that values have."""
    text = re.sub(r" \((?:for|rated) [^)]*\)", "", text)
    for slot in BLANKS:
        value = str(values.get(slot, ""))
        items = [re.escape(item).replace(r"\ ", "[ -]") for item in re.split(", | and ", value) if item]
        if items:
            one = f"(?:{'|'.join(sorted(items, key=len, reverse=True))})"
            run = rf"(?<![\w'-]){one}(?:{JOINTS}{one}){{{len(items) - 1}}}(?!\w)"
            how = re.IGNORECASE if slot in LISTS else re.NOFLAG
            text = re.sub(run, value.replace("\\", r"\\"), text, flags=how)
    return text


def schema_of(known: Sequence[Pair], wanted: Sequence[Values]) -> Schema:
    """Slots and the values that are closed."""
    closed: defaultdict[str, set[str]] = defaultdict(set)
    for values in [*(values for values, _ in known), *wanted]:
        for slot, value in values.items():
            closed[slot].add(str(value))
    slots = [
        Slot(name=slot, kind="choice", values=tuple(sorted(closed[slot] | {""})), blank=slot in BLANKS)
        for slot in closed
    ]
    return Schema(name="viggo", slots=tuple(slots), channel="page")


def answers(known: Sequence[Pair], wanted: Sequence[Values]) -> tuple[list[tuple[Values, str]], list[Values]]:
    """A checked text for each act that has one, and the acts that have none."""
    schema = schema_of(known, wanted)
    bases, extras = harvested(schema, known)
    made, refused = [], []
    for values in wanted:
        text = best(schema, values, bases, extras)
        if text:
            made.append((values, text))
        else:
            refused.append(values)
    return made, refused


Known = dict[str, list[str]]


def harvested(schema: Schema, known: Sequence[Pair]) -> tuple[Known, Known]:
    """Templates by structure; and single sentences that say facts of a game that has been named before."""
    bases: defaultdict[str, list[str]] = defaultdict(list)
    extras: defaultdict[str, list[str]] = defaultdict(list)
    for values, text in known:
        if not told_wrong(values, normal(values, text)):
            made = delexicalised(schema, values, normal(values, text))
            if made and made[1] not in bases[made[0]]:
                bases[made[0]].append(made[1])
        for sentence in re.split(r"(?<=[.!]) +", text) if values["act"] == "inform" else ():
            part = said_in(values, normal(values, sentence))
            if (
                part
                and re.match(r"(?:It|It's|The game|You can|There)\b", sentence)
                and not re.search(JUDGED, sentence, re.IGNORECASE)
            ):
                found = delexicalised(schema, part, normal(values, sentence))
                if found and found[1] not in extras[found[0]]:
                    extras[found[0]].append(found[1])
    return bases, {name: sorted(sources, key=len)[:3] for name, sources in extras.items()}


def said_in(values: Values, sentence: str) -> Values:
    """Which of an act's facts one sentence says; nothing where it says something that cannot be told."""
    part = {slot: value for slot, value in values.items() if slot != "act" and mentions(slot, str(value), sentence)}
    return part if "name" not in part and not told_wrong(part, sentence) else {}


def mentions(slot: str, value: str, sentence: str) -> bool:
    """Whether a sentence has a blank's value, or the words of a yes or no."""
    words = YES_NO.get(slot) or rf"(?<![\w-]){re.escape(value)}(?!\w)"
    return slot in (*BLANKS, *YES_NO) and bool(re.search(words, sentence))


def best(
    schema: Schema, values: Values, bases: Mapping[str, Sequence[str]], extras: Mapping[str, Sequence[str]]
) -> str:
    """The text of the first template that passes the check and says just this act; nothing where there is none."""
    wanted: structure.Structure = {slot: str(value) for slot, value in values.items()}
    acts = {name: sources for name, sources in bases.items() if f"act={values['act']}" in name}
    for source in composed(wanted, acts, extras if "name" in values else {})[:MAX_CANDIDATES]:
        blanks = set(re.findall(r"\{\$(\w+)\}", source))
        name = structure.name({slot: None if slot in blanks else str(value) for slot, value in values.items()})
        small = Schema(
            name="viggo", slots=tuple(narrowed(slot, values) for slot in schema.slots), channel="page", allowed=SYSTEMS
        )
        told = articled(small, source)
        if all(verdict.kept for verdict in check(small, "en", name, [told])):
            result = load(bundle(small, "en", {name: [told]})).fill(name, values)
            if isinstance(result, Filled) and not told_wrong(values, result.text):
                return result.text
    return ""


def narrowed(slot: Slot, values: Values) -> Slot:
    """A slot with the one value that an act has."""
    value = str(values.get(slot.name, ""))
    return Slot(name=slot.name, kind="choice", values=(value,), blank=slot.blank, max_chars=slot.max_chars)


def told_wrong(values: Values, text: str) -> list[str]:
    """What a text gets wrong of an act: a value that is not said or of another game, a yes or no likewise."""
    wrong = [slot for slot in BLANKS if slot in values and not said(slot, str(values[slot]), text)]
    nameless = text
    for slot in ("name", "developer"):
        nameless = nameless.replace(str(values.get(slot) or "\0"), "it")
    wrong += [slot for slot in LISTS if strangers(slot, str(values.get(slot, "")), nameless)]
    for slot, words in YES_NO.items():
        parts = re.split(r"(?<=[.!?;]) |, (?:and|but) | but |(?<=[a-z]), ", text)
        clauses = [part for part in parts if re.search(words, part, re.IGNORECASE)]
        denied = any(re.search(NO, clause, re.IGNORECASE) for clause in clauses)
        turned = values.get("act") == "inform" and denied != (values.get(slot) == "no")
        if bool(clauses) != (slot in values) or (clauses and turned):
            wrong.append(slot)
    return wrong


VOCABULARY = {
    "genres": (
        *(
            "action-adventure",
            "real-time strategy",
            "turn-based strategy",
            "driving/racing",
            "role-playing",
            "hack-and-slash",
        ),
        *(
            "point-and-click",
            "text adventure",
            "trivia/board game",
            "vehicular combat",
            "adventure",
            "platformer",
            "puzzle",
        ),
        *("shooter", "simulation", "strategy", "fighting", "indie", "MMORPG", "arcade", "pinball", "tactical"),
    ),
    "platforms": ("PlayStation", "Xbox", "Nintendo Switch", "Nintendo", "PC"),
    "player_perspective": ("first person", "third person", "side view", "bird view"),
}
"""The ontology's words that mean nothing else; "action", "sport" and "music" do."""


def strangers(slot: str, value: str, text: str) -> list[str]:
    """Words of a list slot that a text has and the act has not."""
    words = "|".join(re.escape(word).replace(r"\ ", "[ -]") for word in VOCABULARY[slot])
    own = value.lower().replace("-", " ")
    told = re.findall(rf"(?<![\w'-])(?:{words})(?!\w)", text, re.IGNORECASE)
    return [word for word in told if word.lower().replace("-", " ") not in own]


def said(slot: str, value: str, text: str) -> bool:
    """Whether a value is said word for word; what is not is in fixed text that a person wrote for it."""
    return slot not in {"name", "developer", "release_year"} or value.lower() in text.lower()
