"""Which modules a program imports."""

from __future__ import annotations

import subprocess
import sys


def loaded_modules_after(code: str) -> set[str]:
    """Return the top-level modules that a new interpreter has loaded after this code."""
    report = "import sys; print(*sorted({m.split('.')[0] for m in sys.modules}), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())
