"""What the cache by meaning gives, costs and holds, beside its peers: `python -m bench.cache`.

The last line is one JSON object; what could not be measured here is null, with the reason above.
"""

from __future__ import annotations

from bench import table
from bench.cache import adversarial, azure, decision, embedding, eviction, index, serving, stores, streams

PARTS = (streams, adversarial, embedding, decision, index, serving, stores, eviction, azure)
ROWS = (
    ("banking_hits_d1", "Banking77: hits, 1 % of requests may be wrong", 0.55, 0.66, False),
    ("banking_hits_d2", "… 2 %", 0.68, 0.77, False),
    ("banking_hits_d5", "… 5 %", 0.78, 0.86, False),
    ("clinc_hits_d1", "CLINC150 + out of scope: hits, 1 %", 0.56, 0.70, False),
    ("clinc_hits_d2", "… 2 %", 0.65, 0.78, False),
    ("clinc_hits_d5", "… 5 %", 0.74, 0.86, False),
    ("held", "of these six promises, held", 6, 6, False),
    ("banking_hits_perhit2", "Banking77: hits, 2 % of hits may be wrong", 0.50, 0.65, False),
    ("adversarial_accepts", "near misses that are answered", 0.05, 0.02, True),
    ("paraphrase_kept", "right answers that the guard lets pass", 0.80, 0.92, False),
    ("embed_cpu_ms", "embedding, CPU milliseconds", 5, 2, True),
    ("decision_cpu_ms", "all else at 100,000 keys, CPU milliseconds", 0.6, 0.3, True),
    ("exact_hit_us_p99", "exact hit in process, µs, p99", 80, 50, True),
    ("coalesced_calls", "calls for 1,000 equal requests at once", 1, 1, True),
    ("bytes_per_key", "disk and memory a key, bytes", 1536, 1024, True),
    ("warm_start_100k_s", "start with 100,000 keys, seconds", 5, 3, True),
)

if __name__ == "__main__":
    table.run(__doc__, PARTS, ROWS)
