"""What distillation gains, costs and holds, beside its peers: `python -m bench.distill [--quick]`.

Needs what `make .venv-train/.train` installs and STEPWELL_DATA. The last line is one JSON object; what could not be
measured here is null, with the reason above.
"""

from __future__ import annotations

from bench import table
from bench.distill import active, filters, gains, gate, install, skill, sparse_bytes, student, trl

PARTS = (student, gains, active, skill, sparse_bytes, gate, filters, trl, install)
ROWS = (
    ("teacher_bleu", "E2E test: BLEU of the teacher", 65, 67, False),
    ("teacher_ser", "… its slot errors", 0.03, 0.01, True),
    ("student_bleu_gap", "BLEU of teacher less student, upper bound", 1.5, 0.5, True),
    ("student_ser_less_teacher", "slot errors of the student less the teacher's", 0.01, 0, True),
    ("distill_gain_low", "1,000 human pairs: BLEU that a teacher adds", 6, 10, False),
    ("distill_gain_full_from", "all pairs: the same, lower bound", 0, 2, False),
    ("active_calls_ratio", "teacher calls for 95 % of full quality, to random", 0.5, 0.25, True),
    ("new_skill_before", "a withheld slot: answers right before", 0.2, 0.2, True),
    ("new_skill_after", "… after 500 teacher calls", 0.85, 0.95, False),
    ("old_skill_loss", "… and what the old skill lost", 0.01, 0.003, True),
    ("sparse_bytes_per_token", "stored probabilities, bytes a token", 45, 12, True),
    ("sparse_bleu_loss", "… BLEU they lose to the whole vocabulary", 0.5, 0.2, True),
    ("sparse_time_vs_sft", "… a step's time to one on texts alone", 1.25, 1.1, True),
    ("gate_false_promote", "students worse by the margin that pass", 0.055, 0.055, True),
    ("gate_power", "equal students that pass", 0.88, 0.92, False),
    ("minhash_rows_per_core_s", "near duplicates, rows a core-second", 10_000, 20_000, False),
    ("leaks_found", "planted leaks that are found", 1, 1, False),
    ("provenance_share", "rows with provenance", 1, 1, False),
    ("vs_trl_speed", "speed to TRL's, the slower of two tasks", 1, 1.3, False),
    ("vs_trl_memory", "memory to TRL's, the larger of two tasks", 1, 0.7, True),
    ("usd_per_1k_answers", "USD for 1,000 answers, making included", 0.002, 0.0005, True),
    ("cli_start_s", "start of the command, seconds", 0.3, 0.3, True),
    ("install_bytes", "the extra `train`, bytes", 1.1e9, 1.1e9, True),
)

if __name__ == "__main__":
    table.run(__doc__, PARTS, ROWS, quick=True)
