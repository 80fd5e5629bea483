"""Batch-based generation: fill-in-the-blank texts written ahead of time, checked, published, and filled at the edge."""
