"""Sample text from a model, without torch."""
