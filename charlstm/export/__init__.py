"""A model for other programs: an ONNX graph, a folder for torch.nn, and the model card. Does not import torch."""
