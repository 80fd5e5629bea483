"""The front door: HTTP in, the well's answer out."""
