"""The pages: of a model, which writes in the browser, and of all models and endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from urllib.parse import quote

from charlstm.export.page import render_writing_page
from charlstm.pages import escape_line, fill_template, hash_source
from charlstm.serving.models import ServedModel

HOME_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.6 system-ui, sans-serif; }
body { max-width: 42rem; margin: 3rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { padding: .9rem 1rem; overflow-x: auto; border: 1px solid color-mix(in srgb, currentColor 25%, transparent);
  border-radius: .5rem; }
table { border-collapse: collapse; } td { padding: .2rem 1rem .2rem 0; vertical-align: top; }
"""

HOME = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>charlstm</title>
<style>{style}</style>
<main>
<h1>charlstm</h1>
<p>This server writes text with character-level models.</p>
<h2>Models</h2>
<table>{models}</table>
<h2>Endpoints</h2>
<table>{endpoints}</table>
<h2>Try it</h2>
<pre tabindex="0">curl {url}/v1/completions -d '{"prompt": "The "}'</pre>
</main>
</html>
"""

ENDPOINTS = {
    "GET /v1/models": "the models",
    "POST /v1/completions": "continue a text, as OpenAI's API does",
    "POST /v1/chat/completions": "the same for clients that only chat",
    "POST /infill": "fill in at a cursor, as llama-server does",
    "POST /tokenize": "the tokens of a text, as vLLM has it",
    "GET /health": "whether the server is up",
}


def render_home(models: Mapping[str, ServedModel], url: str) -> str:
    """Return the page of all models and endpoints, as HTML with everything in it. `url` is that of the server."""
    links = ((f'<a href="/write/{quote(name)}">{escape_line(name)}</a>', model.title) for name, model in models.items())
    endpoints = ((escape_line(name), text) for name, text in ENDPOINTS.items())
    parts = {"models": format_rows(links), "endpoints": format_rows(endpoints), "url": escape_line(url)}
    return fill_template(HOME, {"style": HOME_STYLE, **parts})


def format_rows(rows: Iterable[tuple[str, str]]) -> str:
    """Return the rows of a table, each from the HTML of a name and a text."""
    return "".join(f"<tr><td><code>{name}</code><td>{escape_line(text)}" for name, text in rows)


@cache
def render_model_page(model: ServedModel) -> str:
    """Return the page on which a model writes. It does so in the browser: the page has the weights."""
    return render_writing_page(model.file, model.name)


HOME_POLICY = f"default-src 'none'; style-src {hash_source(HOME_STYLE)}; base-uri 'none'; form-action 'none'"
"""The content security policy of the page of all models."""
