"""The commands: one module each, with its options, its help and the checks of how options combine.

A module is imported when its command is typed. None of them imports NumPy, so that help pages appear at once: each
calls a module of `charlstm.cli.actions`, which does.
"""
