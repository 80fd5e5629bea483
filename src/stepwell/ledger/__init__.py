"""What every request cost, and what the large model would have cost."""
