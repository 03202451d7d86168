"""The language model in torch: for training, evaluation and adaptation."""
