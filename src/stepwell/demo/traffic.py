"""Who asks what, and when: common questions are common by Zipf's law, and every tenant has its own readers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from random import Random

import msgspec
from msgspec import Struct

TENANTS = {"guide-web": 0.60, "guide-app": 0.32, "concierge": 0.08}
"""The parts of the city guide that hold an API key, and their share of the traffic."""
VENUE_EXPONENT = 1.05
"""How much better known a venue is than the next: rank to the power of minus this."""
READER_EXPONENT = 0.7
NUM_READERS = 2000
SHARE_STREAMED = 0.25
MODEL = "city-guide"
MAX_TOKENS = 96

encode = msgspec.json.Encoder().encode


class Ask(Struct, frozen=True):
    """One request to come: facts in E2E's writing, or a question; who wants the text, and how."""

    mr: str
    tenant: str
    reader: str
    stream: bool

    def body(self) -> bytes:
        """The chat request as JSON."""
        return encode(
            {
                "model": MODEL,
                "messages": [{"role": "user", "content": self.mr}],
                "temperature": 0,
                "max_tokens": MAX_TOKENS,
                "user": self.reader,
                "stream": self.stream,
            }
        )


def asks(questions: Sequence[str], num: int, seed: int, *, each_once: bool = False) -> list[Ask]:
    """Draw so many requests by Zipf's law over the questions, best known first; `each_once` leaves none unasked."""
    chance = Random(seed)  # noqa: S311 - traffic, not a secret
    wanted = list(questions)[:num] if each_once else []
    wanted += chance.choices(questions, cum_weights=zipf(len(questions), VENUE_EXPONENT), k=num - len(wanted))
    chance.shuffle(wanted)
    tenants = chance.choices(list(TENANTS), list(TENANTS.values()), k=num)
    readers = chance.choices(range(NUM_READERS), cum_weights=zipf(NUM_READERS, READER_EXPONENT), k=num)
    return [
        Ask(mr, tenant, f"reader-{reader}", chance.random() < SHARE_STREAMED)
        for mr, tenant, reader in zip(wanted, tenants, readers, strict=True)
    ]


def zipf(num: int, exponent: float) -> list[float]:
    """Cumulated weights of the ranks 1 to `num` (Zipf 1949)."""
    return list(accumulate(rank**-exponent for rank in range(1, num + 1)))


def num_distinct(asked: Sequence[Ask]) -> int:
    """How many different questions there are, each tenant's counted apart: what an exact cache cannot spare."""
    return len({(ask.tenant, ask.mr) for ask in asked})
