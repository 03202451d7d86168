"""From corpus files to batches of ids."""
