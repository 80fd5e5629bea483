"""How a model is run: over HTTP, in this process, by script."""
