"""Benchmarks: one module a claim; each prints one JSON object as its last line."""
