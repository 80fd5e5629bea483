"""Synthetic data with provenance: planned, generated, filtered, carded."""
