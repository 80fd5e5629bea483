"""The learned metric of each partition that has enough keys, learned anew as they grow, beside the path of requests."""

from __future__ import annotations

import asyncio

import numpy as np

from stepwell.cache.metric import Metric, due, learn
from stepwell.index.index import Index


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
        """Learn wherever enough has come; say how many metrics are new."""
        num_new = 0
        for partition in index.partitions():
            num_keys = index.num_keys(partition)
            known = self.metrics.get(partition)
            if not due(num_keys, known) or num_keys < 1.1 * self.tried.get(partition, 0):
                continue
            self.tried[partition] = num_keys
            vectors, answers = index.whole(partition)
            _, numbers = np.unique(np.array(answers), return_inverse=True)
            version = known.version + 1 if known else 1
            metric = await asyncio.to_thread(learn, vectors, numbers, version)
            if metric is not None:
                self.metrics[partition] = metric
                num_new += 1
        return num_new
