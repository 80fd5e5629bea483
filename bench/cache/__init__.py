"""Benchmarks of the cache: by meaning, its parts, and what it costs."""
