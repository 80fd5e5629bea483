"""Recipes: the files that made the models that ship with Stepwell."""
