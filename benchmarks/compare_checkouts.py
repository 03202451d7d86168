"""Compare what two checkouts compute: losses, weights, samples, fills and metrics must be identical.

    python benchmarks/compare_checkouts.py BEFORE AFTER [--python PY] [--quick] [--only TEXT] [--output FOLDER]

Both checkouts train small models from the same seeds: each cell, optimizer, schedule, kind of document and kind of
regularization, resumed runs, and the runs in tests/fixtures/version-0.1.0-alpha. AFTER also resumes runs that BEFORE
began. There is one line per case, a summary, and exit status 1 if anything differs.

Cases use the names of version 0.1.0. Names that changed since are in the tables below; a checkout's own help and
`train --dry-run` show which ones it takes.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import numpy as np

FLAGS = {"--optimiser": "--optimizer", "--unit": "--level", "--tie": "--head tied", "--jsonl": "--json"}
"""Options of version 0.1.0 that have another name now."""

KEYS = {"training.optimiser": "training.optimizer", "data.unit": "data.level"}
SECTIONS = {"regularisation": "regularization"}
"""Settings and sections that have another name now."""

REMOVED = {"training.batch_size_start", "training.seq_len_start", "training.clip_value"}

JSON_KEYS = {
    "figures": "metrics",
    "forward_restored": "forward_accuracy",
    "both_sides_restored": "both_sides_accuracy",
    "gaps_restored": "gap_exact_match",
    "gap_characters_restored": "gap_character_accuracy",
}
"""Parts of keys in JSON output, metrics.jsonl and model files that have another name now."""

TIMES_AND_WORDING = {"seconds", "training_seconds", "chars_per_second", "why", "method"}
ECHOES = {"text", "model", "seed", "gap_seed"}
"""Keys whose values may differ: how long something took, wording, and what `eval` repeats of its command line."""

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures" / "version-0.1.0-alpha"

CELLS = ("lstm", "lstm-peephole", "lstm-simple", "lstm-norm", "mlstm", "gru", "gru-cho", "rnn", "jordan")

SMALL = (
    "--hidden 12 --set model.embedding=8 --batch-size 4 --seq-len 16 --epochs 2 --lr 0.02 --device cpu "
    "--precision fp32 --engine kernel --set training.validate_every=25 --no-samples"
)
"""Settings that train in less than a second. A case's own options follow, and the last one given counts."""

SAMPLES = (
    "--seed 1",
    "--temperature 0",
    "-n 5 --seed 2",
    "-n 5 --seed 3 --temperature 0.7 --stop e --prompt the",
    "-n 1 --seed 3 --temperature 0.7 --stop e --stop an --top-k 6",
    "--seed 4 --top-p 0.9 --min-p 0.02 --prompt the --no-echo --raw",
    "-n 2 --seed 5 --jsonl",
    "--seed 6 --adapt held.txt --unknown replace",
)
BACKWARD_SAMPLES = (
    "--seed 1 --direction backward --prompt sea",
    "-n 5 --seed 2 --direction backward --temperature 0.7",
)

FILLS = ("-n 3 --seed 1", "-n 2 --seed 2 --any 4 --jsonl")

EVALUATIONS = (
    "--json",
    "held.txt --unknown replace --json",
    "held.txt --unknown replace --json --gaps 0.2",
    "held.txt --unknown replace --json --dynamic",
    "held.txt --unknown replace --per-char",
)
"""The first reads the model's own corpus."""

WORDS = shlex.split(
    "the and sea sun moon night day rain train man hen cat lane door more said sat had home ten tea read write gold "
    "leaf fog cup pay way small three"
)

PRESETS = ("bidirectional", "bytes", "chinese", "demo", "gru", "large", "medium", "names", "rnn", "small", "tiny")

Results = dict[str, Any]


def main() -> int:
    if sys.argv[1:] == ["--serve"]:
        serve()
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--python", default=sys.executable, help="A Python with the dependencies. (default: this one)")
    parser.add_argument("--quick", action="store_true", help="Run a fifth of the cases.")
    parser.add_argument("--only", default="", metavar="TEXT", help="Run the cases whose names contain this.")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="Keep the runs in this folder.")
    arguments = parser.parse_args()
    cases = [case for case in make_cases() if arguments.only in case.name and (case.quick or not arguments.quick)]
    with tempfile.TemporaryDirectory(prefix="compare-") as temporary:
        folder = arguments.output or Path(temporary)
        write_corpora(folder / "corpora")
        with (
            Checkout(arguments.before, arguments.python, folder, "before") as before,
            Checkout(arguments.after, arguments.python, folder, "after") as after,
        ):
            return compare(cases, before, after)


def compare(cases: Sequence[Case], before: Checkout, after: Checkout) -> int:
    """Print a line per case and a summary. Return the exit status."""
    different: list[str] = []
    skipped, begun = 0, perf_counter()
    for case in cases:
        if case.bf16 and not (before.has_bf16 and after.has_bf16):
            print(f"{case.name:40} skipped: this processor has no bfloat16", flush=True)
            skipped += 1
            continue
        started = perf_counter()
        found, remarks = examine(case, before, after)
        outcome = "; ".join(found[:3]) + (f"; {len(found) - 3} more" if len(found) > 3 else "")
        note = f" ({'; '.join(remarks)})" if remarks and not found else ""
        print(f"{case.name:40} {outcome or 'identical'}{note}  {perf_counter() - started:.1f} s", flush=True)
        if found:
            different.append(case.name)
    seconds = perf_counter() - begun
    names = f": {', '.join(different)}" if different else ""
    counts = f"{len(cases) - skipped - len(different)} identical, {skipped} skipped, {len(different)} different"
    print(f"{len(cases)} cases in {seconds:.0f} s: {counts}{names}")
    return 1 if different else 0


def examine(case: Case, before: Checkout, after: Checkout) -> tuple[list[str], list[str]]:
    """What differs between the two checkouts, and remarks on the results that are the same."""
    try:
        with ThreadPoolExecutor(2) as pool:
            pending = [pool.submit(case.perform, checkout, checkout.new_folder(case)) for checkout in (before, after)]
            expected, found = (future.result() for future in pending)
            differences = list(compare_values(expected, found, ""))
            if case.hand_over:
                taken = after.new_folder(case, "handed over")
                handed = case.hand_over(after, taken, before.get_folder(case))
                shared = {name: value for name, value in expected.items() if name in handed}
                differences += compare_values(shared, handed, "a run begun by BEFORE and resumed by AFTER: ")
    except CommandError as error:
        return [str(error)], []
    return differences, [text for text in found.get("remarks", []) if text]


# Running a checkout


class CommandError(Exception):
    """A command line that should have succeeded has failed."""


class Checkout:
    """A working tree of charlstm and a process that runs its command lines."""

    def __init__(self, path: Path, python: str, folder: Path, side: str) -> None:
        self.path, self.folder, self.side = path.resolve(), folder.resolve(), side
        self.corpora = self.folder / "corpora"
        own = {name: value for name, value in os.environ.items() if not name.startswith("CHARLSTM_")}
        environment = {
            **own,
            "PYTHONPATH": str(self.path),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "240",
            "TERM": "dumb",
            "CHARLSTM_CACHE": str(self.folder / "cache"),
        }
        command = [python, "-P", str(Path(__file__).resolve()), "--serve"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=self.folder
        )
        hello = json.loads(self.read_reply())
        if not Path(hello["charlstm"]).is_relative_to(self.path):
            raise SystemExit(f"{python} imports charlstm from {hello['charlstm']}, not from {self.path}")
        self.has_bf16: bool = hello["bf16"]
        commands, prose = ("train", "sample", "fill", "eval"), str(self.corpora / "prose.txt")
        *pages, settings = self.run(
            [*([name, "--help"] for name in commands), ["train", prose, "--dry-run"]], self.folder
        )
        self.help = {name: page.decode() for name, page in zip(commands, pages, strict=True)}
        self.keys = set(flatten(tomllib.loads(settings.decode())))

    def __enter__(self) -> Checkout:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    def get_folder(self, case: Case, what: str = "") -> Path:
        return self.folder / self.side / "-".join(filter(None, (case.name, what))).replace(" ", "-")

    def new_folder(self, case: Case, what: str = "") -> Path:
        """An empty folder for a case."""
        folder = self.get_folder(case, what)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def run(self, lines: Sequence[Sequence[str]], folder: Path, stdin: Path = Path(os.devnull)) -> list[bytes]:
        """Run command lines in a folder, one after the other, and return what each writes to stdout.

        Raises CommandError for one that fails.
        """
        request = {"lines": lines, "folder": str(folder), "stdin": str(stdin)}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        statuses = json.loads(self.read_reply())
        for number, status in enumerate(statuses):
            if status:
                last = (folder / f"stderr-{number}").read_text("utf-8", "replace").strip().splitlines()[-1:]
                words = shlex.join(["charlstm", *lines[number]])
                raise CommandError(f"{self.side}: {words}: status {status}: {' '.join(last)}")
        return [(folder / f"stdout-{number}").read_bytes() for number in range(len(lines))]

    def read_reply(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process that runs {self.path} has ended")
        return line

    def spell(self, line: str) -> list[str]:
        """A command line, written in the names of version 0.1.0, in the names that this checkout takes."""
        command, *options = shlex.split(line)
        if command == "eval" and "--per-char" in options and not has_option(self.help["eval"], "--per-char"):
            return ["score", *(word for word in options if word != "--per-char"), "--json"]
        words = [command]
        for word in options:
            key, equals, value = word.partition("=")
            if word in FLAGS and not has_option(self.help[command], word):
                words += FLAGS[word].split()
            elif words[-1] == "--set":
                words.append(f"{key if key in self.keys else rename(key)}{equals}{value}")
            else:
                words.append(word)
        return words

    def charlstm(self, folder: Path, *lines: str, stdin: Path = Path(os.devnull)) -> list[Any]:
        """Run command lines that are written in the names of version 0.1.0 and return what they write."""
        written = self.run([self.spell(line) for line in lines], folder, stdin)
        return [read_output(line, data) for line, data in zip(lines, written, strict=True)]


def has_option(text: str, option: str) -> bool:
    """Whether a help page lists an option."""
    return option in text.replace(",", " ").replace("=", " ").split()


def serve() -> None:
    """Run command lines of the charlstm on the path: each in a fork of this process, which has imported torch."""
    load_libraries()
    spec = importlib.util.find_spec("charlstm")
    capabilities = sys.modules["torch"].cpu.get_capabilities()
    bf16 = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    print(json.dumps({"charlstm": spec and spec.origin, "bf16": bf16}), flush=True)
    for request in sys.stdin:
        wanted = json.loads(request)
        statuses = Path(wanted["folder"]) / "statuses"
        statuses.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            run_here(**wanted)
        _, status = os.waitpid(child, 0)
        found = [int(line) for line in statuses.read_text().split()] if statuses.exists() else []
        ended = [] if len(found) == len(wanted["lines"]) else [os.waitstatus_to_exitcode(status) or -1]
        print(json.dumps(found + ended), flush=True)


def load_libraries() -> None:
    """Import what most command lines need, and compile something, since both take longer than the cases themselves."""
    for library in ("numpy", "torch", "torch._dynamo", "typer"):
        import_module(library)
    with suppress(ImportError):
        import_module("numba").njit(lambda x: x)(1)


def run_here(lines: list[list[str]], folder: str, stdin: str) -> NoReturn:
    """Run command lines in this process as `python -m charlstm` would, until one fails, and end the process."""
    signal.alarm(900)
    os.chdir(folder)
    with open("statuses", "w") as statuses:  # noqa: PTH123
        for number, words in enumerate(lines):
            for stream, path in enumerate((stdin, f"stdout-{number}", f"stderr-{number}")):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if stream else os.O_RDONLY, 0o666)
                os.dup2(handle, stream)
                os.close(handle)
            sys.stdin, sys.stdout, sys.stderr = (open(n, mode, closefd=False) for n, mode in enumerate("rww"))  # noqa: SIM115
            status = run_charlstm(words)
            sys.stdout.flush()
            sys.stderr.flush()
            print(status, file=statuses, flush=True)
            if status:
                break
    os._exit(0)


def run_charlstm(words: list[str]) -> int:
    """Run a command line and return its exit status."""
    sys.argv = ["charlstm", *words]
    try:
        runpy.run_module("charlstm", run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


# Cases


@dataclass(frozen=True)
class Case:
    """Something both checkouts do. `perform` does it in an empty folder and returns what must be identical.

    `hand_over` continues, in a folder of its own, what was done in another checkout's folder.
    """

    name: str
    perform: Callable[[Checkout, Path], Results]
    hand_over: Callable[[Checkout, Path, Path], Results] | None = None
    quick: bool = False
    bf16: bool = False


@dataclass(frozen=True)
class Training:
    """A run from its first step on, and what its model does then."""

    options: str = ""
    corpus: str = "prose.txt"
    epochs: tuple[int, ...] = ()  # where it stops; from the second on, it is resumed
    init_from: str = ""  # options of the run that gives the initial weights
    stdin: bool = False

    def perform(self, checkout: Checkout, folder: Path) -> Results:
        corpus = checkout.corpora / self.corpus
        line = f"train {'-' if self.stdin else corpus} -o run {SMALL} {self.options}"
        lines = [line]
        if self.init_from:
            lines = [f"train {checkout.corpora / 'other.txt'} -o other {SMALL} {self.init_from}"]
            lines.append(f"{line} --init-from other")
        if self.epochs:
            lines = [f"{line} --epochs {self.epochs[0]}"]
        checkout.charlstm(folder, *lines, stdin=corpus if self.stdin else Path(os.devnull))
        if self.epochs:
            shutil.copytree(folder / "run", folder / "half")
        return self.resume(checkout, folder)

    def resume(self, checkout: Checkout, folder: Path) -> Results:
        lines = [f"train --resume -o run --epochs {epochs} --no-samples" for epochs in self.epochs[1:]]
        return use(checkout, folder, lines, backward="--bidirectional" in self.options)

    def hand_over(self, checkout: Checkout, folder: Path, other: Path) -> Results:
        """Resume a run that the other checkout began."""
        shutil.copytree(other / "half", folder / "run")
        return self.resume(checkout, folder)


@dataclass(frozen=True)
class Fixture:
    """A run of version 0.1.0: used as it is, then resumed."""

    name: str

    def perform(self, checkout: Checkout, folder: Path) -> Results:
        expected = json.loads((FIXTURES / "expected.json").read_text("utf-8"))["runs"][self.name]
        shutil.copytree(FIXTURES / self.name, folder / "run")
        backward = expected["settings"].get("model.bidirectional", False)
        unchanged = use(checkout, folder, [], backward, own=False)
        results = {f"before resuming: {name}": value for name, value in unchanged.items()}
        if "resumed" not in expected:
            return results
        corpus = {"gru": FIXTURES / "corpus.txt", "files": checkout.corpora / "stanzas"}.get(self.name, "")
        line = f"train {corpus} --resume -o run --epochs {expected['resumed']['epochs']} --no-samples"
        results |= use(checkout, folder, [line], backward, own=False)
        same = hash_weights(folder / "run") == expected["resumed"]["sha256"]
        return results | {"remarks": [] if same else ["other weights than in expected.json"]}


@dataclass(frozen=True)
class Output:
    """A command whose output is the result."""

    line: str
    read: Callable[[Any], Any] = lambda output: output

    def perform(self, checkout: Checkout, folder: Path) -> Results:
        (output,) = checkout.charlstm(folder, self.line.format(long=checkout.corpora / "long.txt"))
        return {"output": self.read(output)}


def make_cases() -> list[Case]:
    kinds = (
        make_cell_cases,
        make_mode_cases,
        make_data_cases,
        make_resumed_cases,
        make_fixture_cases,
        make_output_cases,
    )
    return [case for make in kinds for case in make()]


def make_case(name: str, options: str = "", *, quick: bool = False, bf16: bool = False, **about: Any) -> Case:
    training = Training(options, **about)
    return Case(name, training.perform, training.hand_over if training.epochs else None, quick, bf16)


def make_cell_cases() -> Iterator[Case]:
    for cell in CELLS:
        yield make_case(cell, f"--cell {cell}", quick=True)
        yield make_case(f"{cell} softsign", f"--cell {cell} --activation softsign --layers 2 --dropout 0.2")
        yield make_case(f"{cell} bf16", f"--cell {cell} --precision bf16 --layers 2", bf16=True)
    yield make_case("lstm bf16 torch engine", "--precision bf16 --engine torch --layers 2", bf16=True)
    yield make_case("lstm automatic", "--precision auto --engine auto --hidden 200 --epochs 1")
    for cell in ("lstm", "gru", "rnn"):
        yield make_case(f"{cell} torch engine", f"--cell {cell} --engine torch --layers 2 --dropout 0.2", quick=True)


def make_mode_cases() -> Iterator[Case]:
    for name, options in {
        "cosine": "--epochs 3",
        "linear": "--schedule linear",
        "constant": "--schedule constant --set training.warmup=0",
        "plateau": "--schedule plateau --lr 0.3 --set training.validate_every=5",
        "adam": "--optimiser adam --set training.beta1=0.8",
        "rmsprop": "--optimiser rmsprop --lr 0.005",
        "adagrad": "--optimiser adagrad --lr 0.1",
        "sgd": "--optimiser sgd --lr 0.5 --set training.weight_decay=0.001",
        "no average": "--ema 0 --set training.clip=0 --seed 2",
        "head of all layers": "--set model.head=all --layers 3",
        "residual": "--set model.between=residual --layers 3",
        "highway": "--set model.between=highway --layers 3",
        "tied without projection": "--tie --set model.embedding=12",
        "zoneout": "--set model.zoneout=0.2",
        "zoneout gru": "--set model.zoneout=0.2 --cell gru --layers 2",
        "window dropout": "--dropout 0.3 --set regularisation.dropout_mask=window --layers 2",
        "embedding dropout": "--set regularisation.embedding_dropout=0.2",
        "weight dropout": "--set regularisation.weight_dropout=0.3 --layers 2",
        "weight dropout torch engine": "--set regularisation.weight_dropout=0.3 --engine torch",
        "activation penalty": "--set regularisation.activation_penalty=1",
        "temporal penalty": "--set regularisation.temporal_penalty=1",
        "label smoothing": "--set regularisation.label_smoothing=0.1",
        "l1": "--set regularisation.l1=0.001",
        "patience": "--patience 2 --lr 0.5 --epochs 20 --set training.validate_every=5",
        "fallen back": "--optimiser sgd --lr 100 --set training.beta1=0 --ema 0 --set training.warmup=0",
        "bidirectional gru": "--bidirectional --cell gru --set training.look_ahead=8 --dropout 0.2",
        "bidirectional torch engine": "--bidirectional --engine torch --set training.look_ahead=8 --layers 2",
        "bidirectional tied": "--bidirectional --tie --set training.joint_weight=2 --set training.look_ahead=8",
    }.items():
        yield make_case(name, options)
    yield make_case("nt-asgd", "--optimiser nt-asgd --lr 3 --set training.validate_every=4 --epochs 3", quick=True)
    yield make_case("tied", "--tie", quick=True)
    yield make_case("keep", "--keep 2", quick=True)
    yield make_case("bidirectional", "--bidirectional --set training.look_ahead=8", quick=True)
    yield make_case("initial weights", "--hidden 10", init_from="--hidden 10", quick=True)
    yield make_case(
        "initial weights of one direction", "--bidirectional --set training.look_ahead=8", init_from="--seed 3"
    )


def make_data_cases() -> Iterator[Case]:
    yield make_case("byte", "--unit byte", corpus="bytes.bin", quick=True)
    yield make_case("byte lines", "--unit byte --document line --errors replace", corpus="bytes.bin")
    yield make_case("lines", "--document line --min-count 8", quick=True)
    yield make_case("lines gru", "--document line --cell gru --layers 2 --dropout 0.2")
    yield make_case("lines bidirectional", "--document line --bidirectional --set training.look_ahead=8")
    yield make_case("files", "--document file", corpus="documents", quick=True)
    yield make_case("folder", "--glob *.txt --separator ~ --split 0.7,0.2,0.1", corpus="documents")
    yield make_case("stdin", "", stdin=True, quick=True)
    yield make_case("limited vocabulary", "--max-vocab 24")
    yield make_case("text options", "--lower --normalize nfkc --newlines keep --encoding utf-8", corpus="crlf.txt")


def make_resumed_cases() -> Iterator[Case]:
    for name, options in {
        "lstm": "--layers 2 --dropout 0.2",
        "bidirectional": "--bidirectional --set training.look_ahead=8 --dropout 0.2",
        "lines": "--document line --min-count 8",
        "zoneout": "--set model.zoneout=0.2 --cell lstm-norm",
        "byte": "--unit byte",
        "nt-asgd": "--optimiser nt-asgd --lr 3 --set training.validate_every=4",
        "plateau": "--schedule plateau --lr 0.3 --optimiser sgd --set training.validate_every=5 --keep 2",
        "regularized": (
            "--tie --layers 2 --dropout 0.2 --set regularisation.dropout_mask=window "
            "--set regularisation.embedding_dropout=0.1 --set regularisation.weight_dropout=0.2 "
            "--set regularisation.temporal_penalty=1"
        ),
    }.items():
        yield make_case(f"resumed {name}", options, epochs=(1, 2), quick=name == "lstm")
    yield make_case("resumed stdin", epochs=(1, 2, 3), stdin=True)


def make_fixture_cases() -> Iterator[Case]:
    names = json.loads((FIXTURES / "expected.json").read_text("utf-8"))["runs"]
    for name in names:
        yield Case(f"fixture {name}", Fixture(name).perform, quick=name in ("lstm", "bidirectional", "interrupted"))


def make_output_cases() -> Iterator[Case]:
    for preset in PRESETS:
        output = Output(f"train {{long}} --preset {preset} --dry-run", read_settings)
        yield Case(f"preset {preset}", output.perform, quick=preset == "demo")
    yield Case("learning-rate test", Output(f"train {{long}} --find-lr {SMALL}").perform, quick=True)
    yield Case("corpus", Output("corpus {long} --json").perform)


def write_corpora(folder: Path) -> None:
    """Write the texts to train on: words in a random order, the same ones each time."""
    draw = random.Random(1)
    text = "\n".join(" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(130)) + "\n"
    rare = text.replace("cat", "café", 4).replace("said", "said — ", 3).replace("gold", "quiz", 2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prose.txt").write_text(rare, "utf-8")
    (folder / "long.txt").write_text(4 * rare, "utf-8")
    (folder / "other.txt").write_text(text[::-1].replace("tea", "jazz", 3), "utf-8")
    (folder / "held.txt").write_text("\n".join(text.splitlines()[3:12]) + "\n", "utf-8")
    (folder / "crlf.txt").write_bytes(rare.title().replace("Sea", "ﬁsh").replace("\n", "\r\n").encode())
    (folder / "bytes.bin").write_bytes(b"\n".join([rare.encode(), draw.randbytes(200), rare.encode()]))
    for name, pieces in {
        "documents": [text[at : at + 97] for at in range(0, len(text), 97)],
        "stanzas": (FIXTURES / "corpus.txt").read_text("utf-8").split("\n\n"),
    }.items():
        (folder / name).mkdir(exist_ok=True)
        for number, piece in enumerate(pieces):
            (folder / name / f"{number:02}.txt").write_text(piece.rstrip("\n") + "\n", "utf-8")


# Results


def use(checkout: Checkout, folder: Path, lines: list[str], backward: bool, own: bool = True) -> Results:
    """Run the given command lines, then return what is stored in `run` and what its model samples, fills and scores.

    `own`: also evaluate the model's own corpus; the text is then one of those in `corpora`.
    """
    held = checkout.corpora / "held.txt" if own else FIXTURES / "corpus.txt"
    shutil.copyfile(held, folder / "held.txt")
    samples = [*SAMPLES, *(BACKWARD_SAMPLES if backward else ())]
    asked = [
        *(f"sample -m run -l 80 {options}" for options in samples),
        *(f"fill 'the m__n and t_e sea' -m run {options}" for options in FILLS),
        *(f"eval -m run {options}" for options in (EVALUATIONS if own else EVALUATIONS[1:])),
    ]
    written = checkout.charlstm(folder, *lines, *asked)
    return read_run(folder / "run") | dict(zip(asked, written[len(lines) :], strict=True))


def read_run(run: Path) -> Results:
    """The losses, settings and models of a run."""
    results: Results = {
        "metrics.jsonl": read_json_lines((run / "metrics.jsonl").read_bytes()),
        "config.toml": read_settings((run / "config.toml").read_bytes()),
        "models": sorted(path.name for path in run.glob("*.safetensors")),
    }
    for path in run.glob("*.safetensors"):
        if path.name not in ("state.safetensors", "good.safetensors"):
            results[path.name] = Model.read(path)
    return results


@dataclass(frozen=True)
class Tensor:
    """A tensor of a .safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Model:
    """A model file: its tensors by name, and its own metrics."""

    tensors: dict[str, Tensor]
    metrics: Any

    @classmethod
    def read(cls, path: Path) -> Model:
        data = path.read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:begin])
        document = rename_json(json.loads(header.pop("__metadata__")["charlstm"]))
        tensors = {}
        for name, entry in sorted(header.items()):
            first, last = entry["data_offsets"]
            tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), data[begin + first : begin + last])
        return cls(tensors, document["metrics"])


def hash_weights(run: Path) -> str:
    """A digest of the newest weights of a run, as in the fixtures' README.md."""
    digest = hashlib.sha256()
    for name, tensor in Model.read(run / "last.safetensors").tensors.items():
        digest.update(f"{name} {'float32' if tensor.dtype == 'F32' else tensor.dtype} {tensor.shape}\n".encode())
        digest.update(tensor.data)
    return digest.hexdigest()


def read_output(line: str, data: bytes) -> Any:
    """What a command line wrote: JSON values or bytes."""
    if not {"--json", "--jsonl", "--per-char"} & set(shlex.split(line)):
        return data
    values = read_json_lines(data)
    if "--per-char" in line:  # version 0.1.0 shows the end of a document as an empty string
        return [value | {"character": value["character"] or "\n"} for value in values]
    if line.startswith("eval"):
        return [{key: item for key, item in value.items() if key not in ECHOES} for value in values]
    return values


def read_json_lines(data: bytes) -> list[Any]:
    return [rename_json(json.loads(line)) for line in data.splitlines()]


def read_settings(data: bytes) -> dict[str, Any]:
    """The settings of a TOML document under their new names, without those that were removed."""
    settings = flatten(tomllib.loads(data.decode()))
    return {rename(key): value for key, value in settings.items() if key not in REMOVED}


def flatten(tree: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section, values in tree.items() for key, value in values.items()}


def rename(key: str) -> str:
    """The new name of a setting."""
    section, _, name = KEYS.get(key, key).partition(".")
    return f"{SECTIONS.get(section, section)}.{name}"


def rename_json(value: Any) -> Any:
    """A JSON value with the new names of its keys, without times and wording."""
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if key not in TIMES_AND_WORDING}
        return {rename_json_key(key): rename_json(inner) for key, inner in kept.items()}
    return [rename_json(inner) for inner in value] if isinstance(value, list) else value


def rename_json_key(key: str) -> str:
    for old, new in JSON_KEYS.items():
        key = key.replace(old, new)
    return key


def compare_values(before: Any, after: Any, where: str) -> Iterator[str]:
    """A sentence per difference. A key that only AFTER has does not count as one."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{where}{key} is missing"
            elif key != "remarks":
                yield from compare_values(value, after[key], f"{where}{key}: ")
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield f"{where}{len(before)} entries became {len(after)}"
        for number, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from compare_values(one, other, f"{where}{number}: ")
    elif isinstance(before, Model) and isinstance(after, Model):
        yield from compare_values(sorted(before.tensors), sorted(after.tensors), f"{where}names: ")
        yield from compare_values(before.tensors, after.tensors, where)
        yield from compare_values(before.metrics, after.metrics, f"{where}metrics: ")
    elif isinstance(before, Tensor) and isinstance(after, Tensor):
        if before != after:
            yield f"{where}{describe_difference(before, after)}"
    elif before != after and not (before != before and after != after):  # NaN is not equal to itself
        yield f"{where}{shorten(before)} became {shorten(after)}"


def describe_difference(before: Tensor, after: Tensor) -> str:
    if (before.dtype, before.shape) != (after.dtype, after.shape) or before.dtype != "F32":
        return f"{before} became {after}"
    values = [np.frombuffer(tensor.data, np.float32) for tensor in (before, after)]
    return f"differs by up to {np.abs(values[0] - values[1]).max():.3g}"


def shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


if __name__ == "__main__":
    sys.exit(main())
