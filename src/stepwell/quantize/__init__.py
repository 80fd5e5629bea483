"""Smaller numbers in the same model, in the formats that engines read."""
