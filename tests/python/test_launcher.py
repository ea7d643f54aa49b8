"""The wheel's command rometrace becomes the program beside it, with the torch of the same environment. A wheel's tree is
made here, with a script in the program's place."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# What it was given, and what of it was its own: its process, the signals that it ignores, where it looks for libraries.
PROGRAM = """#!/bin/sh
printf '%s|' "$@"
echo "LD_LIBRARY_PATH=$LD_LIBRARY_PATH|SSL_CERT_FILE=$SSL_CERT_FILE|PID=$$"
grep SigIgn /proc/$$/status
exit 7
"""


@pytest.fixture
def site(tmp_path: Path, repository: Path) -> Path:
    """A folder as site-packages is after the wheel's installation, built with torch 2.13.0, without torch."""
    site = tmp_path / "site packages"
    shutil.copytree(repository / "scripts/python/rometrace", site / "rometrace", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "rometrace/torch_version.txt").write_text("2.13.0\n")
    program = site / "rometrace/bin/rometrace"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return site


def make_torch(site: Path, version: str) -> Path:
    """A torch whose import would fail."""
    (site / "torch/lib").mkdir(parents=True)
    (site / "torch/__init__.py").write_text("raise SystemExit('torch was imported')\n")
    (site / "torch/version.py").write_text(f"from typing import Optional\n\n__version__ = '{version}'\ncuda: Optional[str] = None\n")
    return site / "torch"


def command(*folders: Path, python: tuple[str, ...] = ()) -> list[str]:
    """The command, with these folders as Python's path; -S keeps the torch of the tests' own environment away."""
    code = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}; from rometrace.launcher import main; sys.exit(main())"
    return [sys.executable, "-S", *python, "-c", code]


def run(*arguments: str, at: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LD_", "SSL_", "CURL_", "PYTHON"))}
    return subprocess.run([*at, *arguments], capture_output=True, text=True, env=inherited | environment, check=False)


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2 and done.stdout == "", (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("rometrace: "), done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_arguments_and_exit_status_are_the_programs(site: Path) -> None:
    make_torch(site, "2.13.1+cpu")
    done = run("--prompt", "It's  a\n$HOME", "", at=command(site))
    assert done.stderr == ""
    assert done.returncode == 7
    assert done.stdout.startswith("--prompt|It's  a\n$HOME||LD_LIBRARY_PATH=|")


def test_the_process_is_the_programs_and_ignores_no_signal_that_python_ignores(site: Path) -> None:
    make_torch(site, "2.13.0")
    started = subprocess.Popen(command(site), stdout=subprocess.PIPE, text=True)
    written, _ = started.communicate(timeout=60)
    assert f"PID={started.pid}" in written
    ignored = int(written.split("SigIgn:")[1].split()[0], 16)
    assert not any(ignored >> (number - 1) & 1 for number in (signal.SIGPIPE, signal.SIGXFSZ)), written


def test_torch_elsewhere_on_pythons_path_is_named_to_the_program(site: Path, tmp_path: Path) -> None:
    torch = make_torch(tmp_path / "system", "2.13.2+cu130")
    done = run(at=command(site, tmp_path / "system"), LD_LIBRARY_PATH="/opt/lib")
    assert f"LD_LIBRARY_PATH={torch}/lib:/opt/lib|" in done.stdout, done.stderr
    done = run(at=command(site, tmp_path / "system"))
    assert f"LD_LIBRARY_PATH={torch}/lib|" in done.stdout, done.stderr


def test_torch_beside_the_package_counts_before_another(site: Path, tmp_path: Path) -> None:
    """As the program, too, looks there first."""
    make_torch(tmp_path / "system", "2.12.0")
    make_torch(site, "2.13.0")
    done = run(at=command(tmp_path / "system", site))
    assert done.returncode == 7 and "LD_LIBRARY_PATH=|" in done.stdout, done.stderr


def test_without_torch_a_line_says_how_to_get_one(site: Path) -> None:
    assert_refused(run("--help", at=command(site)), "torch is not installed", sys.executable, "pip install 'torch==2.13.*'")


@pytest.mark.parametrize("version", ["2.12.1", "2.14.0+cpu", "3.13.0"])
def test_another_minor_version_of_torch_is_refused_in_a_line(site: Path, version: str) -> None:
    torch = make_torch(site, version)
    assert_refused(run(at=command(site)), f"{torch} is torch {version}, expected 2.13", "pip install 'torch==2.13.*'")


def test_a_torch_that_does_not_say_its_version_is_refused(site: Path) -> None:
    (make_torch(site, "2.13.0") / "version.py").unlink()
    assert_refused(run(at=command(site)), "of an unknown version, expected 2.13")


def test_a_program_that_cannot_be_run_is_told_in_a_line(site: Path) -> None:
    make_torch(site, "2.13.0")
    (site / "rometrace/bin/rometrace").chmod(0o644)
    assert_refused(run(at=command(site)), "bin/rometrace cannot be run (Permission denied)")


def test_torch_is_not_imported_and_little_else(site: Path) -> None:
    """The fake torch ends Python when it is imported; matplotlib and json have no place here either."""
    make_torch(site, "2.13.0")
    done = run(at=command(site, python=("-X", "importtime")))
    assert done.returncode == 7
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "rometrace.launcher" in imported
    assert not imported & {"torch", "matplotlib", "numpy", "json", "subprocess"}


def test_certificates_are_named_where_they_are_not_in_debians_place(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rometrace import launcher

    for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    debian, fedora = tmp_path / "ca-certificates.crt", tmp_path / "ca-bundle.crt"
    monkeypatch.setattr(launcher, "CERTIFICATES", (str(debian), str(fedora)))
    assert launcher.certificate_settings() == {}
    fedora.touch()
    assert launcher.certificate_settings() == {"SSL_CERT_FILE": str(fedora)}
    monkeypatch.setenv("SSL_CERT_DIR", "/etc/mine")
    assert launcher.certificate_settings() == {}
    monkeypatch.delenv("SSL_CERT_DIR")
    debian.touch()
    assert launcher.certificate_settings() == {}


def test_the_commands_that_it_runs_are_named_as_in_the_installation(site: Path, tmp_path: Path) -> None:
    """rometrace-report asks the program for averages by way of the launcher."""
    code = f"import sys; sys.path[:0] = [{str(site)!r}]; from rometrace.places import program_command; print(*program_command(), sep='\\n')"
    done = run(at=[sys.executable, "-c", code])
    assert done.stdout.splitlines() == [sys.executable, "-m", "rometrace"]


# --- What the wheel is built with -------------------------------------------------------------------------------


def test_the_wheel_asks_for_the_minor_version_of_the_torch_of_the_python_that_builds_it(repository: Path, tmp_path: Path) -> None:
    torch = make_torch(tmp_path, "2.11.3+cpu")
    script = repository / "cmake/wheel/torch_pin.py"
    asking = f"import sys; sys.path[:0] = [{str(script.parent)!r}]; import torch_pin; print(torch_pin.dynamic_metadata({{}}, {{}}))"
    found = []
    for command in ([script], ["-c", asking]):
        path = {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run([sys.executable, "-S", *command], env=path, capture_output=True, text=True, check=True)
        found.append(done.stdout)
    assert found == [f"{torch}\n2.11.3+cpu\n", "{'dependencies': ['torch==2.11.*']}\n"]


def test_all_places_that_pin_torch_pin_the_same(repository: Path) -> None:
    places = ["pyproject.toml", "scripts/requirements.txt", "scripts/wheel/requirements.txt", "tests/requirements.txt"]
    pins = {place: re.findall(r"^[^#]*\btorch==([\d.]+)", (repository / place).read_text(), re.MULTILINE) for place in places}
    assert len({tuple(pin) for pin in pins.values()}) == 1 and all(len(pin) == 1 for pin in pins.values()), pins
