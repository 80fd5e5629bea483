"""What templates cost and how good they are: `python -m bench.templates`."""
