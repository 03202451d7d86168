"""Pages in a browser without a window."""

from __future__ import annotations

import re
import shutil
import subprocess
from base64 import b64encode
from hashlib import sha256
from html import unescape
from pathlib import Path

THEMES = ("dark", "light")
"""As Chromium numbers them."""


def browse(page: str, script: str, libraries: tuple[str, ...] = (), theme: str = "light") -> dict[str, str]:
    """Open a page in a browser, run a script in it once it is ready, and return the dataset of its body.

    libraries: scripts that run first. A content security policy of the page allows these scripts, too.
    """
    browser = shutil.which("chromium")
    assert browser, "chromium is not installed"
    once = f"if (document.body.dataset.ready) {{ clearInterval(wait); {script} }}"
    scripts = [*libraries, f"const wait = setInterval(() => {{ {once} }}, 20)"]
    hashes = "".join(f" 'sha256-{b64encode(sha256(each.encode()).digest()).decode()}'" for each in scripts)
    page = page.replace("script-src ", f"script-src{hashes} ", 1)
    run = "".join(f"<script>{each}</script>" for each in scripts)
    Path("test.html").write_text(page.replace("</html>", f"{run}</html>"), "utf-8")
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--force-prefers-reduced-motion",
        f"--blink-settings=preferredColorScheme={THEMES.index(theme)}",
        "--virtual-time-budget=20000",
        "--dump-dom",
    )
    command = [browser, *options, f"file://{Path('test.html').absolute()}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    match = re.search(r"<body([^>]*)>", done.stdout)
    assert match
    return {name: unescape(value) for name, value in re.findall(r'data-([a-z-]+)="([^"]*)"', match[1])}
