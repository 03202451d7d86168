"""Pages of HTML: one file, which makes no network requests. Text that is inserted into a page is escaped."""

from __future__ import annotations

import html
import json
import re
import zlib
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256

from charlstm.console import escape_controls, escape_text


def fill_template(template: str, parts: Mapping[str, str]) -> str:
    """Return a template with each {name} of a part replaced. A part that contains {name} is inserted as it is."""
    names = re.compile("|".join(f"{{{name}}}" for name in parts))
    return names.sub(lambda match: parts[match[0][1:-1]], template)


def escape_line(text: str) -> str:
    """Return a text that can be in an element or an attribute, on one line and without control characters."""
    return html.escape(escape_controls(text))


def escape_prose(text: str) -> str:
    """Return a text that can be in an element. Line breaks are kept; other control characters are written out."""
    return html.escape(escape_text(text))


def escape_json(data: object) -> str:
    """Return JSON that can be in a script element: it cannot end the element, nor begin a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def compress_bytes(data: bytes) -> str:
    """Return bytes as base64, compressed by zlib: a browser has `DecompressionStream("deflate")` for it."""
    return b64encode(zlib.compress(data, 9)).decode("ascii")


def hash_source(content: str) -> str:
    """Return the source of a content security policy that allows this inline script or style."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
