"""Which torch the wheel is built for: the one of the Python that builds it.

As a program it prints torch's folder and version, a line each, for CMake; as scikit-build-core's provider of metadata it
makes the wheel depend on that minor version.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, Mapping

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts/python"))

from rometrace.launcher import minor_of, version_of  # noqa: E402


def find_torch() -> tuple[Path, str]:
    """The folder and version of torch, which is not imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"rometrace: {sys.executable} has no torch to build for; pip install torch, or build with isolation")
    folder = Path(spec.submodule_search_locations[0])
    return folder, version_of(folder)


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, list[str]]:
    """The field `dependencies`."""
    return {"dependencies": [f"torch=={minor_of(find_torch()[1])}.*"]}


def dynamic_wheel(settings: Mapping[str, Any]) -> dict[str, bool]:
    """The same source distribution can be built for another torch."""
    return {"dependencies": True}


if __name__ == "__main__":
    print(*find_torch(), sep="\n")
