"""The virtual environment that scripts/rometrace and scripts/test make in a checkout."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from rometrace.places import PREPARED_PYTHON


def go_on_with(package: str) -> None:
    """Starts this program again in that environment, if this Python does not have the package."""
    if importlib.util.find_spec(package):
        return
    if PREPARED_PYTHON.exists() and Path(sys.prefix) != PREPARED_PYTHON.parent.parent:
        os.execv(PREPARED_PYTHON, [str(PREPARED_PYTHON), *sys.argv])
