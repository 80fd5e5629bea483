"""The learned metric of each partition that has enough keys, learned anew as they grow, beside the path of requests."""

from __future__ import annotations

import asyncio

import numpy as np

from stepwell.cache.metric import MOST_KEYS, Metric, due, learn
from stepwell.index.index import Index
from stepwell.index.vectors import Codes, unpacked


class Spaces:
    """Metrics by partition; keys of one partition never shape another's."""

    def __init__(self) -> None:
        self.metrics: dict[bytes, Metric] = {}
        self.tried: dict[bytes, int] = {}
        """Keys at the last try, where nothing could be learned yet."""

    def get(self, partition: bytes) -> Metric | None:
        """The metric of a partition; None where there is none yet."""
        return self.metrics.get(partition)

    async def refresh(self, index: Index) -> int:
        """Learn wherever enough has come since the last time; say how many metrics are new."""
        num_new = 0
        for partition in index.changed():
            num_keys = index.num_keys(partition)
            if not num_keys:
                self.metrics.pop(partition, None)
                self.tried.pop(partition, None)
            elif due(num_keys, self.get(partition)) and num_keys >= 1.1 * self.tried.get(partition, 0):
                self.tried[partition] = num_keys
                num_new += await self.learn(index, partition)
        return num_new

    async def learn(self, index: Index, partition: bytes) -> bool:
        """Learn the metric of a partition, in a thread; say whether there is a new one."""
        known = self.get(partition)
        version = known.version + 1 if known else 1
        metric = await asyncio.to_thread(learned, *index.newest(partition, MOST_KEYS), version)
        if metric is None:
            return False
        self.metrics[partition] = metric
        return True


def learned(codes: Codes, answers: list[bytes], version: int) -> Metric | None:
    """A metric of keys as the index has them."""
    _, numbers = np.unique(np.array(answers), return_inverse=True)
    return learn(unpacked(codes), numbers, version)
