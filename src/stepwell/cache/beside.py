"""Nearly the same question, asked at the same time: wait a moment for its answer instead of asking once more.

A question in flight stands among the neighbours like a kept one. Only where the promise would serve what comes of it is
it waited for, and never for long.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from msgspec import Struct

from stepwell.cache.coalesce import Flight, Flights
from stepwell.cache.features import Near, Vector, weigh
from stepwell.cache.guard import vetoes
from stepwell.cache.key import Identity
from stepwell.cache.metric import Metric
from stepwell.facts.facts import Facts, facts

MOST_LOOKED_AT = 256
"""Flights of a process that are compared, the oldest first."""


class About(Struct, frozen=True):
    """What a question in flight is to others."""

    vector: Vector
    text: str


def nearest(flights: Flights, identity: Identity, vector: Vector, least: float) -> Flight | None:
    """The question in flight that is nearest, of the same partition and nearer than `least`."""
    best, found = least, None
    for flight in islice(flights.flying.values(), MOST_LOOKED_AT):
        about = flight.about
        if not isinstance(about, About) or flight.partition != identity.partition or flight.exact == identity.exact:
            continue
        cosine = float(vector @ about.vector)
        if cosine > best:
            best, found = cosine, flight
    return found


def features(
    flight: Flight, vector: Vector, asked: Facts, kept: Near | None, metric: Metric | None, *, num_keys: int
) -> tuple[float, ...]:
    """What the promise weighs a flight's answer to come by; none where the guard objects, or others are nearer."""
    about: About = flight.about
    row = Near(
        cosines=np.array([vector @ about.vector], np.float32),
        vectors=about.vector[None],
        answers=[flight.exact],
        allowed=[True],
    )
    weighed = weigh(vector, row if kept is None else joined(row, kept), metric, num_keys)
    if weighed is None or weighed.row != 0 or vetoes(asked, facts(about.text)):
        return ()
    return weighed.features


def joined(row: Near, kept: Near) -> Near:
    """Both, the flight first: it alone may answer here, and the others count against it."""
    return Near(
        cosines=np.concatenate((row.cosines, kept.cosines)),
        vectors=np.concatenate((row.vectors, kept.vectors)),
        answers=[*row.answers, *kept.answers],
        allowed=[True, *([False] * len(kept.answers))],
    )
