"""Fixtures: where things are, and how the executable is run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator

import jsonschema
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
for folder in ("scripts/python", "scripts/benchmarks", "scripts/demo", "tests/judge", "tests/fixtures", "tests/python"):
    sys.path.insert(0, str(REPOSITORY / folder))

# What is tested is small: threads would mostly wait for each other, the longer the busier the machine. For libtorch in
# this process, and for programs that are started without an environment of their own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a home to write to, matplotlib says on stderr where it keeps the fonts that it finds.
if not os.access(os.path.expanduser("~"), os.W_OK) and "MPLCONFIGDIR" not in os.environ:
    matplotlib_folder = tempfile.TemporaryDirectory(prefix="rometrace-matplotlib-")
    os.environ["MPLCONFIGDIR"] = matplotlib_folder.name

# Started in the background, a shell lets us ignore SIGINT, and so would the programs whose Ctrl-C is tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

from zygote import RUNNER  # noqa: E402

Rometrace = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_process: each run of the executable is a process of its own (zygote.py)")


def pytest_unconfigure() -> None:
    RUNNER.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    RUNNER.only_processes = item.get_closest_marker("real_process") is not None
    yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def bin_dir() -> Path:
    """The folder of the programs under test: $ROMETRACE_BIN_DIR, else the release preset's."""
    folder = Path(os.environ.get("ROMETRACE_BIN_DIR", REPOSITORY / "build/release/bin"))
    if not (folder / "rometrace").exists():
        pytest.fail(f"{folder}/rometrace is not there; build first: cmake --workflow --preset release")
    return folder


@pytest.fixture(scope="session")
def rometrace(bin_dir: Path) -> Rometrace:
    """rometrace(*arguments, **environment) runs the executable and gives its status, stdout and stderr."""

    def run(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if name != "ROMETRACE_MODEL"}
        command = [bin_dir / "rometrace", *arguments]
        return RUNNER.run(command, env=inherited | environment, encoding="utf-8", timeout=300)

    return run


@pytest.fixture(scope="session")
def traced(rometrace: Rometrace) -> Callable[..., dict[str, Any]]:
    """traced(*arguments) runs the executable, expects exit status 0, and gives the record that it wrote."""

    def run(*arguments: Any) -> dict[str, Any]:
        done = rometrace(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of models and facts beside the repository: $ROMETRACE_SHARED, else ../shared. Skips if absent."""
    folder = Path(os.environ.get("ROMETRACE_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


@pytest.fixture(scope="session")
def demo(repository: Path) -> Path:
    """The demo model's folder."""
    return repository / "share/rometrace/demo"


@pytest.fixture(scope="session")
def validate(repository: Path) -> Callable[[dict[str, Any]], None]:
    """validate(record) checks a record against the schema that it names."""
    schemas = {
        schema["$id"]: jsonschema.Draft202012Validator(schema)
        for path in (repository / "share/rometrace/schema").glob("*.json")
        if (schema := json.loads(path.read_text()))
    }
    return lambda record: schemas[record["schema"]].validate(record)


@pytest.fixture(scope="session")
def tool(bin_dir: Path) -> Path:
    """The program that tokenises the texts it is given."""
    path = bin_dir / "rometrace_tokenize"
    if not path.exists():
        pytest.skip(f"{path} is not there; build first: cmake --workflow --preset release")
    return path
