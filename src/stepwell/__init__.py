"""Stepwell serves generative AI to very many people: a request goes down steps, the first good enough answers."""

__version__ = "0.1.0"
