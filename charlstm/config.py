"""Every setting: its default, its range and its one line of help, here and nowhere else.

Flags, `CHARLSTM_*` variables, TOML keys and the documentation are all made from these dataclasses
(`charlstm.settings`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import tomli_w


def setting(
    default: Any,
    help: str,
    *,
    flag: bool | str = False,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    metavar: str = "",
) -> Any:
    """A field with a default, a help line and the values it may take.

    `flag` gives it an option of its own; as "-x", a short one too.
    """
    about = {"help": help, "flag": flag, "minimum": minimum, "maximum": maximum, "choices": choices, "metavar": metavar}
    return field(default=default, metadata=about)


CELL_NAMES = ("lstm", "lstm-peephole", "lstm-simple", "lstm-norm", "mlstm", "gru", "gru-cho", "rnn", "jordan")
OPTIMIZER_NAMES = ("adamw", "adam", "rmsprop", "adagrad", "sgd", "nt-asgd")


@dataclass(frozen=True)
class ModelConfig:
    """The network: an embedding, a stack of recurrent layers, a linear head."""

    cell: str = setting("lstm", "Recurrent cell; `charlstm cells` has their equations.", flag=True, choices=CELL_NAMES)
    layers: int = setting(1, "Recurrent layers, one on the other.", flag=True, minimum=1, maximum=64)
    hidden: int = setting(384, "Units in each layer.", flag=True, minimum=1, maximum=16384)
    embedding: int = setting(64, "Width of a character's vector.", minimum=1, maximum=16384)
    bidirectional: bool = setting(
        False,
        "Two such stacks, one for each direction, and a head that predicts from both: for `charlstm fill`.",
        flag=True,
    )
    activation: str = setting(
        "tanh", "What bounds a layer's candidate for its new state.", flag=True, choices=("tanh", "softsign")
    )
    dropout: float = setting(
        0.0, "Share of units left out between layers and before the head.", flag=True, minimum=0.0, maximum=0.95
    )
    zoneout: float = setting(
        0.0, "Share of units that keep their state at a step (Krueger et al. 2017); slow.", minimum=0.0, maximum=0.95
    )
    between: str = setting(
        "plain",
        "What goes up from a layer but the first: its output, that plus its input, or a learned mixture of the two.",
        choices=("plain", "residual", "highway"),
    )
    head: str = setting(
        "top",
        "What predicts from: the top layer, every layer (Graves 2013), or the top by way of the embedding's own rows.",
        flag=True,
        choices=("top", "all", "tied"),
    )

    @property
    def joint_width(self) -> int:
        """Units between the two directions' outputs and what is predicted from both."""
        return max(self.hidden // 2, min(self.hidden, 128))


@dataclass(frozen=True)
class RegularizationConfig:
    """What keeps the network from learning the text by heart, beside dropout and weight decay."""

    dropout_mask: str = setting(
        "step",
        "Dropout leaves out other units at every step, or the same ones throughout a window (Gal & Ghahramani 2016).",
        choices=("step", "window"),
    )
    embedding_dropout: float = setting(
        0.0, "Share of the characters whose vectors are left out of a window.", minimum=0.0, maximum=0.95
    )
    weight_dropout: float = setting(
        0.0, "Share of the recurrent weights left out of a window (Merity et al. 2017).", minimum=0.0, maximum=0.95
    )
    activation_penalty: float = setting(
        0.0, "Weight of the mean square of the top layer's output in the loss (AR).", minimum=0.0, maximum=1e3
    )
    temporal_penalty: float = setting(
        0.0, "Weight of the mean square of its change from step to step (TAR).", minimum=0.0, maximum=1e3
    )
    l1: float = setting(0.0, "Weight of the sum of the absolute values of the matrices.", minimum=0.0, maximum=1.0)
    label_smoothing: float = setting(
        0.0, "Share of the target's probability spread over all symbols.", minimum=0.0, maximum=0.95
    )


@dataclass(frozen=True)
class DataConfig:
    """What is read, and what a symbol is."""

    corpus: tuple[str, ...] = setting((), "Files and folders the text came from; - is stdin.")
    glob: str = setting("*.txt", "Which files of a folder are read, at any depth.", flag=True, metavar="PATTERN")
    separator: str = setting(
        "", "Text to put between files. Without it, the last line of each is ended.", flag=True, metavar="TEXT"
    )
    level: str = setting(
        "char",
        "What the model reads and writes: characters, or the bytes of any file.",
        flag=True,
        choices=("char", "byte"),
    )
    document: str = setting(
        "stream",
        "What stands for itself, begins with a fresh state and has an end: a line, a file, or nothing but the whole.",
        flag=True,
        choices=("line", "file", "stream"),
    )
    encoding: str = setting("utf-8", "Encoding of the corpus.", flag=True)
    errors: str = setting(
        "strict", "A byte that is not text: an error, or U+FFFD in its place.", flag=True, choices=("strict", "replace")
    )
    newlines: str = setting(
        "lf", "Line ends CR LF and CR: made LF, or kept as they are.", flag=True, choices=("keep", "lf")
    )
    normalize: str = setting(
        "none", "Unicode normal form that the text is brought into.", flag=True, choices=("nfc", "nfkc", "none")
    )
    lower: bool = setting(False, "Read the text in lower case.", flag=True)
    min_count: int = setting(
        1, "Fold characters seen fewer times than this into one unknown symbol.", flag=True, minimum=1, maximum=1e9
    )
    max_vocab: int = setting(
        0,
        "Fold all but so many of the most frequent characters into it. 0: no limit.",
        flag=True,
        minimum=0,
        maximum=1e7,
    )
    split: tuple[float, ...] = setting(
        (0.9, 0.1), "Shares of train, validation and, if a third is given, test.", flag=True, metavar="A,B[,C]"
    )


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are found."""

    seq_len: int = setting(
        64, "Characters back-propagated through at a time (truncated BPTT).", flag=True, minimum=1, maximum=65536
    )
    batch_size: int = setting(16, "Parallel streams through the corpus.", flag=True, minimum=1, maximum=65536)
    look_ahead: int = setting(
        32,
        "With model.bidirectional: characters beyond a window that the backward direction reads first, not scored.",
        minimum=1,
        maximum=65536,
    )
    forward_weight: float = setting(
        1.0, "Weight of the forward loss in the mean of the three.", minimum=1e-3, maximum=1e3
    )
    backward_weight: float = setting(1.0, "Weight of the backward loss in it.", minimum=1e-3, maximum=1e3)
    joint_weight: float = setting(
        1.0, "Weight in it of the loss of what is predicted from both sides.", minimum=1e-3, maximum=1e3
    )
    optimizer: str = setting("adamw", "What turns gradients into steps.", flag=True, choices=OPTIMIZER_NAMES)
    lr: float = setting(8e-3, "Peak learning rate.", flag=True, minimum=1e-8, maximum=100.0)
    schedule: str = setting(
        "cosine",
        "Learning rate after the warm-up: down to final_lr by a cosine or a line, halved on a plateau, or constant.",
        flag=True,
        choices=("cosine", "linear", "plateau", "constant"),
    )
    epochs: int = setting(20, "Passes over the training part.", flag=True, minimum=1, maximum=1e6)
    max_time: float = setting(
        0.0,
        "Stop after this long, as 90s, 5m or 1h30m; the learning rate decays to fit. 0: no limit.",
        flag=True,
        minimum=0.0,
        maximum=3e7,
        metavar="TIME",
    )
    warmup: float = setting(
        0.02, "Share of training over which the learning rate climbs to its peak.", minimum=0.0, maximum=1.0
    )
    final_lr: float = setting(
        0.02, "Learning rate at the end of a cosine or a line, as a share of the peak.", minimum=0.0, maximum=1.0
    )
    beta1: float = setting(
        0.9, "Decay of the gradient's mean (Adam), or the momentum (SGD).", minimum=0.0, maximum=0.9999
    )
    beta2: float = setting(0.99, "Decay of the gradient's square (Adam, RMSprop).", minimum=0.0, maximum=0.99999)
    weight_decay: float = setting(0.01, "Weight decay; biases and the embedding are spared.", minimum=0.0, maximum=10.0)
    clip: float = setting(1.0, "Largest norm of the gradient. 0: not clipped.", minimum=0.0, maximum=1e6)
    ema: float = setting(
        0.999,
        "Decay of the weights' moving average, which then is what is validated and saved as the model. 0: off.",
        flag=True,
        minimum=0.0,
        maximum=0.99999,
    )
    patience: int = setting(
        0, "Stop after so many validations without a better loss. 0: go on.", flag=True, minimum=0, maximum=1e6
    )
    validate_every: int = setting(500, "Steps between validations; each one saves the run.", minimum=1, maximum=1e9)
    save_every: float = setting(
        60.0,
        "Time between saves where validations are further apart, as 90s or 5m. 0: at validations only.",
        flag=True,
        minimum=0.0,
        maximum=3e7,
        metavar="TIME",
    )
    keep: int = setting(
        0, "Models of earlier validations to keep, as step-000500.safetensors.", flag=True, minimum=0, maximum=1e6
    )
    seed: int = setting(
        1, "Seed of the initial weights, the dropout and the order of the data.", flag=True, minimum=0, maximum=2**53
    )
    device: str = setting("auto", "Where to train.", flag=True, choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto", "Arithmetic of the forward and backward pass.", flag=True, choices=("auto", "fp32", "bf16")
    )
    engine: str = setting(
        "auto",
        "What runs a layer over a sequence: charlstm's kernels, or torch's operators where it has the cell.",
        flag=True,
        choices=("auto", "kernel", "torch"),
    )


@dataclass(frozen=True)
class SamplingConfig:
    """How a character is drawn from the model's distribution."""

    temperature: float = setting(
        1.0,
        "Below 1 plays safe, above 1 takes risks, 0 always takes the likeliest.",
        flag="-t",
        minimum=0.0,
        maximum=100.0,
    )
    top_k: int = setting(0, "Draw from the K likeliest only. 0: off.", flag=True, minimum=0, maximum=2e6)
    top_p: float = setting(
        1.0, "Draw from the likeliest that together have this probability. 1: off.", flag=True, minimum=0.0, maximum=1.0
    )
    min_p: float = setting(
        0.0,
        "Leave out what is less likely than this share of the likeliest. 0: off.",
        flag=True,
        minimum=0.0,
        maximum=1.0,
    )
    length: int = setting(
        500, "Characters to write, the prompt not counted. 0: until stopped.", flag="-l", minimum=0, maximum=1e12
    )


@dataclass(frozen=True)
class AdaptationConfig:
    """How a model goes on learning from a text that it reads (`charlstm.evaluation.dynamic`)."""

    adapt_rate: float = setting(
        4e-4, "How fast the model learns from what it reads.", flag=True, minimum=0.0, maximum=1.0
    )
    adapt_decay: float = setting(
        1e-4, "Share of what it learnt that the model forgets again at every step.", flag=True, minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class Config:
    """All that decides a run; `config.toml` in the run's folder is this, written out."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts, fit for TOML and JSON."""
        return {
            section: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
            for section, values in asdict(self).items()
        }

    def to_toml(self) -> str:
        """What `config.toml` holds and `--config` takes."""
        return tomli_w.dumps(self.to_dict())


SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "training": TrainingConfig,
    "regularization": RegularizationConfig,
}

ALL_SECTIONS = SECTIONS | {"sampling": SamplingConfig, "adaptation": AdaptationConfig}
"""With those that are of a command and not of a run."""

Direction = Literal["forward", "backward"]
"""Which of a bidirectional model's two halves: the one that reads a text from its beginning, or from its end."""

UnknownPolicy = Literal["error", "skip", "replace"]
"""What to do with a character that the model has never seen."""
