"""An editor whose model continues the text at the cursor: everything except the terminal. Does not import torch."""
