"""The plan of a training run: its settings, its corpus and its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar

from charlstm import presets
from charlstm.cli.commands.train import TrainRequest
from charlstm.cli.shared_input import share_spool
from charlstm.cli.stdin import check_unread_input
from charlstm.config import SECTIONS, Config
from charlstm.console import Console
from charlstm.data.corpus import derive_run_name
from charlstm.errors import UsageError
from charlstm.runtime import parent_started_at
from charlstm.settings import Setting, Settings, check_resumable, from_dict, resolve, updated
from charlstm.storage.files import check_folder
from charlstm.storage.locate import STATE, STDIN, find_model, find_newest_run
from charlstm.storage.model import ModelFile
from charlstm.storage.run import RunFolder
from charlstm.storage.spool import Spool

if TYPE_CHECKING:
    from charlstm.model.ranks import Ranks
    from charlstm.training.auto_config import ConfigChoice

Planned = TypeVar("Planned")


class Plan(NamedTuple):
    """A training run: its settings, its folder and where it starts."""

    config: Config
    folder: RunFolder
    stdin: BinaryIO | Spool | None  # what the corpus "-" is read from
    resume: bool = False
    overwrite: bool = False
    init_from: ModelFile | None = None
    choice: ConfigChoice | None = None  # what the settings for a time limit are based on, if they were chosen

    def chosen_settings(self, given: Settings) -> set[str]:
        """Return the settings that were chosen for a time limit. Of a resumed run they may be all."""
        if not (self.choice or (self.resume and self.config.training.max_time)):
            return set()
        return {f"{name}.{f.name}" for name, section in SECTIONS.items() for f in fields(section)} - set(given)


def check_output(folder: RunFolder, *, overwrite: bool) -> None:
    """Raise UsageError or CharlstmError for a folder that a new run cannot be written to."""
    check_folder(folder.path, "-o")
    folder.check_unused(overwrite=overwrite)


def from_first(ranks: Ranks | None, compute: Callable[[], Planned]) -> Planned:
    """Return what the first rank computes; without other ranks, what this process does."""
    return ranks.from_first(compute) if ranks else compute()


def continue_run(request: TrainRequest) -> TrainRequest:
    """Return the request of processes that torchrun has restarted: resume the run if they had started it.

    They had, if its state was saved after their launcher was started. Otherwise the command is tried again.
    """
    named = request.corpus or list(resolve(request.given).data.corpus) or [str(presets.bundled_corpus())]
    state = (request.output or choose_folder(named)) / STATE
    is_theirs = state.exists() and state.stat().st_mtime >= parent_started_at()
    if not is_theirs or request.resume or request.dry_run or request.find_lr:
        return request
    return replace(request, corpus=named, resume=True, overwrite=False, init_from=None)


def plan_new(console: Console, request: TrainRequest, ranks: Ranks | None) -> Plan:
    """Return the plan of a new run. The model of --init-from determines the defaults of the model settings."""
    init_from = ModelFile.load(find_model(request.init_from, {})) if request.init_from else None
    shape = from_dict({"model": init_from.config.to_dict()["model"]}, "--init-from") if init_from else {}
    named = request.corpus or list(resolve(request.given).data.corpus)
    sources, stdin = resolve_sources(console, named)
    if ranks and STDIN in sources:
        stdin = share_spool(ranks, Spool.from_stdin(sources, stdin) if ranks.is_first else None)
    config = resolve(shape | request.given | {"data.corpus": Setting(sources, "the corpus")})
    folder = RunFolder(request.output or choose_folder(sources))
    return Plan(config, folder, stdin, overwrite=request.overwrite, init_from=init_from)


def plan_resumed(request: TrainRequest, ranks: Ranks | None) -> Plan:
    """Return the plan that continues a run: the one in --output, else the corpus's, else the newest."""
    path = from_first(ranks, lambda: find_resumed(request))
    folder = RunFolder(path)
    config = update_resumed(from_first(ranks, folder.load_config), request.given, request.corpus)
    spool = share_spool(ranks, folder.spool) if ranks and STDIN in config.data.corpus else folder.spool
    return Plan(config, folder, spool, resume=True)


def find_resumed(request: TrainRequest) -> Path:
    """Return the folder of the run to continue."""
    if request.output or request.corpus:
        return request.output or choose_folder(request.corpus)
    return find_newest_run("name the folder of a run with -o")


def choose_folder(sources: Sequence[str]) -> Path:
    """Return runs/<corpus name>."""
    return Path("runs") / derive_run_name(sources)


def resolve_sources(console: Console, corpus: list[str]) -> tuple[tuple[str, ...], BinaryIO | Spool | None]:
    """Return the absolute paths of the corpus, so that the run finds it from any folder, and what "-" is read from.

    A named pipe, as of `<(zcat book.gz)`, is read like stdin. Without a corpus it is the one that ships with charlstm.

    Raises UsageError if no corpus is named and something is piped in, or for more than one pipe.
    """
    if not corpus:
        check_unread_input(console, "with < /dev/null it is the text that ships with charlstm")
        console.note("no corpus named: training on the small English text that ships with charlstm")
        return (str(presets.bundled_corpus()),), None
    pipes = [source for source in corpus if source == "-" or is_pipe(Path(source))]
    if len(pipes) > 1:
        raise UsageError(f"only one corpus can come through a pipe, not {len(pipes)}", "concatenate them with cat")
    if "-" in pipes and not console.piped:
        raise UsageError("- reads the corpus from stdin, and nothing was piped in", "cat *.txt | charlstm train -")
    stdin: BinaryIO | Spool | None = console.stdin
    if pipes and "-" not in pipes:
        with Path(pipes[0]).open("rb") as pipe:
            stdin = Spool.from_stream(pipe)
    return tuple("-" if source in pipes else make_absolute(source) for source in corpus), stdin


def is_pipe(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def make_absolute(source: str) -> str:
    """Return the absolute path. Raises UsageError for a name that a config file cannot hold."""
    try:
        source.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the name of the corpus {source!r} is not UTF-8", "rename it, or: charlstm train - < FILE"
        ) from None
    return str(Path(source).absolute())


def update_resumed(config: Config, given: Settings, corpus: list[str]) -> Config:
    """Return a run's config with the given settings. Raises UsageError for one that a resumed run cannot change."""
    after = updated(config, given, "the command line")
    check_resumable(config, after, given)
    if not corpus or "-" in corpus:
        return after
    return replace(after, data=replace(after.data, corpus=tuple(map(make_absolute, corpus))))
