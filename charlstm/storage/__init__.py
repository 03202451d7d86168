"""Files on disk: tensors, models, training states, run folders, the cache."""
