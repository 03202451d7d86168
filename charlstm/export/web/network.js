/* The network of charlstm/sampling/network.py with the weights of the page: an id in, logits out. */

const MAX_PROJECTIONS = 4096;  // stored input projections of characters or pairs

const BIGRAM_FACTOR = 1000003;

class Network {
  /* model: settings and a table of weights. bytes: the weights. */
  constructor(model, bytes) {
    Object.assign(this, { model, bytes });
    this.cell = CELLS[model.cell];
    this.act = { tanh, softsign }[model.activation];
    this.embedding = this.read("embedding.weight");
    this.bigrams = this.read("bigrams.weight");
    this.layers = Array.from({ length: model.layers }, (_, k) => this.readGroup("layers." + k + "."));
    this.highways = this.layers.map((_, k) => this.readGroup("highways." + k + "."));
    this.head = { bias: this.read("head.bias"), projection: this.read("projection.weight") };
    this.head.weight = model.head === "tied" ? this.embedding : this.read("head.weight");
    this.projections = new Map();
  }

  /* Return the weights whose names begin so, by the rest of their names. */
  readGroup(prefix) {
    const names = Object.keys(this.model.weights).filter(name => name.startsWith(prefix));
    return Object.fromEntries(names.map(name => [name.slice(prefix.length), this.read(name)]));
  }

  /* Return a weight, a Float32Array or a Matrix; null if the model does not have it. */
  read(name) {
    const entry = this.model.weights[name];
    if (!entry) return null;
    const { at, rows, columns } = entry, size = rows * columns;
    if (!entry.bytes) return this.readFloats(at, size);
    const scales = this.readFloats(at, rows), start = at + 4 * rows, values = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      let integer = this.bytes[start + i] << 24 >> 24;  // with its sign
      if (entry.bytes === 2) integer = 256 * integer + this.bytes[start + size + i];
      values[i] = integer * scales[Math.floor(i / columns)];
    }
    return new Matrix(values, columns);
  }

  readFloats(at, length) {
    return new Float32Array(this.bytes.slice(at, at + 4 * length).buffer);
  }

  /* Return the state before a text: that of each layer, and the last id plus 1. */
  initialState() {
    const zeros = new Float32Array(this.model.hidden);
    return { layers: this.layers.map(() => Array(this.model.states).fill(zeros)), before: 0 };
  }

  /* Read an id. Return the state after it, with the input of the head. */
  advance(id, state) {
    if (id === this.model.endOfDocument) state = this.initialState();
    const layers = [], outputs = [];
    let x = this.projectInput(id, state.before);
    for (let k = 0; k < this.layers.length; k++) {
      const w = this.layers[k], old = state.layers[k], zoneout = this.model.zoneout;
      if (k) x = add(w.weight_ih.multiply(outputs[k - 1]), w.bias_ih);
      let after = this.cell(x, old, w, this.act);
      if (zoneout) after = after.map((part, n) => part.map((value, j) => value + zoneout * (old[n][j] - value)));
      layers.push(after);
      outputs.push(k ? this.combine(k, outputs[k - 1], after[0]) : after[0]);
    }
    const headInput = this.model.head === "all" ? Float32Array.from(outputs.flatMap(y => [...y])) : outputs.at(-1);
    return { layers, before: id + 1, headInput };
  }

  /* Return the logits of the next id. */
  predict(state) {
    const { weight, bias, projection } = this.head, x = state.headInput;
    return add(weight.multiply(projection ? projection.multiply(x) : x), bias);
  }

  /* Return the input of layer k + 1 from the input and output of layer k. */
  combine(k, u, y) {
    if (this.model.between === "residual") return add(u, y);
    if (this.model.between !== "highway") return y;
    const { weight, bias } = this.highways[k], gate = add(weight.multiply(u), bias).map(sigmoid);
    return u.map((value, j) => value + gate[j] * (y[j] - value));
  }

  /* Return the first layer's input projection of an id, or of a pair of ids: computed once, then looked up. */
  projectInput(id, before) {
    const key = this.bigrams ? before * this.embedding.rows + id : id;
    let projected = this.projections.get(key);
    if (!projected) {
      const { weight_ih, bias_ih } = this.layers[0];
      projected = add(weight_ih.multiply(this.embed(id, before)), bias_ih);
      if (this.projections.size >= MAX_PROJECTIONS) this.projections.clear();
      this.projections.set(key, projected);
    }
    return projected;
  }

  /* Return the embedding of an id, plus that of its pair with the one before. */
  embed(id, before) {
    const own = this.embedding.row(id);
    if (!this.bigrams || !before) return own;
    return add(own, this.bigrams.row((before * BIGRAM_FACTOR + id) % this.bigrams.rows));
  }
}
