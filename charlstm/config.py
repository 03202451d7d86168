"""Every setting: its default, its range, its help text and whether a resumed run may change it.

Flags, `CHARLSTM_*` variables, TOML keys and the documentation are made from these dataclasses
(see `charlstm.settings`). Constructing one checks its values.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from charlstm.errors import UsageError
from charlstm.fields import DURATION, CheckedFields, document_fields, setting

CELL_NAMES = ("lstm", "lstm-peephole", "lstm-simple", "lstm-norm", "mlstm", "gru", "gru-cho", "rnn", "jordan")
OPTIMIZER_NAMES = ("adamw", "muon", "adam", "rmsprop", "adagrad", "sgd", "nt-asgd")


@dataclass(frozen=True)
class ModelConfig(CheckedFields):
    """The network: an embedding, a stack of recurrent layers and an output layer."""

    cell: str = setting(
        "lstm", "Recurrent cell; `charlstm show cells` prints their equations.", flag=True, choices=CELL_NAMES
    )
    layers: int = setting(1, "Number of recurrent layers.", flag=True, minimum=1, maximum=64)
    hidden: int = setting(384, "Number of units in each recurrent layer.", flag=True, minimum=1, maximum=16384)
    embedding: int = setting(64, "Size of the embedding vector of a character.", minimum=1, maximum=16384)
    bigrams: int = setting(
        0,
        "Rows of a table of embeddings of pairs of characters, added to those of characters; 0 is none.",
        minimum=0,
        maximum=2**20,
    )
    bidirectional: bool = setting(
        False, "Train a forward and a backward stack and predict from both, for `charlstm fill`.", flag=True
    )
    activation: str = setting(
        "tanh", "Activation function of the candidate state.", flag=True, choices=("tanh", "softsign")
    )
    dropout: float = setting(
        0.0,
        "Probability of dropping a unit between layers and before the output layer.",
        flag=True,
        minimum=0.0,
        maximum=0.95,
    )
    zoneout: float = setting(
        0.0,
        "Probability that a unit keeps its previous state at a step (Krueger et al. 2017); slow.",
        minimum=0.0,
        maximum=0.95,
    )
    between: str = setting(
        "plain",
        "What each layer above the first passes on: its output, its output plus its input, or a learned mix of both.",
        choices=("plain", "residual", "highway"),
    )
    head: str = setting(
        "top",
        "What the output layer reads: the top layer, all layers, or the top layer with tied embeddings.",
        flag=True,
        choices=("top", "all", "tied"),
    )

    @property
    def joint_width(self) -> int:
        """Units of the layer that joins the outputs of both directions."""
        return max(self.hidden // 2, min(self.hidden, 128))


@dataclass(frozen=True)
class RegularizationConfig(CheckedFields):
    """Regularization other than dropout and weight decay."""

    dropout_mask: str = setting(
        "step",
        "Draw a new dropout mask at every step, or one for each window (Gal & Ghahramani 2016).",
        choices=("step", "window"),
    )
    embedding_dropout: float = setting(
        0.0, "Probability of dropping the embedding of a character for a whole window.", minimum=0.0, maximum=0.95
    )
    weight_dropout: float = setting(
        0.0,
        "Probability of dropping a recurrent weight for a whole window (Merity et al. 2017).",
        minimum=0.0,
        maximum=0.95,
    )
    activation_penalty: float = setting(
        0.0,
        "Weight in the loss of the mean square of the top layer's output (AR, Merity et al. 2017).",
        minimum=0.0,
        maximum=1e3,
    )
    temporal_penalty: float = setting(
        0.0,
        "Weight in the loss of the mean squared change of the top layer's output between steps (TAR).",
        minimum=0.0,
        maximum=1e3,
    )
    l1: float = setting(
        0.0, "Strength of the L1 penalty on all weight matrices except the embedding.", minimum=0.0, maximum=1.0
    )
    label_smoothing: float = setting(
        0.0, "Share of the target probability that is spread over all symbols.", minimum=0.0, maximum=0.95
    )


def is_split(shares: tuple[float, ...]) -> bool:
    """Return whether these are two or three shares that add up to 1, the first of them above 0."""
    return len(shares) in (2, 3) and shares[0] > 0 and min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6


@dataclass(frozen=True)
class DataConfig(CheckedFields):
    """The corpus, how it is read and what a symbol is."""

    corpus: tuple[str, ...] = setting(
        (), "Files and folders to train on; - is stdin.", allowed="a list of paths that are not empty", valid=all
    )
    glob: str = setting(
        "*.txt", "Pattern of the files to read in a folder, at any depth and in any case.", flag=True, metavar="PATTERN"
    )
    separator: str = setting(
        "",
        "Text to insert between files; without it, text files that lack a final newline get one.",
        flag=True,
        metavar="TEXT",
    )
    level: str = setting(
        "char", "Read and write characters, or the bytes of any file.", flag=True, choices=("char", "byte")
    )
    document: str = setting(
        "stream",
        "Treat each line (or file) as a separate document: reset the state at its start and learn where it ends.",
        flag=True,
        choices=("line", "file", "stream"),
    )
    column: str = setting(
        "",
        "Read this column (its name or number) of CSV or TSV files; each value is a document.",
        flag=True,
        metavar="NAME",
    )
    field: str = setting(
        "",
        "Read this field of JSON Lines files, as text or author.name; each value is a document.",
        flag=True,
        metavar="NAME",
    )
    encoding: str = setting("utf-8", "Text encoding of the corpus.", flag=True, metavar="NAME")
    errors: str = setting(
        "strict",
        "Stop at bytes that cannot be decoded, or replace them with U+FFFD.",
        flag=True,
        choices=("strict", "replace"),
    )
    newlines: str = setting(
        "lf", "Keep CR LF and CR line endings, or convert them to LF.", flag=True, choices=("keep", "lf")
    )
    normalize: str = setting(
        "none", "Unicode normalization form to convert the text to.", flag=True, choices=("nfc", "nfkc", "none")
    )
    lower: bool = setting(False, "Convert the text to lower case.", flag=True)
    min_count: int = setting(
        1,
        "Replace characters seen fewer than N times with one unknown symbol, which is never sampled.",
        flag=True,
        minimum=1,
        maximum=1e9,
        metavar="N",
    )
    max_vocab: int = setting(
        0,
        "Keep the N most frequent characters and replace the others with the unknown symbol; 0 means no limit.",
        flag=True,
        minimum=0,
        maximum=1e7,
        metavar="N",
    )
    split: tuple[float, ...] = setting(
        (0.9, 0.1),
        "Shares of the corpus for training, validation and, if there is a third, testing; 1,0 trains on all of it.",
        flag=True,
        metavar="A,B[,C]",
        allowed="two or three shares such as 0.9,0.1 or 1,0 that add up to 1, the first of them above 0",
        valid=is_split,
    )

    @property
    def reads_records(self) -> bool:
        """Whether the corpus is a column or field of records, each of which is a document."""
        return bool(self.column or self.field)

    @property
    def has_documents(self) -> bool:
        """Whether the model learns where a document ends."""
        return self.reads_records or self.document != "stream"

    def for_plain_text(self) -> DataConfig:
        """Return the settings to read a text that is not in records: for a model of records, it is one document."""
        return replace(self, column="", field="", document="file") if self.reads_records else self


@dataclass(frozen=True)
class TrainingConfig(CheckedFields):
    """Batches, optimizer, schedule, validation and device."""

    seq_len: int = setting(
        64,
        "Characters in a window, through which gradients are backpropagated (truncated BPTT).",
        flag=True,
        minimum=1,
        maximum=65536,
    )
    batch_size: int = setting(
        16, "Number of parallel streams that the corpus is cut into.", flag=True, minimum=1, maximum=65536
    )
    segment_len: int = setting(
        1024,
        "Characters that a stream reads in order before it goes on at another place; 0: it reads one part of the text.",
        in_old_runs=0,
        minimum=0,
        maximum=1e9,
    )
    look_ahead: int = setting(
        32,
        "Characters after a window that the backward stack of a bidirectional model reads first, unscored.",
        minimum=1,
        maximum=65536,
    )
    forward_weight: float = setting(
        1.0, "Weight of the forward loss in the loss of a bidirectional model.", minimum=1e-3, maximum=1e3
    )
    backward_weight: float = setting(
        1.0, "Weight of the backward loss in the loss of a bidirectional model.", minimum=1e-3, maximum=1e3
    )
    joint_weight: float = setting(
        1.0,
        "Weight of the joint loss (characters predicted from both sides) in the loss of a bidirectional model.",
        minimum=1e-3,
        maximum=1e3,
    )
    optimizer: str = setting("adamw", "Optimizer that updates the weights.", flag=True, choices=OPTIMIZER_NAMES)
    lr: float = setting(8e-3, "Peak learning rate.", flag=True, resumable=True, minimum=1e-8, maximum=100.0)
    schedule: str = setting(
        "cosine",
        "Learning rate after the warm-up: cosine or linear decay, halving on a plateau, or constant.",
        flag=True,
        choices=("cosine", "linear", "plateau", "constant"),
    )
    epochs: int = setting(
        20, "Number of passes over the training part.", flag=True, resumable=True, minimum=1, maximum=1e6
    )
    max_time: float = setting(
        0.0,
        "Stop after this time (90s, 5m, 1h30m) and fit the learning-rate schedule to it; 0 means no limit.",
        flag=True,
        resumable=True,
        minimum=0.0,
        maximum=3e7,
        metavar=DURATION,
    )
    warmup: float = setting(
        0.02, "Share of training during which the learning rate rises to its peak.", minimum=0.0, maximum=1.0
    )
    final_lr: float = setting(
        0.02, "Final learning rate of a cosine or linear schedule, as a share of the peak.", minimum=0.0, maximum=1.0
    )
    beta1: float = setting(
        0.9, "Decay rate of the mean gradient (Adam), or momentum (SGD).", minimum=0.0, maximum=0.9999
    )
    beta2: float = setting(
        0.99, "Decay rate of the mean squared gradient (Adam, RMSprop).", minimum=0.0, maximum=0.99999
    )
    weight_decay: float = setting(
        0.01,
        "Weight decay of the matrices; an L2 penalty except with adamw and muon, and 0 is recommended for the others.",
        minimum=0.0,
        maximum=10.0,
    )
    clip: float = setting(
        1.0, "Scale gradients with a larger norm down to this norm; 0 turns clipping off.", minimum=0.0, maximum=1e6
    )
    ema: float = setting(
        0.999,
        "Decay rate of the moving average of the weights, which is validated and saved; 0 turns it off.",
        flag=True,
        minimum=0.0,
        maximum=0.99999,
    )
    patience: int = setting(
        0,
        "Stop after N validations without a better loss; 0 means never.",
        flag=True,
        resumable=True,
        minimum=0,
        maximum=1e6,
        metavar="N",
    )
    validate_every: int = setting(
        500, "Steps between validations, each of which saves the run.", resumable=True, minimum=1, maximum=1e9
    )
    validation_chars: int = setting(
        0,
        "Characters that a validation reads, evenly spread over the validation part; 0 means all of it.",
        minimum=0,
        maximum=1e12,
    )
    save_every: float = setting(
        60.0,
        "Time between saves (90s, 5m) if validations are further apart; 0 saves at validations only.",
        flag=True,
        resumable=True,
        minimum=0.0,
        maximum=3e7,
        metavar=DURATION,
    )
    keep: int = setting(
        0,
        "Keep the models of the last N validations, as step-000500.safetensors.",
        flag=True,
        resumable=True,
        minimum=0,
        maximum=1e6,
        metavar="N",
    )
    seed: int = setting(1, "Seed of the initial weights, dropout and data order.", flag=True, minimum=0, maximum=2**53)
    threads: int = setting(
        0,
        "Processor cores to train on; 0 means as many as there are, with at least 4 streams each.",
        flag=True,
        resumable=True,
        minimum=0,
        maximum=1024,
        metavar="N",
    )
    accumulate: int = setting(
        1,
        "Read the streams of a step in N parts, one after the other: the same result in less memory.",
        flag=True,
        resumable=True,
        minimum=1,
        maximum=4096,
        metavar="N",
    )
    device: str = setting(
        "auto", "Device to train on.", flag=True, resumable=True, choices=("auto", "cpu", "cuda", "mps")
    )
    precision: str = setting(
        "auto",
        "Floating-point precision of the forward and backward pass.",
        flag=True,
        resumable=True,
        choices=("auto", "fp32", "bf16"),
    )
    engine: str = setting(
        "auto",
        "Implementation of the recurrent layers: charlstm's kernels, or torch's operators if they support the cell.",
        flag=True,
        resumable=True,
        choices=("auto", "kernel", "torch"),
    )


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded: not if it has a byte of the command line that is not UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


SPDX = r"[A-Za-z0-9.+-]+(:[A-Za-z0-9.-]+)?"
"""The identifier of a license or an exception, as a regular expression."""


def is_license(text: str) -> bool:
    """Return whether this has the form of an SPDX expression, or is empty. The list of identifiers is not checked."""
    return not text or re.fullmatch(rf"\(*{SPDX}\)*( (AND|OR|WITH) \(*{SPDX}\)*)*", text) is not None


@dataclass(frozen=True)
class CardConfig(CheckedFields):
    """What a model card says that cannot be measured. Training does not read it."""

    about: str = setting(
        "",
        "What the model is and what it was trained on, for its card.",
        flag=True,
        resumable=True,
        metavar="TEXT",
        allowed="text in UTF-8",
        valid=is_unicode,
    )
    license: str = setting(
        "",
        "License of the model, for its card: an SPDX expression such as CC-BY-4.0.",
        flag=True,
        resumable=True,
        metavar="SPDX",
        allowed="an SPDX expression such as MIT or CC-BY-4.0 OR Apache-2.0",
        valid=is_license,
    )


MAX_QUANTIZATION_LOSS = 0.001
"""Nats per character that a model may lose by 8-bit weights, with which it then samples by default."""

DOCUMENT_LENGTH = 100_000
"""Default length of a sample of a model of documents, which normally ends by itself: none runs forever."""


@dataclass(frozen=True)
class SamplingConfig(CheckedFields):
    """How characters are drawn from the model's distribution, and how many."""

    temperature: float = setting(
        1.0,
        "Divide the logits by this: below 1 is more predictable, above 1 more varied, 0 always the most likely.",
        flag="-t",
        minimum=0.0,
        maximum=100.0,
    )
    top_k: int = setting(
        0,
        "Sample from the K most likely characters only; 0 turns this off.",
        flag=True,
        minimum=0,
        maximum=2e6,
        metavar="K",
    )
    top_p: float = setting(
        1.0,
        "Sample from the smallest set of characters with this total probability (nucleus); 1 turns this off.",
        flag=True,
        minimum=0.0,
        maximum=1.0,
    )
    min_p: float = setting(
        0.0,
        "Exclude characters less likely than this share of the most likely one; 0 turns this off.",
        flag=True,
        minimum=0.0,
        maximum=1.0,
    )
    no_repeat: int = setting(
        0,
        "Never write N characters in a row that prompt or sample already contain; try 20; 0 turns this off.",
        flag=True,
        minimum=0,
        maximum=1e6,
        metavar="N",
    )
    length: int = setting(
        500,
        f"Characters to write after the prompt (documents: whole ones of up to {DOCUMENT_LENGTH} by default); "
        "0 means no limit.",
        flag="-l",
        minimum=0,
        maximum=1e12,
        metavar="N",
    )
    weights: str = setting(
        "auto",
        "Weights to sample with: 8-bit integers are faster; auto uses them unless the model loses "
        f"{MAX_QUANTIZATION_LOSS:g} nats/char by it.",
        flag=True,
        choices=("auto", "int8", "fp32"),
    )


@dataclass(frozen=True)
class AdaptationConfig(CheckedFields):
    """Dynamic evaluation: how a model learns from the text that it reads (`charlstm.evaluation.dynamic`)."""

    adapt_rate: float = setting(
        4e-4, "Learning rate at which the model adapts to the text it reads.", flag=True, minimum=0.0, maximum=1.0
    )
    adapt_decay: float = setting(
        1e-4,
        "Rate at which adapted weights decay back to the trained ones at each update.",
        flag=True,
        minimum=0.0,
        maximum=1.0,
    )


@dataclass(frozen=True)
class Config:
    """All settings of a run, as in the `config.toml` of its folder.

    model: the network.
    data: the corpus and how it is read.
    training: batches, optimizer, schedule, validation and device.
    regularization: regularization other than dropout and weight decay.
    card: what the model card says of the model.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    card: CardConfig = field(default_factory=CardConfig)

    def __post_init__(self) -> None:
        """Raises UsageError for a section of the wrong class, or a setting that needs a validation part."""
        for name, section in SECTIONS.items():
            if not isinstance(value := getattr(self, name), section):
                raise UsageError(f"Config.{name} must be a {section.__name__}, not {value!r}")
        if not self.validates:
            self.check_without_validation()

    @property
    def validates(self) -> bool:
        """Whether the corpus has a validation part."""
        return self.data.split[1] > 0

    def check_without_validation(self) -> None:
        """Raise UsageError for a setting that acts on the validation loss."""
        training = self.training
        acting = {
            "--patience": training.patience > 0,
            "--schedule plateau": training.schedule == "plateau",
            "--optimizer nt-asgd": training.optimizer == "nt-asgd",
        }
        for option in (option for option, used in acting.items() if used):
            split = ",".join(f"{share:g}" for share in self.data.split)
            raise UsageError(
                f"{option} acts on the validation loss, and --split {split} leaves no validation part",
                "use another setting, or a split such as 0.9,0.1",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as nested dicts and lists, as in TOML and JSON."""
        return {
            section: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
            for section, values in asdict(self).items()
        }

    def to_toml(self) -> str:
        """Return the contents of `config.toml`, which `--config` accepts."""
        import tomli_w  # deferred: commands that write no settings start without it

        return tomli_w.dumps(self.to_dict())


SECTIONS: dict[str, type[CheckedFields]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "training": TrainingConfig,
    "regularization": RegularizationConfig,
    "card": CardConfig,
}
"""The sections of a `Config`."""

ALL_SECTIONS = SECTIONS | {"sampling": SamplingConfig, "adaptation": AdaptationConfig}
"""`SECTIONS` and the sections that belong to a command, not to a run."""

for _section in ALL_SECTIONS.values():
    _section.__doc__ = document_fields(_section)  # each setting is described once, in its declaration


def resumable_keys() -> list[str]:
    """Return the settings that a resumed run may change, as `section.key`."""
    return [
        f"{name}.{f.name}" for name, section in SECTIONS.items() for f in fields(section) if f.metadata["resumable"]
    ]


Direction = Literal["forward", "backward"]
"""Forward reads a text from its beginning, backward from its end. Only a bidirectional model has both."""

UnknownPolicy = Literal["error", "skip", "replace"]
"""How to read a character that is not in the vocabulary: raise an error, skip it, or replace it."""
