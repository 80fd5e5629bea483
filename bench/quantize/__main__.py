"""What quantization costs and gains, beside its peers: `python -m bench.quantize [--quick]`.

Needs what `make .venv-train/.train` installs and STEPWELL_DATA; peers lie in environments of their own (`make peers`).
The last line is one JSON object; what could not be measured here is null, with the reason above.
"""

from __future__ import annotations

from bench import table
from bench.quantize import broken, engines, gain, libraries, light, mixed, phases, qat, same_bytes, writer

PARTS = (same_bytes, libraries, mixed, qat, phases, gain, writer, engines, light, broken)
ROWS = (
    ("kl_q4_0_ratio", "KL of our Q4_0 to plain Q4_0's, same bytes", 0.5, 0.35, True),
    ("kl_vs_q4_k_s", "KL of our best file to llama.cpp's Q4_K_S", 1.0, 0.7, True),
    ("kl_vs_llmcompressor", "KL of int4 g128 to llm-compressor's", 1.05, 0.9, True),
    ("kl_vs_autoround", "… to AutoRound's", 1.05, 0.9, True),
    ("mixed_vs_uniform_36", "KL of mixed formats to uniform, 3.6 bits", 0.85, 0.7, True),
    ("qat2_vs_gptq2", "KL at 2 bits, trained to GPTQ", 0.7, 0.4, True),
    ("qat2_bleu_loss", "… and the BLEU it loses to 32 bits", 1.5, 0.5, True),
    ("search_gain_pct", "file smaller than the best preset's, percent", 10, 20, False),
    ("false_passes", "winners that fail on the sealed rows", 0, 0, True),
    ("writer_bytes_ratio", "the writer's file to 16 bits", 0.35, 0.2, True),
    ("decode_vs_best_peer", "tokens a CPU second, one request, to best peer", 0.75, 1.0, False),
    ("batch32_vs_best_peer", "… 32 requests", 0.9, 1.0, False),
    ("install_mb", "serving the writer: installed, MB", 220, 150, True),
    ("import_ms", "… imports, ms", 500, 500, True),
    ("rss_mb", "… memory, MB", 250, 250, True),
    ("broken_caught", "five broken files that are caught", 5, 5, False),
)

if __name__ == "__main__":
    table.run(__doc__, PARTS, ROWS, quick=True)
