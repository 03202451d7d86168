"""Fill the gaps of a text, without torch."""
