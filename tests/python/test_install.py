"""An installed tree works from wherever it is put: the program, the scripts, the library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_process

PROMPT = ("Miles Davis plays the", "Miles Davis")
TRACE = ("--prompt", PROMPT[0], "--subject", PROMPT[1], "--kinds", "state")


@pytest.fixture(scope="module")
def prefix(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the build tree has been installed."""
    build = bin_dir.parent
    if not (build / "cmake_install.cmake").exists():
        pytest.skip(f"{build} is not a build folder of CMake")
    if not os.access(build, os.W_OK):
        pytest.skip(f"CMake notes what it installs in {build}, which cannot be written to")
    prefix = tmp_path_factory.mktemp("install") / "somewhere else"
    done = subprocess.run(["cmake", "--install", build, "--prefix", prefix], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return prefix


def run(program: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """With the tests' own Python, which has matplotlib, as the python3 of the PATH."""
    command = [str(program), *map(str, arguments)]
    variables = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    variables.pop("OMP_NUM_THREADS", None)  # as many threads as there are cores, which conftest.py keeps other tests from
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300, check=False)


def test_the_installed_program_finds_its_data_relative_to_itself(prefix: Path, tmp_path: Path) -> None:
    link = tmp_path / "rometrace"
    link.symlink_to(prefix / "bin/rometrace")
    done = run(link, *TRACE, "--samples", 1, cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["name"] == "rometrace-demo"


def test_the_installed_scripts_draw_and_report_from_another_folder(prefix: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a study"
    folder.mkdir()
    facts = prefix / "share/rometrace/facts.json"
    done = run(prefix / "bin/rometrace", "--facts", facts, "--limit", 4, "--sever", "mlp,attn", "--samples", 1, "-q",
               "-o", "its results.jsonl", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run(prefix / "bin/rometrace-report", "its results.jsonl", "-o", "the page.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("rometrace-report: wrote 4 facts")
    assert "<h1>" in (folder / "the page.html").read_text()

    done = run(prefix / "bin/rometrace", "summary", "its results.jsonl", "--json", "-o", "summary.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    for name, source in {"trace": "its results.jsonl", "summary": "summary.json", "severed": "summary.json"}.items():
        choice = ["--record", 1] if name == "trace" else []
        done = run(prefix / f"bin/rometrace-plot-{name}", source, *choice, "-o", f"the {name}.png", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert (folder / f"the {name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["plot-trace", "plot-summary", "plot-severed", "plot-neurons", "plot-edit", "report"])
def test_the_installed_scripts_are_named_as_the_user_typed_them(prefix: Path, tmp_path: Path, name: str) -> None:
    link = tmp_path / f"rometrace-{name}"
    link.symlink_to(prefix / f"bin/rometrace-{name}")
    assert run(link, "--help", cwd=tmp_path).stdout.startswith(f"usage: rometrace-{name} ")
    done = run(link, "absent.json", "-o", "out.png", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"rometrace-{name}: ")


def test_the_commands_are_those_of_the_wheel(prefix: Path, repository: Path) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 and newer read TOML")
    commands = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["scripts"]
    assert sorted(path.name for path in (prefix / "bin").iterdir()) == sorted(commands)


def test_a_summary_is_pointed_to_the_installed_command(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"schema": "rometrace/summary/1"}')
    done = run(prefix / "bin/rometrace-plot-trace", "summary.json", "-o", "out.png", cwd=tmp_path)
    assert "; rometrace-plot-summary draws summaries" in done.stderr


def test_nothing_of_the_build_lies_in_what_is_installed(prefix: Path, repository: Path) -> None:
    """The tree can be moved to a machine without the sources, where libtorch lies in the same place."""
    for path in [*(prefix / "bin").glob("rometrace-*"), *(prefix / "lib").rglob("rometraceTargets*.cmake")]:
        assert str(repository) not in path.read_text(), path


# --- The library ------------------------------------------------------------------------------------------------


def configure(source: Path, build: Path, prefix: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["cmake", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_BUILD_TYPE=Release", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def torch_of(bin_dir: Path) -> str:
    """libtorch's folder, as the build tree's cache has it."""
    cache = (bin_dir.parent / "CMakeCache.txt").read_text()
    (library,) = [line.split("=", 1)[1] for line in cache.splitlines() if line.startswith("ROMETRACE_TORCH_CPU_LIBRARY:")]
    return str(Path(library).parents[1])


def test_the_example_is_built_against_the_installed_library_and_gives_the_programs_scores(
    prefix: Path, repository: Path, demo: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository / "docs/example", tmp_path / "example")  # away from the repository and its .venv
    done = configure(tmp_path / "example", tmp_path / "build", prefix)
    assert done.returncode == 0, done.stderr
    built = subprocess.run(["cmake", "--build", tmp_path / "build", "--verbose"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    compiling = next(line for line in built.stdout.splitlines() if "-c " in line and "trace_prompt.cpp" in line)
    assert "-Wconversion" not in compiling and "-Wshadow" not in compiling  # the project's own warnings
    assert str(repository / "include") not in compiling

    done = run(tmp_path / "build/trace_prompt", demo, *PROMPT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = json.loads(run(prefix / "bin/rometrace", *TRACE, "--noise", "0.25", "--model", demo, cwd=tmp_path).stdout)
    answer, *rows = done.stdout.splitlines()
    assert answer == f'answer " trumpet": {expected["high_score"]:.6f}, with the subject corrupted {expected["low_score"]:.6f}'
    effects = [[score - expected["low_score"] for score in row] for row in expected["grids"]["state"]["scores"]]
    assert [[float(number) for number in row.split()] for row in rows] == [pytest.approx(row, abs=1e-5) for row in effects]


def test_another_minor_version_of_libtorch_makes_the_library_not_found(
    prefix: Path, bin_dir: Path, repository: Path, tmp_path: Path
) -> None:
    """With what was found, what was expected and what to do; optional users of the library go on without it."""
    torch = Path(torch_of(bin_dir))
    other = tmp_path / "torch"
    (other / "include/torch/headeronly").mkdir(parents=True)
    (other / "include/ATen").mkdir()
    (other / "include/ATen/ATen.h").touch()
    (other / "include/torch/headeronly/version.h").write_text(
        "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 99\n#define TORCH_VERSION_PATCH 1\n"
    )
    os.symlink(torch / "lib", other / "lib")
    done = configure(repository / "docs/example", tmp_path / "build", prefix, f"-DROMETRACE_TORCH_ROOT={other}")
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert "found libtorch 2.99.1" in said and "-DROMETRACE_TORCH_ROOT" in said, done.stderr

    optional = tmp_path / "optional"
    optional.mkdir()
    (optional / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(optional LANGUAGES CXX)\nfind_package(rometrace QUIET)\n"
        "if(rometrace_FOUND)\n  message(FATAL_ERROR found)\nendif()\n"
    )
    done = configure(optional, tmp_path / "build-optional", prefix, f"-DROMETRACE_TORCH_ROOT={other}")
    assert done.returncode == 0, done.stderr
