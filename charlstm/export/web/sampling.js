/* From a prompt to a text: the vocabulary, the filters and one sample, as charlstm sample has them. */

class Vocabulary {
  constructor(model) {
    this.model = model;
    this.isByteLevel = model.level === "byte";
    this.characters = Array.from(model.characters);
    this.ids = new Map(this.characters.map((character, id) => [character, id]));
  }

  /* Return the symbols of a text, normalized as the training text was: its characters or bytes. */
  split(text) {
    if (this.isByteLevel) return [...new TextEncoder().encode(text)];
    const { normalize, lower, newlines } = this.model;
    if (normalize !== "none") text = text.normalize(normalize.toUpperCase());
    if (lower) text = text.toLowerCase();
    if (newlines === "lf") text = text.replaceAll("\r\n", "\n").replaceAll("\r", "\n");
    return Array.from(text);
  }

  /* Return the ids of a text, and the characters in it that the model has never seen. */
  encode(text) {
    const symbols = this.split(text);
    if (this.isByteLevel) return { ids: symbols, unknown: [] };
    const unknown = [...new Set(symbols.filter(symbol => !this.ids.has(symbol)))];
    return { ids: symbols.map(symbol => this.ids.get(symbol) ?? this.model.replacement), unknown };
  }

  /* Return the ids of a stop string, or null if the model never writes it. */
  encodeStop(text) {
    if (this.isByteLevel) return [...new TextEncoder().encode(text)];
    const ids = Array.from(text, character => this.ids.get(character));
    return ids.includes(undefined) ? null : ids;
  }

  /* Return the text of ids. decoder: keeps the bytes of a character that is not complete for the next call. */
  decode(ids, decoder = null) {
    const bytes = Uint8Array.from(this.isByteLevel ? ids.filter(id => id < 256) : []);
    if (this.isByteLevel) return decoder ? decoder.decode(bytes, { stream: true }) : new TextDecoder().decode(bytes);
    return ids.map(id => this.characters[id] ?? "").join("");
  }
}

/* Draw an id from logits. u: uniform in [0, 1). */
function drawId(logits, { temperature, topK, topP }, u) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  if (temperature === 0) return logits.indexOf(largest);
  const divisor = Math.fround(Math.max(temperature, 1e-30));
  let p = logits.map(logit => expNegative(Math.fround(Math.fround(logit - largest) / divisor)));
  if (topK && topK < p.length) {
    const least = Float32Array.from(p).sort()[p.length - topK];
    p = p.map(value => (value >= least ? value : 0));
  }
  if (topP < 1) p = keepNucleus(p, topP);
  const point = u * p.reduce((sum, value) => sum + value, 0);
  let sum = 0;
  return p.findIndex(value => (sum += value) > point);
}

/* Keep the fewest ids that together have at least this share. */
function keepNucleus(p, share) {
  const order = Array.from(p.keys()).sort((a, b) => p[b] - p[a] || a - b), kept = new Float32Array(p.length);
  const wanted = share * p.reduce((sum, value) => sum + value, 0);
  let before = 0;
  for (const id of order) {
    if (before >= wanted && before > 0) break;
    kept[id] = p[id];
    before += p[id];
  }
  return kept;
}

/* A text that is being written. The network reads the prompt, then draws one symbol at a step. */
class Sample {
  /* prompt: ids. options: temperature, topK, topP, length (0 is no limit), seed (a text), stops (lists of ids). */
  constructor(network, prompt, options) {
    Object.assign(this, { network, options, stopReason: "", written: [], held: 0, place: 0 });
    this.isBackward = network.model.direction === "backward";
    this.inputs = [network.model.bos, ...this.order(prompt)];
    this.stops = options.stops.map(stop => this.order(stop));
    this.random = new PythonRandom(options.seed);
    this.state = network.initialState();
  }

  /* Convert ids between the order of the text and that in which the network reads and writes. */
  order(ids) {
    return this.isBackward ? [...ids].reverse() : ids;
  }

  /* The ids that can be shown, in the order of the text: without a stop string, or what may be the start of one.
  from: how many are left out that were written first. */
  shown(from = 0) {
    return this.order(this.written.slice(from, this.written.length - this.held));
  }

  /* How many symbols can be shown; the end of a document is none. */
  get count() {
    return this.written.length - this.held - (this.stopReason === "document");
  }

  get isReading() {
    return this.place < this.inputs.length - 1;
  }

  /* Read a symbol of the prompt, or the last one that was drawn and draw the next. */
  step() {
    this.state = this.network.advance(this.inputs[this.place], this.state);
    if (this.isReading) {
      this.place++;
      return;
    }
    const logits = this.network.predict(this.state), { unknown, endOfDocument } = this.network.model;
    if (unknown !== null) logits[unknown] = -Infinity;
    const id = drawId(logits, this.options, this.random.random());
    this.inputs[this.place] = id;
    this.written.push(id);
    const found = this.stops.filter(stop => this.endsWith(stop, stop.length)).map(stop => stop.length);
    this.held = Math.max(0, ...(found.length ? found : this.stops.map(stop => this.countHeld(stop))));
    if (found.length) this.stopReason = "stop";
    else if (id === endOfDocument) this.stopReason = "document";
    else if (this.written.length === this.options.length) this.stopReason = "length";
    if (this.stopReason && !found.length) this.held = 0;
  }

  /* Continue a text that ended at its length. */
  extend(length) {
    this.options = { ...this.options, length: this.written.length + length };
    this.stopReason = "";
  }

  /* Return how many of the last symbols may be the start of a stop string. */
  countHeld(stop) {
    for (let n = stop.length - 1; n > 0; n--) if (this.endsWith(stop, n)) return n;
    return 0;
  }

  endsWith(stop, n) {
    const start = this.written.length - n;
    return start >= 0 && stop.slice(0, n).every((id, k) => this.written[start + k] === id);
  }
}
