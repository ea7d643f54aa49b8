"""An installed tree works from wherever it is put."""

import json
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_process


def test_the_installed_program_finds_its_data_relative_to_itself(bin_dir: Path, tmp_path: Path) -> None:
    if not (bin_dir.parent / "cmake_install.cmake").exists():
        pytest.skip(f"{bin_dir.parent} is not a build folder of CMake")
    if not os.access(bin_dir.parent, os.W_OK):
        pytest.skip(f"CMake notes what it installs in {bin_dir.parent}, which cannot be written to")
    prefix = tmp_path / "somewhere else"
    subprocess.run(["cmake", "--install", bin_dir.parent, "--prefix", prefix], check=True, capture_output=True)
    link = tmp_path / "rometrace"
    link.symlink_to(prefix / "bin/rometrace")
    command = [link, "--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--kinds", "state", "--samples", "1"]
    # As many threads as there are cores, which conftest.py keeps other tests from.
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["name"] == "rometrace-demo"
