"""Which class a value falls into: how a selector decides (docs/bundle.md, `t`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepwell.templates.escape import clean
from stepwell.templates.numerals import Rules, category, remembered, rounded, whole

Classify = Callable[[object], int | None]
"""A value's class; None: missing or unfit."""


def classifier(selector: Sequence[Any], plural: Mapping[str, Rules]) -> Classify:
    """How a selector of a bundle sorts values. Raises ValueError for a mode that there is not."""
    mode, _, keys, *extra = selector
    if mode == "x":
        return _by_string({str(key): place for place, key in reversed(list(enumerate(keys)))}, len(keys))
    if mode not in {"c", "o", "e"}:
        raise ValueError(f"selector of mode {mode!r}")
    exact: dict[float, int] = {}
    categories: dict[str, int] = {}
    for place, key in enumerate(keys):
        if key[:1] == "-" or key[:1].isdigit():
            exact.setdefault(float(key), place)
        elif mode != "e":
            categories[key] = place
    low, high, scale = extra[0] if extra else (0, 3, 1)
    rules = plural.get(mode, []) if categories else []

    def counted(value: float) -> int:
        found = exact.get(value)
        if found is not None or not categories:
            return len(keys) if found is None else found
        scaled = value if scale == 1 else float(value) * scale
        return categories.get(category(*rounded(scaled, low, high), rules), len(keys))

    return remembered(counted)


def _by_string(places: dict[str, int], others: int) -> Classify:
    # A key that cleaning would change can never be met.
    places = {key: place for key, place in places.items() if clean(key) == key and key}

    def classify(value: object) -> int | None:
        if value.__class__ is str:
            found = places.get(value)  # a str
            if found is not None:
                return found
            text = clean(value)
        else:
            text = value if isinstance(value, str) else whole(value) or ""
        return places.get(text, others) if text else None

    return classify
