"""Students learn from a teacher: by its texts, by its probabilities, and by talking with it."""
