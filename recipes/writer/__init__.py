"""The house writer: facts about a restaurant in, a sentence out. `README.md` says how to run it."""
