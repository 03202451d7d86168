"""What runs have logged: an overview of many, their curves, and files for other programs. Without torch."""
