"""What a text says that an answer may hang on: values, names, negation, direction, question word, language."""
