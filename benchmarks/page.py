"""Characters per second of the page of `charlstm export --html`, and milliseconds until it can write.

    python benchmarks/page.py [--layers 1] [--hidden 512] [--rounds 5] [--browser chromium] [--json]

The page is served on this machine to a browser without a window, with random weights of the shape of a trained model.
It is loaded again for every round; the medians are printed, with the size of the page.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from base64 import b64encode
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from charlstm.architecture import weight_shapes
from charlstm.config import Config, ModelConfig
from charlstm.export.page import render_writing_page
from charlstm.storage.model import ModelFile
from charlstm.vocabulary import CharVocabulary

MEASURE = """
const wait = setInterval(() => {
  if (!document.body.dataset.ready) return;
  clearInterval(wait);
  const ready = performance.now();
  page.stop();
  const options = { temperature: 1, topK: 0, topP: 1, length: 0, seed: "1/0", stops: [] };
  const sample = new Sample(page.network, [], options), began = performance.now();
  while (performance.now() - began < 3000) sample.step();
  const rate = 1000 * sample.count / (performance.now() - began);
  fetch("/", { method: "POST", body: JSON.stringify({ ready_ms: ready, chars_per_second: rate }) });
}, 1);
"""


def render(layers: int, hidden: int) -> str:
    """Return a page of a random LSTM over 100 characters, which measures itself."""
    config = Config(ModelConfig(layers=layers, hidden=hidden))
    vocabulary = CharVocabulary("".join(map(chr, range(32, 132))))
    random = np.random.default_rng(1)
    shapes = weight_shapes(config.model, vocabulary.size)
    weights = {name: 0.05 * random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    page = render_writing_page(ModelFile(config, vocabulary, weights), "random")
    digest = b64encode(sha256(MEASURE.encode()).digest()).decode()
    page = page.replace("script-src ", f"connect-src 'self'; script-src 'sha256-{digest}' ", 1)
    return page.replace("</html>", f"<script>{MEASURE}</script></html>")


def measure(page: str, browser: str) -> dict[str, float]:
    """Open the page in a browser and return what it measures."""
    results: list[dict[str, float]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(page.encode() if self.path == "/" else b"")

        def do_POST(self) -> None:
            results.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(b"")

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        HTTPServer(("127.0.0.1", 0), Handler) as server,
    ):
        server.timeout, deadline = 1, perf_counter() + 60
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
        command = [browser, *flags, f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while not results and perf_counter() < deadline:
                server.handle_request()
            process.terminate()
    if not results:
        sys.exit(f"{browser} reported nothing within a minute")
    return results[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    options = parser.parse_args()
    page = render(options.layers, options.hidden)
    rounds = [measure(page, options.browser) for _ in range(options.rounds)]
    found = {key: round(median(each[key] for each in rounds), 1) for key in rounds[0]}
    found = {"layers": options.layers, "hidden": options.hidden, "page_bytes": len(page.encode()), **found}
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{key:<18}{value:>12,}" for key, value in found.items()))


if __name__ == "__main__":
    main()
