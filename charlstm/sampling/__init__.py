"""From a model file to text, without torch."""
