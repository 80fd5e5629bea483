"""Put the page beside what is published, ready for any web server.

python examples/city-guide/page.py --site runs/city-guide/site --out runs/city-guide/page
python -m http.server --directory runs/city-guide/page --bind 127.0.0.1 8093
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from base64 import b64encode
from pathlib import Path

from stepwell.errors import StepwellError
from stepwell.signing import signing_key

HERE = Path(__file__).parent
EDGE = HERE.parents[1] / "edge"


def main() -> int:
    """Copy the page, the runtime and the published files; write which key is trusted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path, required=True, metavar="DIR", help="where the campaign is published")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the page goes")
    given = parser.parse_args()
    try:
        public = (
            os.environ.get("STEPWELL_PUBLIC_KEY")
            or b64encode(signing_key("STEPWELL_SIGNING_KEY").public.public_bytes_raw()).decode()
        )
    except StepwellError as error:
        parser.error(str(error))
    made(given.site, given.out, public)
    print(f"{given.out}/index.html")
    return 0


def made(site: Path, out: Path, public: str) -> None:
    """The folder of the page."""
    (out / "edge").mkdir(parents=True, exist_ok=True)
    for name in ("fill.js", "load.js"):
        shutil.copy(EDGE / name, out / "edge" / name)
    shutil.copy(HERE / "index.html", out / "index.html")
    shutil.copytree(site, out / "site", dirs_exist_ok=True)
    config = {"base": "site", "keys": [public], "locale": "en"}
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
