"""The pages: of a model, which writes in the browser, and of all models and endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from urllib.parse import quote

from charlstm.export.page import read_style, render_writing_page
from charlstm.pages import escape_line, fill_template, hash_source
from charlstm.serving.models import ServedModel

HOME_STYLE = """
main { padding-bottom: 2rem; }
h2 { margin: 2rem 0 .5rem; padding-top: 1.1rem; border-top: 1px solid var(--line); font: 400 1.3rem/1.3 var(--text); }
a { color: var(--accent); }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { padding: .9rem 1rem; overflow-x: auto; background: var(--sheet);
  border: 1px solid var(--edge); border-radius: .4rem; }
table { border-collapse: collapse; }
td { padding: .2rem 1rem .2rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; }
td + td { color: var(--soft); }
@media (max-width: 34rem) {
  td { display: block; }
  td:first-child { padding-bottom: 0; white-space: normal; overflow-wrap: anywhere; }
}
"""
"""What the page of all models has besides the style of the page on which a model writes."""

HOME = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>charlstm</title>
<style>{style}</style>
<main>
<header>
<h1>charlstm</h1>
<p class="about">This server writes text with character-level models.</p>
</header>
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
    "GET /": "the page on which the model writes; this page if there are several models",
    "GET /write/NAME": "the page on which the model of this name writes",
    "GET /models": "this page",
    "GET /v1/models": "the models",
    "POST /v1/completions": "continue a text, as OpenAI's API does",
    "POST /v1/chat/completions": "the same for clients that only chat",
    "POST /infill": "fill in at a cursor, as llama-server does",
    "POST /tokenize": "the tokens of a text, as vLLM has it; /detokenize and GET /tokenizer_info go with it",
    "GET /health": "whether the server is up",
}


def render_home(models: Mapping[str, ServedModel], url: str) -> str:
    """Return the page of all models and endpoints, as HTML with everything in it. `url` is that of the server."""
    links = ((f'<a href="/write/{quote(name)}">{escape_line(name)}</a>', model.title) for name, model in models.items())
    endpoints = ((escape_line(name), text) for name, text in ENDPOINTS.items())
    parts = {"models": format_rows(links), "endpoints": format_rows(endpoints), "url": escape_line(url)}
    return fill_template(HOME, {"style": style_home(), **parts})


def format_rows(rows: Iterable[tuple[str, str]]) -> str:
    """Return the rows of a table, each from the HTML of a name and a text."""
    return "".join(f"<tr><td><code>{name}</code><td>{escape_line(text)}" for name, text in rows)


@cache
def render_model_page(model: ServedModel) -> str:
    """Return the page on which a model writes. It does so in the browser: the page has the weights."""
    return render_writing_page(model.file, model.name)


@cache
def style_home() -> str:
    """Return the style of the page of all models."""
    return read_style() + HOME_STYLE


def format_home_policy() -> str:
    """Return the content security policy of the page of all models."""
    return f"default-src 'none'; style-src {hash_source(style_home())}; base-uri 'none'; form-action 'none'"
