"""The page of `charlstm export --html`: its content, and how it writes in a browser."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import charlstm as package
from charlstm.architecture import weight_shapes
from charlstm.config import CELL_NAMES, CardConfig, Config, DataConfig, Direction, ModelConfig, SamplingConfig
from charlstm.export.page import format_page_policy, render_writing_page
from charlstm.export.title import find_title
from charlstm.matrices import Array
from charlstm.sampling.generate import generate
from charlstm.sampling.network import Network
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary
from tests.support.browser import browse
from tests.support.command_line import assert_fails, charlstm
from tests.support.written_pages import read_script_element, read_settings, read_weights, with_page_weights

HOSTILE = "</script><img src=x onerror=document.body.dataset.hit=1><!--\x1b[31m{script}"

LETTERS = CharVocabulary("\n !abcdefghijklmnopqrstuvwxyzé中")


def make_model(vocabulary: Vocabulary = LETTERS, data: DataConfig = DataConfig(), **model: Any) -> ModelFile:
    """Return a model with random weights. Recurrent ones are small: with larger ones, rounding errors would grow."""
    config = Config(ModelConfig(**{"hidden": 20, "embedding": 7, **model}), data)
    random = np.random.default_rng(1)
    shapes = weight_shapes(config.model, vocabulary.size)
    spread = {name: 0.2 if "weight_h" in name else 0.5 for name in shapes}
    weights = {name: random.normal(0, spread[name], shape).astype("f") for name, shape in shapes.items()}
    return ModelFile(config, vocabulary, weights)


def test_the_page_names_the_model_its_metrics_and_the_version(run: Path) -> None:
    result = charlstm("export", "-m", run, "--html", "page.html")
    assert (result.code, result.text) == (0, "page.html\n")
    page = Path("page.html").read_text("utf-8")
    metrics = ModelFile.load(run / "best.safetensors").metrics["validation"]
    assert f"<h1>{run.name}</h1>" in page and f"<title>{run.name}</title>" in page
    assert f"{metrics['loss_nats']:.3f} nats per character" in page and f"({metrics['bpc']:.3f} bits)" in page
    assert f"charlstm {package.__version__}" in page
    assert "letters.txt, 40,000 characters" in page and str(run.parent) not in page
    assert charlstm("export", "-m", run, "--html", "-").text == page
    assert f"the page has {len(page.encode()):,} bytes; its 8-bit weights change the loss by" in result.err


def test_a_page_is_named_after_the_run_the_file_or_the_corpus_but_not_after_another_folder(run: Path) -> None:
    file = ModelFile.load(run / "best.safetensors")
    assert find_title(run / "best.safetensors", file) == run.name
    assert find_title(Path("home/ada/novel.safetensors"), file) == "novel"
    assert find_title(Path("home/ada/best.safetensors"), file) == "letters"
    assert find_title(Path("home/ada/best.safetensors"), make_model()) == "A model of text"


def test_the_page_asks_nothing_of_the_network() -> None:
    page = render_writing_page(make_model(), "model")
    page = page.replace(read_script_element(page, "weights"), "").replace(format_page_policy(), "")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<img|src=|fetch\(|XMLHttp", page)


def test_the_policy_of_the_page_allows_its_own_style_and_script_only() -> None:
    page = render_writing_page(make_model(), "model")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    hashes = [b64encode(sha256(each.encode()).digest()).decode() for each in (style, script)]
    assert format_page_policy() == (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert f'<meta http-equiv="Content-Security-Policy" content="{format_page_policy()}">' in page
    assert not re.search(r"\sstyle=|\son[a-z]+=", page.partition("<script")[0])


def test_a_page_of_an_lstm_of_512_units_is_smaller_than_2_mb() -> None:
    file = make_model(CharVocabulary("".join(map(chr, range(32, 132)))), hidden=512, embedding=64, bigrams=1024)
    assert len(render_writing_page(file, "model").encode()) < 2_000_000


@pytest.mark.parametrize("head", ["top", "tied"])
def test_the_weights_in_the_page_are_those_of_the_model_rounded(head: str) -> None:
    file = make_model(layers=2, head=head, bigrams=5)
    found = read_weights(render_writing_page(file, "model"))
    assert found.keys() == file.weights.keys()
    for name, weight in file.weights.items():
        if weight.ndim == 1:
            assert np.array_equal(found[name], weight)
            continue
        largest = 32767 if name in ("embedding.weight", "bigrams.weight", "layers.0.weight_ih") else 127
        step = np.abs(weight).max(1, keepdims=True) / largest
        assert (np.abs(found[name] - weight) <= 0.501 * step).all()


def hostile_page() -> str:
    """Return the page of a model whose path, corpus and vocabulary contain markup and ESC."""
    vocabulary = CharVocabulary("".join(sorted(set(HOSTILE))))
    path = Path("<img src=x onerror=document.body.dataset.hit=2>\x1b.safetensors")
    make_model(vocabulary, DataConfig(corpus=(HOSTILE.replace("/", ""),))).save(path)
    assert charlstm("export", "-m", path, "--html", "page.html").code == 0
    return Path("page.html").read_text("utf-8")


def test_markup_in_a_name_or_a_vocabulary_is_escaped() -> None:
    file = make_model()
    about = render_writing_page(replace(file, config=replace(file.config, card=CardConfig(about=HOSTILE))), "model")
    for page in (hostile_page(), about):
        assert page.count("</script>") == page.count("<script") == 3
        assert "<img" not in page and "\x1b" not in page and "<!--" not in page


def test_what_cannot_be_exported_is_reported_in_a_sentence(run: Path) -> None:
    assert_fails(charlstm("export", "-m", run), 2, "no format is named", "--html FILE")
    assert_fails(charlstm("export", "-m", "nowhere", "--html", "page.html"), 2, "no model at nowhere")
    assert_fails(charlstm("export", "-m", run, "--html", "no/folder/page.html"), 1, "no/folder/page.html")
    assert_fails(charlstm("export", "-m", run, "--html", "x", "--direction", "backward"), 2, "--direction backward")
    assert_fails(charlstm("export", "-m", run, "--html", "x", "--direction", "both"), 2, "one direction")
    assert_fails(charlstm("export", "-m", run, "--html", "-", "--onnx", "-"), 2, "two files", "stdout")
    assert_fails(charlstm("export", "-m", run, "--html", "."), 2, "--html writes a file")
    best = run / "best.safetensors"
    assert_fails(charlstm("export", "-m", run, "--html", best), 2, "would replace the model itself")
    Path("damaged.safetensors").write_bytes(b"\0" * 99)
    assert_fails(charlstm("export", "-m", "damaged.safetensors", "--html", "x"), 1, "not a charlstm model file")


def test_a_model_that_does_not_round_well_is_reported(run: Path) -> None:
    file = ModelFile.load(run / "best.safetensors")
    replace(file, metrics={**file.metrics, "quantization_loss_nats": 0.02}).save(Path("model.safetensors"))
    result = charlstm("export", "-m", "model.safetensors", "--html", "page.html")
    assert result.code == 0 and "change the loss by +0.02000 nats" in result.err and "warning" in result.err


@dataclass
class Case:
    """A model, and the direction in which its page writes."""

    file: ModelFile
    direction: Direction = "forward"

    def __post_init__(self) -> None:
        self.page = render_writing_page(self.file, "model", self.direction)
        half = with_page_weights(self.file.select_direction(self.direction), self.page)
        self.network = Network(half.config.model, half.weights, half.vocabulary.end_of_document)

    def predict(self, ids: Sequence[int]) -> Array:
        """Return the logits of NumPy after each of these ids, [T, V], with the weights of the page."""
        states, rows = self.network.initial_state(1), []
        for i in ids:
            logits, states = self.network.step(np.array([i]), states)
            rows.append(logits[0])
        return np.stack(rows)

    def generate(self, prompt: str, config: SamplingConfig, seed: int, stop: str) -> str:
        """Return what charlstm writes after (or before) a prompt with the weights of the page."""
        vocabulary = self.file.vocabulary
        fragments = generate(
            self.network,
            vocabulary,
            vocabulary.encode(prompt),
            config,
            seed=seed,
            stops=[stop] if stop else [],
            direction=self.direction,
        )
        return b"".join(fragment.text for fragment in fragments).decode("utf-8", "replace")


DOCUMENTS = CharVocabulary("\n abcdefghij", with_unknown=True, documents=True)

CASES = {
    **{cell: Case(make_model(cell=cell, layers=2)) for cell in CELL_NAMES},
    "three layers": Case(make_model(layers=3, head="all", between="highway")),
    "residual": Case(make_model(layers=3, between="residual", cell="gru", activation="softsign")),
    "tied": Case(make_model(head="tied")),
    "tied, without a projection": Case(make_model(head="tied", hidden=12, embedding=12)),
    "zoneout": Case(make_model(zoneout=0.2)),
    "bigrams": Case(make_model(bigrams=31)),
    "documents": Case(make_model(DOCUMENTS, DataConfig(document="line"), bigrams=31)),
    "bytes": Case(make_model(ByteVocabulary(), DataConfig(level="byte"))),
    "documents of bytes": Case(make_model(ByteVocabulary(documents=True), DataConfig(level="byte", document="file"))),
    "forward": Case(make_model(bidirectional=True)),
    "backward": Case(make_model(bidirectional=True), "backward"),
    "backward bytes": Case(make_model(ByteVocabulary(), DataConfig(level="byte"), bidirectional=True), "backward"),
}


def browse_cases(script: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run a function of a network, its vocabulary and an input in one page, for every case; return the results."""
    models = {name: {"model": read_settings(case.page), "input": inputs[name]} for name, case in CASES.items()}
    blocks = "".join(
        f'<script type="text/plain" id="weights-{k}">{read_script_element(case.page, "weights")}</script>'
        for k, case in enumerate(CASES.values())
    )
    page = CASES["lstm"].page.replace("</body>", f"{blocks}</body>")
    found = browse(
        page,
        f"(async () => {{ const results = {{}}, compute = {script}; let k = 0;"
        f"for (const [name, {{model, input}}] of Object.entries({json.dumps(models)})) {{"
        "const network = new Network(model, await readBytes('weights-' + k++));"
        "results[name] = compute(network, new Vocabulary(model), input);"
        "} document.body.dataset.results = JSON.stringify(results); })();",
    )
    results: dict[str, Any] = json.loads(found["results"])
    return results


@pytest.mark.programs
def test_in_a_browser_the_logits_are_those_of_numpy_on_the_same_weights() -> None:
    random = np.random.default_rng(2)
    ids = {name: random.integers(0, case.file.vocabulary.size, 100).tolist() for name, case in CASES.items()}
    script = (
        "(network, vocabulary, ids) => { let state = network.initialState(); return ids.map(id => {"
        "state = network.advance(id, state); return Array.from(network.predict(state)); }); }"
    )
    results = browse_cases(script, ids)
    for name, case in CASES.items():
        assert np.abs(np.array(results[name]) - case.predict(ids[name])).max() < 1e-4, name


SETTINGS = [
    (SamplingConfig(temperature=0.0, length=60), ""),
    (SamplingConfig(temperature=0.8, length=200), ""),
    (SamplingConfig(temperature=1.3, top_k=5, length=200), ""),
    (SamplingConfig(temperature=1.0, top_p=0.7, length=200), ""),
    (SamplingConfig(temperature=1.0, top_k=9, top_p=0.5, length=200), "a"),
    (SamplingConfig(temperature=1.0, length=400), "be"),
]


@pytest.mark.programs
def test_in_a_browser_the_text_of_a_seed_is_that_of_charlstm_with_the_same_weights() -> None:
    samples = [
        {
            "temperature": config.temperature,
            "topK": config.top_k,
            "topP": config.top_p,
            "length": config.length,
            "seed": f"{seed}/0",
            "stop": stop,
        }
        for seed, (config, stop) in enumerate(SETTINGS)
    ]
    script = (
        "(network, vocabulary, samples) => samples.map(({stop, ...options}) => {"
        "const stops = stop ? [vocabulary.encodeStop(stop)] : [];"
        "const sample = new Sample(network, vocabulary.encode('bad').ids, {...options, stops});"
        "while (!sample.stopReason) sample.step();"
        "return vocabulary.decode(sample.shown()); })"
    )
    results = browse_cases(script, dict.fromkeys(CASES, samples))
    for name, case in CASES.items():
        expected = [case.generate("bad", config, seed, stop) for seed, (config, stop) in enumerate(SETTINGS)]
        assert results[name] == expected, name


@pytest.mark.programs
def test_in_a_browser_random_numbers_are_those_of_python() -> None:
    seeds = ["0", "1/0", "4294967295/0", "9" * 130, "é"]
    found = browse(
        CASES["lstm"].page,
        f"document.body.dataset.numbers = JSON.stringify({json.dumps(seeds)}.map(seed => {{"
        "const random = new PythonRandom(seed); return Array.from({length: 700}, () => random.random()); }))",
    )
    expected = [[random.random() for _ in range(700)] for random in map(Random, seeds)]
    assert json.loads(found["numbers"]) == expected


PRESS = "const press = id => byId(id).click(); const set = (id, value) => { byId(id).value = value; };"


@pytest.mark.programs
def test_in_a_browser_a_text_is_written_continued_and_written_again_with_its_seed() -> None:
    found = browse(
        CASES["lstm"].page,
        PRESS
        + """
        const data = document.body.dataset, text = () => byId("text").textContent;
        const ended = () => new Promise(done => {
          const wait = setInterval(() => { if (!page.isWriting) { clearInterval(wait); done(); } }, 10);
        });
        (async () => {
          set("prompt", "bad q?é"); set("seed", "007"); set("length", "40"); set("pace", "0");
          press("write"); await ended();
          data.first = text(); data.status = byId("status").textContent; data.problem = byId("problem").textContent;
          press("continue"); await ended();
          data.longer = text();
          press("write"); await ended();
          data.again = text();
          byId("continue").focus(); set("pace", "1"); set("length", "1000"); press("continue");
          data.focus = document.activeElement.id;
          data.busy = byId("text").getAttribute("aria-busy"); data.button = byId("write").textContent;
          press("write");
          data.stopped = byId("status").textContent;
          set("length", ""); press("write");
          data.invalid = String(!page.isWriting && byId("more").open);
        })();
        """,
    )
    assert found["first"].startswith("bad q?é") and len(found["first"]) == len("bad q?é") + 40
    assert found["status"].startswith("40 characters") and found["status"].endswith("Seed 7.")
    assert found["problem"] == "The model has never seen ? and reads a space instead."
    assert found["longer"].startswith(found["first"]) and len(found["longer"]) == len(found["first"]) + 40
    assert found["again"] == found["first"]
    assert (found["busy"], found["button"], found["focus"]) == ("true", "Stop", "write")
    assert (found["stopped"], found["invalid"]) == ("Stopped. Seed 7.", "true")


@pytest.mark.programs
def test_in_a_browser_another_document_is_written_below_the_last_one() -> None:
    case = CASES["documents"]
    found = browse(
        case.page,
        PRESS
        + """
        set("prompt", "a"); set("seed", "5"); set("temperature", "1"); set("pace", "0"); set("length", "1000");
        (async () => {
          await page.write(); await page.continue(); await page.continue();
          document.body.dataset.texts = JSON.stringify(Array.from(byId("text").children, each => each.textContent));
          document.body.dataset.status = byId("status").textContent;
        })();
        """,
    )
    config, vocabulary = SamplingConfig(length=1000), case.file.vocabulary
    expected = dict.fromkeys(range(3), b"a")
    for fragment in generate(case.network, vocabulary, vocabulary.encode("a"), config, seed=5, n=3):
        expected[fragment.index] += fragment.text
    texts = json.loads(found["texts"])
    assert texts == [text.decode() for text in expected.values()]
    assert found["status"].startswith(f"{len(texts[-1]) - 1} characters, to the end of a text")


@pytest.mark.programs
def test_in_a_browser_nothing_in_a_name_or_a_vocabulary_runs() -> None:
    found = browse(
        hostile_page(),
        PRESS + "set('prompt', '<img src=x onerror=document.body.dataset.hit=3>'); set('pace', '0'); press('write');"
        "document.body.dataset.images = document.images.length;",
    )
    assert found["images"] == "0" and "hit" not in found


@pytest.mark.programs
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_barrier_on_the_page(theme: str) -> None:
    library = (files("axe_core_python") / "axe.min.js").read_text("utf-8")
    file = make_model()
    card = CardConfig(about="About the model.\nIn two lines.", license="MIT")
    page = render_writing_page(replace(file, config=replace(file.config, card=card)), "model")
    found = browse(
        page,
        PRESS + "byId('more').open = true; set('prompt', 'bad ?'); set('pace', '0'); set('stop', 'X');"
        "page.write().then(() => axe.run()).then(result => { const data = document.body.dataset;"
        "data.passes = result.passes.length; data.dark = matchMedia('(prefers-color-scheme: dark)').matches;"
        "data.violations = JSON.stringify(result.violations.map(each => [each.id, each.nodes[0].html])); });",
        libraries=(library,),
        theme=theme,
    )
    assert found["dark"] == str(theme == "dark").lower()
    assert json.loads(found["violations"]) == [] and int(found["passes"]) > 20
