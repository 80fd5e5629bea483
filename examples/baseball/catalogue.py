"""Make the catalogues of the sports campaign from the Lahman baseball database: team seasons and player milestones.

    python examples/baseball/catalogue.py --out runs/baseball

reads `$STEPWELL_DATA/baseball` (CC BY-SA 3.0, https://www.seanlahman.com) and writes `season.csv` and `player.csv`.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

FIRST_YEAR = 1903
"""The first season that ended with a World Series."""
MIN_STARS, MIN_HOMERS = 2, 2
"""Fewer all-star games or post-season home runs are no milestone."""
Row = dict[str, str]


def main() -> int:
    """Write both catalogues; 2 where the data is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the catalogues go")
    out = parser.parse_args().out
    source = Path(os.environ.get("STEPWELL_DATA", "")) / "baseball"
    if not os.environ.get("STEPWELL_DATA") or not (source / "Teams.csv").is_file():
        print("STEPWELL_DATA must name a folder with baseball/Teams.csv in it (the Lahman database)", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("season", seasons(source)), ("player", players(source))):
        print(f"{out / name}.csv: {write(out / f'{name}.csv', list(rows)):,} rows")
    return 0


def seasons(source: Path) -> Iterator[Row]:
    """One row for each team's season: what it won and lost, where it stood, and how the year ended."""
    for row in read(source / "Teams.csv"):
        if int(row["yearID"]) < FIRST_YEAR:
            continue
        yield {
            "team": row["name"],
            "season": row["yearID"],
            "wins": row["W"],
            "losses": row["L"],
            "place": row["Rank"],
            "homers": row["HR"],
            "ending": ending(row),
        }


def ending(row: Row) -> str:
    """How a team's year ended."""
    if row["WSWin"] == "Y":
        return "champion"
    return "pennant" if row["LgWin"] == "Y" else "none"


def players(source: Path) -> Iterator[Row]:
    """One row for each player with a milestone: all-star games, or home runs after the season."""
    stars = Counter(row["playerID"] for row in read(source / "AllstarFull.csv"))
    homers: defaultdict[str, int] = defaultdict(int)
    for row in read(source / "BattingPost.csv"):
        homers[row["playerID"]] += int(row["HR"] or 0)
    fame = {row["playerID"] for row in read(source / "HallOfFame.csv") if row["inducted"] == "Y"}
    for row in read(source / "People.csv"):
        who = row["playerID"]
        if stars[who] < MIN_STARS or homers[who] < MIN_HOMERS or not row["debut"]:
            continue
        yield {
            "player": f"{row['nameFirst']} {row['nameLast']}",
            "stars": str(stars[who]),
            "homers": str(homers[who]),
            "debut": row["debut"],
            "fame": "yes" if who in fame else "no",
        }


def read(file: Path) -> Iterator[Row]:
    """The rows of a table."""
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def write(file: Path, rows: list[Row]) -> int:
    """Write a table; how many rows it has."""
    with file.open("w", encoding="utf-8", newline="") as lines:
        table = csv.DictWriter(lines, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return len(rows)


if __name__ == "__main__":
    raise SystemExit(main())
