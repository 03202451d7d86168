"""The language model as torch trains it."""
