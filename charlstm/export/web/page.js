/* The page: controls, and the text that appears. */

const byId = id => document.getElementById(id);

const model = JSON.parse(byId("model").textContent);

const RUN_MS = 12, PAUSE_MS = 4;  // the network runs, then the browser has time to show the text

const CELL_PIXELS = 6;  // width and height of a state in the band

const MAX_SEED = 2 ** 32;

/* Return the bytes of a script element: base64, compressed. */
async function readBytes(id) {
  const compressed = Uint8Array.from(atob(byId(id).textContent), character => character.charCodeAt(0));
  const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/* Return the language of a vocabulary whose characters look different in Chinese, Japanese and Korean; else nothing. */
function guessLanguage(characters) {
  const scripts = { ja: /\p{Script=Hiragana}/u, ko: /\p{Script=Hangul}/u, zh: /\p{Script=Han}/u };
  return Object.keys(scripts).find(language => scripts[language].test(characters)) ?? "";
}

/* The states of the network as colors: a column for each character, a row for each of the first units. */
class Ribbon {
  constructor(canvas, palettes) {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    Object.assign(this, { canvas, palettes, dark, columns: [] });
    dark.addEventListener("change", () => this.draw());
    addEventListener("resize", () => this.draw());
  }

  clear() {
    this.columns = [];
    this.draw();
  }

  push(values) {
    this.columns.push(values);
    if (this.columns.length > 2000) this.columns.splice(0, 1000);
  }

  /* One pixel for each state; the style sheet enlarges them. */
  draw() {
    const { canvas, columns } = this;
    const width = Math.ceil(canvas.clientWidth / CELL_PIXELS), height = Math.ceil(canvas.clientHeight / CELL_PIXELS);
    if (!width || !height) return;
    const image = new ImageData(width, height), [low, , high] = this.palettes[this.dark.matches ? "dark" : "light"];
    columns.slice(-width).forEach((values, column) => {
      for (let row = 0; row < height; row++) {
        const value = values[row % values.length], place = 4 * (row * width + column);
        image.data.set(value > 0 ? high : low, place);
        image.data[place + 3] = 255 * Math.min(Math.abs(value), 1);
      }
    });
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
}

/* The texts on the page, one below the other: each is a prompt with what is written after it, or before it. */
class Sheet {
  constructor(element, isBackward, vocabulary) {
    Object.assign(this, { element, isBackward, vocabulary });
    element.classList.toggle("backward", isBackward);
  }

  clear() {
    this.element.replaceChildren();
  }

  /* Begin a text below the others. */
  begin(prompt) {
    const text = document.createElement("div"), given = document.createElement("span");
    this.written = document.createElement("span");
    this.written.className = "written";
    given.className = "prompt";
    given.textContent = prompt;
    text.dir = "auto";
    text.append(...(this.isBackward ? [this.written, given] : [given, this.written]));
    this.element.append(text);
    this.count = 0;
    this.decoder = new TextDecoder();
  }

  /* Show what a sample has written since the last time. */
  show(sample) {
    const ids = sample.shown(this.isBackward ? 0 : this.count);
    if (this.isBackward) this.written.textContent = this.vocabulary.decode(ids);
    else this.written.append(this.vocabulary.decode(ids, this.decoder));
    this.count = sample.written.length - sample.held;
  }

  toString() {
    return Array.from(this.element.children, text => text.textContent).join("\n");
  }
}

class Page {
  constructor(network) {
    const isBackward = model.direction === "backward";
    this.network = network;
    this.vocabulary = new Vocabulary(model);
    this.sheet = new Sheet(byId("text"), isBackward, this.vocabulary);
    this.ribbon = new Ribbon(byId("ribbon"), model.palettes);
    this.sample = null;
    this.run = 0;  // number of the current run; a run ends when another one begins
    if (isBackward) byId("prompt-label").textContent = "End with";
    byId("length").value = model.length;
    byId("prompt").lang = byId("stop").lang = byId("text").lang = guessLanguage(model.characters);
    byId("form").addEventListener("submit", event => {
      event.preventDefault();
      if (this.isWriting) this.stop();
      else this.write();
    });
    byId("continue").addEventListener("click", () => this.continue());
    byId("copy").addEventListener("click", () => this.copy());
    byId("temperature").addEventListener("input", () => this.showTemperature());
    byId("prompt").addEventListener("keydown", event => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
    });
    byId("form").addEventListener("invalid", () => { byId("more").open = true; }, true);
    addEventListener("keydown", event => {
      if (event.key === "Escape" && this.isWriting) this.stop();
    });
    this.showTemperature();
  }

  get isWriting() {
    return byId("text").classList.contains("writing");
  }

  showTemperature() {
    byId("temperature-value").value = byId("temperature").valueAsNumber.toFixed(2);
  }

  /* Write a text with the settings of the controls. */
  async write() {
    if (!byId("form").reportValidity()) return;
    this.seed = byId("seed").value ? String(BigInt(byId("seed").value)) : String(Math.floor(Math.random() * MAX_SEED));
    this.index = 0;
    this.sheet.clear();
    this.ribbon.clear();
    await this.begin();
  }

  /* Begin a text: another one if `index` is not 0. charlstm sample -n has the same seeds. */
  begin() {
    const prompt = byId("prompt").value, { ids, unknown } = this.vocabulary.encode(prompt);
    const stop = byId("stop").value, stopIds = stop && this.vocabulary.encodeStop(stop);
    this.report(unknown, stop && !stopIds);
    this.sample = new Sample(this.network, ids, {
      temperature: byId("temperature").valueAsNumber,
      topK: byId("top-k").valueAsNumber,
      topP: byId("top-p").valueAsNumber,
      length: byId("length").valueAsNumber,
      seed: this.seed + "/" + this.index,
      stops: stopIds ? [stopIds] : [],
    });
    this.sheet.begin(prompt);
    return this.runToEnd();
  }

  /* Write more of a text that is not at its end, or else another text. */
  async continue() {
    if (!byId("form").reportValidity()) return;
    if (this.isOpen) this.sample.extend(byId("length").valueAsNumber);
    else this.index++;
    await (this.isOpen ? this.runToEnd() : this.begin());
  }

  /* Whether the last text could go further. */
  get isOpen() {
    return ["", "length"].includes(this.sample.stopReason);
  }

  stop() {
    this.run++;
    this.setWriting(false);
    byId("status").textContent = "Stopped. Seed " + this.seed + ".";
  }

  /* Say what in the controls the model cannot follow. */
  report(unknown, neverStops) {
    const names = { "\n": "newline", "\t": "tab", " ": "space" };
    const named = unknown.slice(0, 8).map(each => names[each] ?? each).join(" ") + (unknown.length > 8 ? " …" : "");
    const problems = [];
    if (unknown.length) problems.push("The model has never seen " + named + " and reads " + this.replacementName + " instead.");
    if (neverStops) problems.push("The model never writes the text to stop before.");
    byId("problem").textContent = problems.join(" ");
  }

  /* What is read in place of a character that the model does not know. */
  get replacementName() {
    if (model.unknown !== null) return "a symbol for unknown characters";
    const character = Array.from(model.characters)[model.replacement];
    return { "\n": "a newline", "\t": "a tab", " ": "a space" }[character] ?? character;
  }

  /* Write until the sample ends, in short runs and at the chosen pace. */
  async runToEnd() {
    const run = ++this.run, sample = this.sample, before = sample.count, pace = Number(byId("pace").value);
    let began = null;
    this.setWriting(true);
    byId("status").textContent = "Writing";
    while (!sample.stopReason) {
      await new Promise(done => setTimeout(done, PAUSE_MS));
      if (run !== this.run) return;
      const now = performance.now();
      while (!sample.stopReason && performance.now() - now < RUN_MS) {
        if (!sample.isReading) {
          began ??= now;
          if (pace && (sample.count - before) / pace > (now - began) / 1000) break;
        }
        sample.step();
        this.ribbon.push(sample.state.headInput);
      }
      this.sheet.show(sample);
      this.ribbon.draw();
    }
    const seconds = (performance.now() - began) / 1000;
    this.setWriting(false);
    byId("status").textContent = this.describe(sample, sample.count - before, seconds);
  }

  describe(sample, count, seconds) {
    const symbols = this.vocabulary.isByteLevel ? " bytes" : " characters";
    const ends = { stop: ", before the text to stop at", document: ", to the end of a text", length: "" };
    const speed = seconds ? ", " + Math.round(count / seconds).toLocaleString("en") + " per second" : "";
    return count.toLocaleString("en") + symbols + ends[sample.stopReason] + speed + ". Seed " + this.seed + ".";
  }

  setWriting(isWriting) {
    const focused = document.activeElement;
    byId("text").classList.toggle("writing", isWriting);
    byId("text").setAttribute("aria-busy", String(isWriting));
    byId("write").textContent = isWriting ? "Stop" : "Write";
    byId("continue").textContent = this.isOpen ? "Continue" : "Another";
    byId("continue").hidden = isWriting;
    byId("copy").hidden = isWriting || !navigator.clipboard;  // only pages from https, localhost or a file have it
    if (focused.hidden) byId("write").focus();
  }

  async copy() {
    await navigator.clipboard.writeText(String(this.sheet));
    byId("status").textContent = "Copied.";
  }
}

let page;
readBytes("weights").then(bytes => {
  page = new Page(new Network(model, bytes));
  document.body.dataset.ready = "true";
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) page.write();
}).catch(error => {
  byId("problem").textContent = "This browser cannot run the model: " + error.message;
});
