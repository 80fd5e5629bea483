"""The stairs: each step proposes an answer or defers."""
