"""Waiting for what another process does, on a machine however busy."""

from __future__ import annotations

import subprocess
import time
from typing import Callable

PATIENCE = 300
"""Seconds for what takes a moment on a machine that has nothing else to do."""


def wait_until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Returns when the condition holds. Fails when the process has ended before, or after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None or condition(), f"it ended: {process.communicate()}"
        assert time.monotonic() < deadline, f"not in {PATIENCE} s"
        time.sleep(0.005)
