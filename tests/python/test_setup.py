"""scripts/setup.sh against stand-ins for cmake, apt-get and pip: what it says, and what it leaves behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import stat
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

COUNTING = 'echo "[0/1] Re-checking"; '
COUNTING += 'for i in 1 2 3; do echo "[$i/3] Building CXX object part$i.o"; echo "warning: part$i"; sleep 1.3; done'
SAID = "rometrace setup: "
TIME = r"(?:\d+ min )?\d+ s"


class Tree:
    """A folder with a copy of setup.sh, and programs of ours before all others on the PATH."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder = folder
        self.log = folder / "build/setup.log"
        (folder / "scripts").mkdir()
        (folder / "bin").mkdir()
        shutil.copy(repository / "scripts/setup.sh", folder / "scripts")
        self.program("dpkg-query", "echo installed")
        self.program("sudo", '[[ $1 == -n ]] && shift; [[ $1 == -v ]] || exec "$@"')

    def program(self, name: str, script: str) -> None:
        """Puts a bash script in the place of a program."""
        path = self.folder / name if "/" in name else self.folder / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def builds_by(self, script: str) -> None:
        """`cmake --build` becomes this; `cmake --preset` only succeeds."""
        self.program("cmake", f'echo "cmake $*"; [[ $1 == --build ]] || exit 0\n{script}')

    def command(self, call: str) -> list[str]:
        return ["bash", "-c", f"set -euo pipefail; source scripts/setup.sh; {call}"]

    def environment(self) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "TREE": str(self.folder), "TERM": "xterm"}

    def run(self, call: str) -> subprocess.CompletedProcess[str]:
        """The call with its output in pipes."""
        return subprocess.run(
            self.command(call), cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=60
        )

    def start_on_terminal(self, call: str, columns: int = 80) -> tuple[subprocess.Popen[bytes], int]:
        """The call as what runs in the foreground of a terminal, and our end of that terminal."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            self.command(call),
            cwd=self.folder,
            env=self.environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        return process, ours

    def processes(self) -> list[str]:
        """Command lines of the processes that were started with our environment and still run."""
        mark = f"TREE={self.folder}".encode()
        found = []
        for process in Path("/proc").iterdir():
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except (FileNotFoundError, NotADirectoryError, PermissionError, ProcessLookupError):
                pass
        return found


@pytest.fixture
def tree(tmp_path: Path, repository: Path) -> Tree:
    return Tree(tmp_path, repository)


def read_terminal(ours: int, until: str | None = None) -> str:
    """What is written to a terminal, up to some words or to its end."""
    text = b""
    while until is None or until.encode() not in text:
        try:
            some = os.read(ours, 4096)
        except OSError:  # nobody has the other end any more
            break
        if not some:
            break
        text += some
    return text.decode().replace("\r\n", "\n")


def left_on_screen(text: str) -> list[str]:
    """The lines that are seen when all is written: "\\r\\x1b[K" begins a line anew."""
    return [line.split("\r\x1b[K")[-1] for line in text.removesuffix("\n").split("\n")]


def test_a_build_in_a_pipe_says_how_far_it_is_in_lines(tree):
    tree.builds_by(COUNTING)
    done = tree.run("report_every=1; build_targets all")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == SAID + "building"
    assert all(re.fullmatch(rf"{SAID}building, {TIME} \[[123]/3\]", line) for line in lines[1:-1]), lines
    assert len(lines) > 3
    assert re.fullmatch(rf"{SAID}building: done in {TIME}", lines[-1])
    assert "\r" not in done.stderr and "\x1b" not in done.stderr and done.stdout == ""
    log = tree.log.read_text()
    assert [line for line in log.splitlines() if "Building" in line] == [
        f"[{i}/3] Building CXX object part{i}.o" for i in (1, 2, 3)
    ]
    assert "cmake --build --preset release --parallel" in log and "--target all" in log


def test_a_line_a_minute_is_the_rule_in_a_pipe(tree):
    tree.builds_by(COUNTING)
    done = tree.run("echo every $report_every >&2; build_targets all")
    assert [line for line in done.stderr.splitlines() if "done in" not in line] == ["every 60", SAID + "building"]


def test_a_build_on_a_terminal_rewrites_one_line(tree):
    tree.builds_by(COUNTING)
    process, ours = tree.start_on_terminal("build_targets all")
    text = read_terminal(ours)
    assert process.wait() == 0, text
    states = re.findall(r"\r\x1b\[K([^\r\n]*)", text)
    counts = [state for state in states if re.fullmatch(rf"{SAID}building, {TIME} \[[123]/3\]", state)]
    assert len(set(counts)) > 1, states
    seen = left_on_screen(text)
    assert seen[0] == SAID + "building" and len(seen) == 2
    assert re.fullmatch(rf"{SAID}building: done in {TIME}", seen[1])
    assert tree.log.read_text().count("Building CXX") == 3


@pytest.mark.parametrize("columns", [0, 50, 80])
def test_the_line_is_rewritten_in_one_row_of_the_terminal(tree, columns):
    long = "long " * 60
    process, ours = tree.start_on_terminal(f"mkdir build; logged step bash -c 'echo {long}; sleep 2.5'", columns)
    text = read_terminal(ours)
    assert process.wait() == 0, text
    widest = max(len(state) for state in re.findall(r"\r\x1b\[K([^\r\n]*)", text))
    assert widest == (columns or 80) - 1


def test_a_step_that_counts_nothing_shows_its_last_line(tree):
    tree.program("dpkg-query", 'case "${@: -1}" in cmake | ninja-build) ;; *) echo installed ;; esac')
    tree.program("apt-get", 'echo "apt-get $*"; printf "Get:1 cm\\033[1make"; sleep 1.2; echo; sleep 2.5')
    tree.builds_by("")
    done = tree.run("report_every=1; build_targets all")
    assert done.returncode == 0, done.stderr
    assert SAID + "these Debian packages are missing: cmake ninja-build\n" in done.stderr
    for step in ("reading Debian's package lists", "installing Debian packages"):
        assert f"{SAID}{step}\n" in done.stderr
        assert re.search(rf"^{SAID}{step}, {TIME}: Get:1 cm\[1make$", done.stderr, re.MULTILINE), done.stderr
        assert re.search(rf"^{SAID}{step}: done in {TIME}$", done.stderr, re.MULTILINE)
    log = tree.log.read_text()
    assert "apt-get update" in log and "install -y --no-install-recommends cmake ninja-build" in log
    assert "Get:1 cm\x1b[1make\n" in log  # as it was, in one line


def test_python_packages_are_installed_once_for_each_version_of_their_list(tree):
    tree.program(".venv/bin/pip", 'echo "pip $*"; echo Downloading')
    wanted = tree.folder / "scripts/requirements.txt"
    wanted.write_text("# a comment\ntorch==1\n")
    call = f'mkdir -p build; install_python_packages "{wanted}"'
    first, second = tree.run(call), tree.run(call)
    assert (first.returncode, second.returncode, second.stderr) == (0, 0, "")
    assert first.stderr.splitlines()[0] == SAID + "these Python packages go into .venv, once: torch==1 "
    assert "pip install --disable-pip-version-check -r" in tree.log.read_text()
    wanted.write_text("torch==2\n")
    assert "torch==2" in tree.run(call).stderr


def test_a_build_that_fails_shows_the_end_of_the_log_and_where_it_is(tree):
    tree.builds_by('for i in {1..60}; do echo "[$i/60] step $i"; done; echo "error: no such thing" >&2; printf end; exit 1')
    done = tree.run("build_targets all; echo not reached >&2")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == SAID + "building"
    assert lines[1] == "[33/60] step 33" and lines[28:31] == ["[60/60] step 60", "error: no such thing", "end"]
    assert lines[-1].startswith(SAID + "this failed: cmake --build")
    assert lines[-1].endswith(f"(the whole log: {tree.log})")
    assert "[1/60] step 1\n" in tree.log.read_text()


def test_a_configuration_that_fails_shows_the_end_of_the_log(tree):
    tree.program("cmake", "echo CMake Error: no compiler; exit 1")
    done = tree.run("build_targets all")
    assert done.returncode == 2
    assert done.stderr == f"CMake Error: no compiler\n{SAID}cmake failed (the whole log: {tree.log})\n"


@pytest.mark.skipif(shutil.which("ninja") is None, reason="ninja is not there")
def test_ctrl_c_ends_the_build_with_all_its_compilers_and_releases_the_lock(tree):
    rule = "rule compile\n  command = sleep 300; touch $out\n"
    (tree.folder / "build.ninja").write_text(rule + "".join(f"build part{i}.o: compile\n" for i in range(4)))
    # As cmake does: it dies of Ctrl-C at once, whatever ninja still has to do.
    ninja = "import signal, subprocess; signal.signal(signal.SIGINT, signal.SIG_DFL); subprocess.call(['ninja', '-j2'])"
    tree.builds_by(f'cd "$TREE"; exec {sys.executable} -c "{ninja}"')
    process, ours = tree.start_on_terminal("build_targets all; echo not reached")
    deadline = time.monotonic() + 30
    while sum(command.startswith("sleep") for command in tree.processes()) < 2:
        assert time.monotonic() < deadline and process.poll() is None, tree.processes()
        time.sleep(0.1)
    os.write(ours, b"\x03")
    text = read_terminal(ours)
    assert process.wait(timeout=20) == 130
    assert left_on_screen(text)[-1] == SAID + "interrupted; the same command goes on from here"
    assert "not reached" not in text and "this failed" not in text
    assert tree.processes() == []
    with open(tree.folder / "build/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("cores, gib, jobs", [(8, 64, 8), (8, 5, 2), (8, 1, 1), (2, 3, 1), (1, 64, 1)])
def test_as_many_compilers_as_cores_and_memory_allow(tree, cores, gib, jobs):
    tree.program("getconf", f"echo {cores}")
    tree.program("awk", f"echo {gib}")
    done = tree.run("echo $job_gib $(parallel_jobs)")
    assert done.stdout.split() == ["2", str(jobs)]
