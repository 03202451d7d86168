"""Look inside a model while it reads: which unit follows what in the text, and what the model loses without it."""
