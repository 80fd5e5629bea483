"""Answers given before: keys, the exact cache, and one flight for equal requests."""
