"""Good enough, defined once: the promise and the measures of text."""
