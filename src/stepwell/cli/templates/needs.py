"""What the commands on templates need beside the core."""

from __future__ import annotations

import importlib.util

from stepwell.errors import ConfigError

KEY_ENV = "STEPWELL_SIGNING_KEY"
"""The environment variable that holds the signing key."""
MODULES = ("babel", "brotli", "cryptography", "moz.l10n", "obstore", "polars", "rich", "zstandard")


def check_extra() -> None:
    """Raise ConfigError where the extra `templates` is not installed."""
    lacking = [name for name in MODULES if importlib.util.find_spec(name.partition(".")[0]) is None]
    if lacking:
        raise ConfigError(f"needs {', '.join(lacking)}: pip install 'stepwell[templates]'")
