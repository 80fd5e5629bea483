"""Bytes by key: in memory and in a file."""
