/* One step of every recurrent cell, as in charlstm/cells.py: state = cell(x, state, w, act).

x: the projected input of the layer, W_ih u + b_ih. state: arrays of H values, the output first. w: weights by name.
act: activation of the candidate. */

const CELLS = {
  rnn: (x, [h], w, act) => [add(w.weight_hh.multiply(h), w.bias_hh, x).map(act)],

  jordan(x, [y], w, act) {
    const h = add(w.weight_hh.multiply(y), x).map(act);
    return [add(w.weight_hy.multiply(h), w.bias_hy).map(tanh)];
  },

  lstm: (x, [h, c], w, act) => combineGates(add(w.weight_hh.multiply(h), w.bias_hh, x), c, act),

  "lstm-peephole"(x, [h, c], w, act) {
    const a = add(w.weight_hh.multiply(h), x), p = w.weight_peephole, H = c.length;
    const output = new Float32Array(H), cell = new Float32Array(H);
    for (let j = 0; j < H; j++) {
      const i = sigmoid(a[j] + p[j] * c[j]), f = sigmoid(a[H + j] + p[H + j] * c[j]);
      cell[j] = f * c[j] + i * act(a[2 * H + j]);
      output[j] = sigmoid(a[3 * H + j] + p[2 * H + j] * cell[j]) * tanh(cell[j]);
    }
    return [output, cell];
  },

  "lstm-simple": (x, [, c], w, act) => combineGates(x, c, act, cell => cell),

  "lstm-norm"(x, [h, c], w, act) {
    const recurrent = normalize(w.weight_hh.multiply(h)), input = normalize(x);
    const a = input.map((value, j) => w.gain_hh[j] * recurrent[j] + w.gain_ih[j] * value + w.bias_hh[j]);
    const readNormalized = cell => normalize(cell).map((value, j) => tanh(w.gain_c[j] * value + w.bias_c[j]));
    return combineGates(a, c, act, readNormalized);
  },

  mlstm(x, [h, c], w, act) {
    const gateRows = 4 * h.length;
    const m = w.weight_hh.multiply(h, gateRows).map((value, j) => x[gateRows + j] * value);
    return combineGates(add(w.weight_hh.multiply(m, 0, gateRows), x.subarray(0, gateRows)), c, act);
  },

  gru(x, [h], w, act) {
    const a = add(w.weight_hh.multiply(h), w.bias_hh), H = h.length;
    return [h.map((value, j) => {
      const r = sigmoid(x[j] + a[j]), z = sigmoid(x[H + j] + a[H + j]), n = act(x[2 * H + j] + r * a[2 * H + j]);
      return n + z * (value - n);
    })];
  },

  "gru-cho"(x, [h], w, act) {
    const H = h.length, gates = add(w.weight_hh.multiply(h, 0, 2 * H), x.subarray(0, 2 * H)).map(sigmoid);
    const n = add(w.weight_hh.multiply(h.map((value, j) => gates[j] * value), 2 * H), x.subarray(2 * H)).map(act);
    return [h.map((value, j) => n[j] + gates[H + j] * (value - n[j]))];
  },
};

/* Return the state of an LSTM from the sums under its gates and its cell state. */
function combineGates(a, c, act, readCell = cell => cell.map(tanh)) {
  const H = c.length, cell = new Float32Array(H);
  for (let j = 0; j < H; j++) cell[j] = sigmoid(a[H + j]) * c[j] + sigmoid(a[j]) * act(a[2 * H + j]);
  return [readCell(cell).map((value, j) => sigmoid(a[3 * H + j]) * value), cell];
}

/* Shift and scale a vector to mean 0 and variance 1. */
function normalize(a) {
  const mean = a.reduce((sum, value) => sum + value, 0) / a.length;
  const variance = a.reduce((sum, value) => sum + (value - mean) ** 2, 0) / a.length, scale = Math.sqrt(variance + 1e-5);
  return a.map(value => (value - mean) / scale);
}
