"""Nearest neighbours among kept questions: vectors, what belongs to each, and the log that they follow."""
