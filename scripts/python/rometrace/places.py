"""Where the parts of rometrace lie: in a checkout, in a tree that cmake --install made, or in a wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import rometrace

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parents[2]
"""The repository, where this package is <repository>/scripts/python/rometrace."""
PREPARED_PYTHON = CHECKOUT / ".venv/bin/python"
"""Of the virtual environment that scripts/rometrace makes there."""


def wheel_folder() -> Path | None:
    """The folder of the package that a wheel brought, with bin/rometrace in it; None in a checkout and in other trees.

    After an editable install it is not PACKAGE, which is then the checkout's.
    """
    folders = (Path(folder).resolve() for folder in rometrace.__path__)
    return next((folder for folder in folders if (folder / "bin/rometrace").is_file()), None)


def find_program() -> Path:
    """The rometrace executable: the one of the same installation; in a checkout the one built there, or else the script
    that builds it."""
    wheel = wheel_folder()
    if wheel is not None:
        return wheel / "bin/rometrace"
    installed = PACKAGE.parents[3] / "bin/rometrace"  # this package is <prefix>/share/rometrace/python/rometrace
    if PACKAGE.parts[-4:-1] == ("share", "rometrace", "python") and installed.is_file():
        return installed
    built = CHECKOUT / "build/release/bin/rometrace"
    return built if built.exists() else CHECKOUT / "scripts/rometrace"


def program_command() -> list[str]:
    """How the executable is started: in a wheel by the package, which tells the program where torch is."""
    return [sys.executable, "-m", "rometrace"] if wheel_folder() is not None else [str(find_program())]
