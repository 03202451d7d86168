"""The title of an exported model: what its page and its card are headed by."""

from __future__ import annotations

from pathlib import Path

from charlstm.storage.locate import BEST, CONFIG, LAST, STDIN
from charlstm.storage.model import ModelFile, without_paths


def find_title(path: Path, file: ModelFile) -> str:
    """Return the title of the model at this path: its run, its file without the suffix, or its corpus.

    The name of a folder that is no run is not used: it can be that of a user.
    """
    if path.name not in (BEST, LAST):
        return path.stem
    folder = path.absolute().parent
    return folder.name if (folder / CONFIG).exists() else name_corpus(file)


def name_corpus(file: ModelFile) -> str:
    """Return the name of the only file of the corpus, without its ending."""
    names = without_paths(file.config.data).corpus
    return Path(names[0]).stem if len(names) == 1 and "*" not in names[0] and names[0] != STDIN else "A model of text"
