"""From a corpus to a trained model, told as a series of events."""
