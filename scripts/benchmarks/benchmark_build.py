#!/usr/bin/env python3
"""Times what building costs: the working tree beside another commit, in one run, without a compiler cache.

    scripts/benchmarks/benchmark_build.py 88dcf95                        clean builds of the release preset
    scripts/benchmarks/benchmark_build.py 88dcf95 --edits                and rebuilds after one edit, in the dev preset
    scripts/benchmarks/benchmark_build.py 88dcf95 --tests                and ctest and the Python tests of the release build
    scripts/benchmarks/benchmark_build.py 88dcf95 --only edits --keep FOLDER --parallel 1

Both trees are cloned into a folder of their own (HEAD of the working tree: uncommitted changes are not seen) and use the
same libtorch. Each figure is CPU seconds (user and system, of the build and all that it starts) and wall seconds; the last
column is new / old in CPU seconds. An edit adds a comment to the end of the file. Where a file has another path in the
other commit, it is found by its name.

Exit status: 0 measured; 2 could not (one line on stderr says why).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EDITED = ("src/trace/sweep_pass.cpp", "src/model/decoder.cpp", "include/rometrace/trace/trace.hpp")
PARTS = ("builds", "edits", "tests")


class BuildError(Exception):
    """Something that could not be built or run; the message is one line."""


@dataclass(frozen=True)
class Cost:
    """What a command took, with all processes that it started and waited for."""

    cpu: float
    """Seconds, user and system."""
    wall: float
    """Seconds."""


def run(command: list[str], tree: Path, log: Path, may_fail: bool = False) -> Cost:
    """Runs a command in a tree, its output in `log`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CCACHE", "CMAKE_"))}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("ab") as output:
        done = subprocess.run(command, cwd=tree, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0 and not may_fail:
        raise BuildError(f"{' '.join(command)} failed in {tree}; its output is in {log}")
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


class Tree:
    """A clone of one commit."""

    def __init__(self, name: str, commit: str, folder: Path, parallel: int) -> None:
        self.name, self.path, self.parallel = name, folder / name, parallel
        self.log = folder / f"{name}.log"
        if not self.path.exists():
            clone = ["git", "clone", "--quiet", "--no-checkout", str(REPOSITORY), str(self.path)]
            subprocess.run(clone, check=True)
            checkout = ["git", "checkout", "--quiet", commit]
            if subprocess.run(checkout, cwd=self.path, stderr=subprocess.DEVNULL, check=False).returncode != 0:
                raise BuildError(f"git knows no commit {commit}; expected one of this repository's")
        environment, link = REPOSITORY / ".venv", self.path / ".venv"
        if environment.exists() and not link.exists():
            link.symlink_to(environment.resolve())

    def configure(self, preset: str, clean: bool) -> None:
        if clean:
            shutil.rmtree(self.path / "build" / preset, ignore_errors=True)
        run(["cmake", "--preset", preset], self.path, self.log)

    def build(self, preset: str, target: str = "all") -> Cost:
        command = ["cmake", "--build", "--preset", preset, "--parallel", str(self.parallel), "--target", target]
        return run(command, self.path, self.log)

    def edit(self, path: str) -> None:
        place = self.path / path
        if not place.exists():
            found = sorted((self.path / path.split("/")[0]).rglob(Path(path).name))
            if len(found) != 1:
                raise BuildError(f"{place} is not there, nor one file of its name elsewhere")
            place = found[0]
        with place.open("a") as file:
            file.write(f"// edited at {time.time_ns()}\n")


def measure(trees: list[Tree], what: str, part) -> None:
    """Prints a row: what `part` takes in the old tree and in the new one."""
    old, new = (part(tree) for tree in trees)
    print(
        f"| {what} | {old.cpu:.0f} | {new.cpu:.0f} | {old.wall:.0f} | {new.wall:.0f} | {new.cpu / old.cpu:.2f} |",
        flush=True,
    )


def measure_builds(trees: list[Tree]) -> None:
    def program(tree: Tree) -> Cost:
        tree.configure("release", clean=True)
        return tree.build("release", "rometrace_cli")

    programs: dict[str, Cost] = {}

    def remembered(tree: Tree) -> Cost:
        programs[tree.name] = program(tree)
        return programs[tree.name]

    def everything(tree: Tree) -> Cost:
        rest = tree.build("release")
        return Cost(programs[tree.name].cpu + rest.cpu, programs[tree.name].wall + rest.wall)

    measure(trees, "program alone, clean, release preset", remembered)
    measure(trees, "everything, clean, release preset", everything)


def measure_edits(trees: list[Tree]) -> None:
    for preset in ("dev", "release"):
        for tree in trees:
            tree.configure(preset, clean=False)
            tree.build(preset)
        for path in EDITED:

            def rebuilt(tree: Tree) -> Cost:
                tree.edit(path)
                return tree.build(preset)

            measure(trees, f"one edit of {path}, {preset} preset", rebuilt)


def measure_tests(trees: list[Tree]) -> None:
    for tree in trees:
        tree.configure("release", clean=False)
        tree.build("release")
    measure(trees, "ctest", lambda tree: run(["ctest", "--preset", "release"], tree.path, tree.log, may_fail=True))

    def pytest(tree: Tree) -> Cost:
        command = [".venv/bin/python", "-m", "pytest", "tests/python", "-q", "-n", "2", "--dist", "loadfile"]
        return run(command, tree.path, tree.log, may_fail=True)

    measure(trees, "Python tests, two processes", pytest)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times builds of the working tree's HEAD beside another commit's.")
    parser.add_argument("commit", help="the other commit, the old one")
    parser.add_argument("--edits", action="store_true", help="also rebuilds after one edit")
    parser.add_argument("--tests", action="store_true", help="also the tests of the release build")
    parser.add_argument("--only", choices=PARTS, help="this part alone")
    parser.add_argument("--keep", type=Path, help="folder for the trees, kept and used again; default: one that goes")
    parser.add_argument("--parallel", type=int, default=os.cpu_count() or 1, help="compilers at once")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    parts = {arguments.only} if arguments.only else {"builds"}
    parts |= {part for part in ("edits", "tests") if getattr(arguments, part) and not arguments.only}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            commits = {"old": arguments.commit, "new": "HEAD"}
            trees = [Tree(name, commit, folder, arguments.parallel) for name, commit in commits.items()]
            print("| | old CPU s | new CPU s | old wall s | new wall s | new / old |\n|---|---|---|---|---|---|", flush=True)
            for part in PARTS:
                if part in parts:
                    {"builds": measure_builds, "edits": measure_edits, "tests": measure_tests}[part](trees)
        except (BuildError, subprocess.CalledProcessError) as error:
            print(f"benchmark_build.py: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
