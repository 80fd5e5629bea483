"""Model calls of the city guide's campaign: as many for a hundred million readers as for a thousand."""

from __future__ import annotations

import os
import random
import tempfile
from base64 import b64encode
from collections import Counter
from pathlib import Path

from bench.templates.teacher import Teacher, teaching
from stepwell.campaigns import file
from stepwell.campaigns.run import run
from stepwell.campaigns.sources import Allowed, Job
from stepwell.campaigns.templates import published, stages

CAMPAIGN = Path(__file__).parents[2] / "examples" / "city-guide" / "campaign.toml"
SHARES = {
    "area+eat_type+food+name": 0.3,
    "first_name+food+minutes+name": 0.25,
    "first_name+points": 0.2,
    "first_name+name+rank": 0.1,
    "area+food+name+price": 0.08,
    "eat_type+name+rating": 0.05,
    "area+eat_type+name": 0.02,
}
"""What readers are told of, by share of readers."""
KEY = "STEPWELL_BENCH_KEY"


def measure() -> dict[str, int]:
    """Calls that a counting teacher got, from an empty folder to a published bundle."""
    os.environ[KEY] = b64encode(random.Random(1).randbytes(32)).decode()
    calls = {}
    for name, num in (("model_calls_1k", 1_000), ("model_calls_100m", 100_000_000)):
        wanted = readers(num)
        with teaching(flawed=True) as teacher, tempfile.TemporaryDirectory() as folder:
            live = campaign(Path(folder), list(wanted), teacher)
        calls[name] = teacher.calls
        print(
            f"  {sum(wanted.values()):>11,} readers, {len(wanted)} structures, {live} texts live: {teacher.calls} calls"
        )
    return calls


def readers(num: int) -> Counter[str]:
    """How many readers want each structure: drawn where they are few, expected where nobody would wait for it."""
    if num > 1_000_000:
        return Counter({name: round(share * num) for name, share in SHARES.items()})
    return Counter(random.Random(1).choices(list(SHARES), list(SHARES.values()), k=num))


def campaign(folder: Path, structures: list[str], teacher: Teacher) -> int:
    """Run the example's schema with the teacher as its only source; how many texts are live."""
    schema = CAMPAIGN.read_text().partition("[schema]")[2]
    listed = ", ".join(f'"{name}"' for name in structures)
    (folder / "campaign.toml").write_text(
        f'[campaign]\nsources = ["teacher"]\nstructures = [{listed}]\n'
        f'[teacher]\nurl = "{teacher.url}"\nmodel = "gpt-4o-mini"\n'
        f'[publish]\nurl = "site"\nkey_env = "{KEY}"\n[schema]{schema}'
    )
    loaded = file.load(folder / "campaign.toml")
    job = Job(loaded, folder / "root", Allowed(auto_approve=True))
    done = run(stages(job), folder / "root")
    published(loaded, done["compile"])
    return (done["review"] / "drafts.jsonl").read_bytes().count(b"\n")
