"""Kernels: every cell over a whole sequence, forward and, by hand-derived equations, backward through time.

`sequence.py` is the contract and the connection to autograd. Every other file is a derivation and its code; read
`rnn.py` first.
"""

from charlstm.model.kernels.gru import GRU, GRU_CHO
from charlstm.model.kernels.lstm import LSTM
from charlstm.model.kernels.mlstm import MLSTM
from charlstm.model.kernels.norm import LSTM_NORM
from charlstm.model.kernels.peephole import LSTM_PEEPHOLE
from charlstm.model.kernels.rnn import ELMAN, JORDAN
from charlstm.model.kernels.simple import LSTM_SIMPLE

KERNELS = {
    "lstm": LSTM,
    "lstm-peephole": LSTM_PEEPHOLE,
    "lstm-simple": LSTM_SIMPLE,
    "lstm-norm": LSTM_NORM,
    "mlstm": MLSTM,
    "gru": GRU,
    "gru-cho": GRU_CHO,
    "rnn": ELMAN,
    "jordan": JORDAN,
}
