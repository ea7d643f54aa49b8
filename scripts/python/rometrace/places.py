"""Where the parts of rometrace lie: in a checkout, in a tree that cmake --install made, or in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parents[2]
"""The repository, where this package is <repository>/scripts/python/rometrace."""
PREPARED_PYTHON = CHECKOUT / ".venv/bin/python"
"""Of the virtual environment that scripts/rometrace makes there."""


def find_program() -> Path:
    """The rometrace executable: the one built in this checkout, or else the script that builds it."""
    built = CHECKOUT / "build/release/bin/rometrace"
    return built if built.exists() else CHECKOUT / "scripts/rometrace"
