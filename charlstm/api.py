"""Train and evaluate from Python. Torch is imported when a function is called."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlstm.config import AdaptationConfig, Config, UnknownPolicy
from charlstm.data.batches import fit_batches
from charlstm.data.corpus import derive_run_name, read_corpus
from charlstm.data.external import ExternalText
from charlstm.data.split import Tokens, default_shares
from charlstm.errors import UsageError
from charlstm.evaluation.metrics import Metrics, sum_nats, with_symbols
from charlstm.settings import check_resumable, updated
from charlstm.storage.locate import STDIN, find_newest_run, parse_path
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.text_model import TextModel, load
from charlstm.training.events import Event
from charlstm.vocabulary import Text

Source = str | Path
ModelSource = TextModel | str | Path
TextOrIds = Text | NDArray[np.integer]


def train(
    corpus: Source | Sequence[Source] | None,
    config: Config | None = None,
    folder: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    init_from: ModelSource | None = None,
    stop: Callable[[], bool] = lambda: False,
    save: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, None]:
    """Train a model, save it to a run folder, and yield an event for everything that happens.

    The corpus is read before the call returns; training takes place while the iterator is advanced. If the caller
    closes the iterator early, or breaks out of the loop, the run keeps its last save: the last validation, or
    `training.save_every` seconds of training later. `stop` saves it where it is.

    corpus: files and folders to train on. With `resume`, None is the corpus of the run.
    config: the settings. None is the defaults, with smaller batches for a small text; when resuming, the settings of
        the run.
    folder: the run folder. None is `runs/<corpus name>`; when resuming without a corpus, the newest run in `runs`.
    overwrite: replace a run that the folder already contains.
    resume: continue the run in the folder. `config` may change only the settings that are marked as resumable.
    init_from: start with the weights of this model (a run folder, a model file or a loaded model).
    stop: called between steps and during validation. Once it returns True, the run is saved and training ends.
    save: called between steps. Whenever it returns True, the run is saved and training continues.

    Raises UsageError for a source that does not exist, a folder that already contains a run, or a setting that cannot
    change when resuming; CharlstmError for a corpus that is too small for the settings or that has changed, or a
    failure to write; DivergedError if the loss diverges again and again.
    """
    if resume and (overwrite or init_from is not None):
        raise UsageError("resume cannot be combined with overwrite or init_from")
    sources = absolute_paths(corpus)
    if resume:
        return resume_run(sources, config, find_folder(folder, sources, resume=True), stop, save)
    if not sources:
        raise UsageError("no corpus is given")
    run_folder = find_folder(folder, sources)
    run_folder.check_unused(overwrite=overwrite)
    initial = load_file(init_from) if init_from is not None else None
    settings = config or (Config(model=initial.config.model) if initial else Config())
    data = replace(settings.data, corpus=sources)
    text = read_corpus(data)
    if config is None:
        data = replace(data, split=default_shares(len(text), data.split))
        length = len(text.split(data.split).part("train"))
        settings = updated(settings, fit_batches(settings, length, ()), "the text")
    settings = replace(settings, data=data)

    from charlstm.training.run import run_training

    return run_training(text, settings, run_folder, overwrite=overwrite, init_from=initial, stop=stop, save=save)


def resume_run(
    sources: tuple[str, ...],
    config: Config | None,
    folder: RunFolder,
    stop: Callable[[], bool],
    save: Callable[[], bool],
) -> Generator[Event, None, None]:
    """Resume the run in a folder, with the corpus at `sources` if it has moved there. Raises as `train` does."""
    saved = folder.load_config()
    settings = config or saved
    check_resumable(saved, replace(settings, data=replace(settings.data, corpus=saved.data.corpus)))
    settings = replace(settings, data=replace(settings.data, corpus=sources or saved.data.corpus))
    text = read_corpus(settings.data, folder.spool)

    from charlstm.training.run import run_training

    return run_training(text, settings, folder, resume=True, stop=stop, save=save)


def evaluate(
    model: ModelSource,
    text: TextOrIds,
    *,
    unknown: UnknownPolicy = "error",
    adaptation: AdaptationConfig | None = None,
) -> Metrics:
    """Return the metrics of a text under a model.

    The whole text is read once, left to right, with the state carried along, and each character is scored exactly once.
    The metrics of a bidirectional model include the backward loss and the accuracy from both sides.

    model: a run folder, a model file or a loaded model, whose clamps and mixture do not apply.
    text: the text; `bytes` for a model of bytes. An array of ids [length] is evaluated as it is.
    unknown: what to do with a character that is not in the vocabulary: "error", "skip" it, or "replace" it.
    adaptation: if given, adapt the model to the text while it is read (dynamic evaluation), forward only. The model
        itself does not change.

    Raises UsageError for an empty text or an unknown character, DivergedError if the adaptation diverges.
    """
    from charlstm.evaluation.evaluate import evaluate as evaluate_ids
    from charlstm.evaluation.evaluate import evaluate_average
    from charlstm.evaluation.in_order import predict_in_order
    from charlstm.model.loading import load_language_model, load_torch_model

    loaded = model if isinstance(model, TextModel) else load(model)
    file = loaded.file
    ids, size_bytes = encode_text(file, text, unknown)
    bos = file.vocabulary.bos
    if adaptation is not None:
        models = [load_language_model(each) for each in loaded.files]
        windows = with_symbols(predict_in_order(models, ids, bos, adaptation), ids)
        return Metrics(len(ids), size_bytes, sum_nats(windows))
    if loaded.averaged:
        return evaluate_average((load_language_model(file), load_language_model(loaded.averaged)), ids, bos, size_bytes)
    metrics = evaluate_ids(load_torch_model(file), ids, bos, size_bytes)
    assert metrics is not None  # nothing stops it
    return metrics


def encode_text(file: ModelFile, text: TextOrIds, unknown: UnknownPolicy) -> tuple[Tokens, int]:
    """Return the ids of a text, read as the corpus of the model was, and its size in bytes. Raises as `evaluate`."""
    if isinstance(text, np.ndarray):
        if text.ndim != 1 or not len(text) or not 0 <= text.min() <= text.max() < file.vocabulary.size:
            raise UsageError(f"ids must be a non-empty array of numbers from 0 to {file.vocabulary.size - 1}")
        return Tokens(text.astype(file.vocabulary.dtype)), file.vocabulary.count_bytes(text)
    if not text:
        raise UsageError("the text to evaluate is empty")
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    reading = replace(file.config.data.for_plain_text(), corpus=(STDIN,), encoding="utf-8")
    external = ExternalText(reading, file.vocabulary, unknown, BytesIO(data))
    return Tokens(external.ids), external.bytes


def load_file(model: ModelSource) -> ModelFile:
    """Return the model file of a loaded model, or load it. Raises as `load` does."""
    return (model if isinstance(model, TextModel) else load(model)).file


def absolute_paths(corpus: Source | Sequence[Source] | None) -> tuple[str, ...]:
    """Return the absolute paths of the sources, with which the run finds them again from any folder.

    Raises UsageError for an empty path.
    """
    sources = [corpus] if isinstance(corpus, (str, Path)) else [] if corpus is None else corpus
    return tuple(str(parse_path(source, "the path of a corpus").absolute()) for source in sources)


def find_folder(folder: str | Path | None, sources: Sequence[str], *, resume: bool = False) -> RunFolder:
    """Return the run folder: the given one, the one named after the corpus, or the newest run to resume.

    Raises UsageError if the given path is empty.
    """
    if folder is not None:
        return RunFolder(parse_path(folder, "the path of a run"))
    if resume and not sources:
        return RunFolder(find_newest_run())
    return RunFolder(Path("runs") / derive_run_name(sources))
