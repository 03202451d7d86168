"""Editing sessions with small models."""

from __future__ import annotations

from collections.abc import Sequence

from charlstm.config import SamplingConfig
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel
from charlstm.writing.buffer import Position, TextBuffer
from charlstm.writing.continuation import Drawing
from charlstm.writing.encoding import TextEncoder
from charlstm.writing.infill import Infiller
from charlstm.writing.session import Session

SEED = 5
SHORT = SamplingConfig(length=20, weights="fp32")


def make_session(
    model: ModelFile,
    text: str = "",
    cursor: tuple[int, int] | None = None,
    *,
    unknown: str = "replace",
    stops: Sequence[str] = (),
    config: SamplingConfig = SHORT,
) -> Session:
    """Return a session on a text."""
    infiller = Infiller(model, SEED) if model.config.model.bidirectional else None
    network = infiller.forward if infiller else TextModel(model).network
    drawing = Drawing(network, model.vocabulary, config, SEED, stops)
    encoder = TextEncoder(model.vocabulary, model.config.data, unknown)
    session = Session(TextBuffer(text), drawing, encoder, infiller)
    if cursor is not None:
        session.move_to(Position(*cursor))
    finish(session)
    return session


def finish(session: Session) -> None:
    """Do all the work that a session has."""
    while session.work(10):
        pass
