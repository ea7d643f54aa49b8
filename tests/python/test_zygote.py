"""A fork of the zygote shows what the executable shows (tests/zygote.cpp, zygote.py)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator

import pytest

from batches import FACTS, REPOSITORY, environment
from records import make_record
from zygote import Runner, ZygoteDied

QUICK = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--kinds", "state", "--samples", "2")


@pytest.fixture(scope="module")
def started(bin_dir: Path) -> Iterator[Runner]:
    """One that the tests of this file share, with its zygote."""
    if not (bin_dir / "rometrace_zygote").exists():
        pytest.skip("there is no zygote: it is built on Linux only")
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture
def runner(started: Runner, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """The same, as if new, whatever the environment says of the tests of other files."""
    monkeypatch.delenv("ROMETRACE_TEST_ZYGOTE", raising=False)
    started.only_processes = False
    started.forks = started.processes = 0
    return started


def shown(done: subprocess.CompletedProcess[bytes]) -> tuple[int, bytes, bytes]:
    """All that is seen of a run but for times."""
    times = re.compile(rb'(?<="seconds":)[0-9.e-]+|[0-9.]+(?= s\b)')
    return done.returncode, times.sub(b"_", done.stdout), times.sub(b"_", done.stderr)


@pytest.mark.parametrize(
    "arguments, more",
    [
        (("--version",), {}),
        (("--help",), {}),
        (("summary", "--help"), {}),
        ((), {}),
        ((*QUICK, "-v"), {}),
        ((*QUICK, "--engine", "plain", "--threads", "2"), {}),
        ((*QUICK, "--json", "-o", "out.json"), {}),
        ((*QUICK, "--expect", " piano", "-q"), {}),
        (("--prompt", "Miles \udcff Davis", "--subject", "Miles"), {}),
        ((*QUICK, "-o", "/dev/full"), {}),
        (("--facts", "-", "--limit", "3", "--kinds", "state", "--samples", "2"), {"input": FACTS.read_bytes()}),
        (("summary", "-"), {"input": b"no results\n"}),
        (("models",), {"variables": {"HOME": "/nonexistent", "HF_HOME": "models"}}),
        (QUICK, {"variables": {"ROMETRACE_MODEL": "/nonexistent/\udcff"}}),
        (QUICK, {"variables": {"ROMETRACE_SHARE": "nowhere", "LC_ALL": "C"}}),
    ],
)
def test_a_fork_shows_what_the_executable_shows(
    runner: Runner, bin_dir: Path, tmp_path: Path, arguments: tuple[str, ...], more: dict[str, Any]
) -> None:
    seen = []
    for only_processes in (True, False):
        folder = tmp_path / str(only_processes)
        folder.mkdir()
        runner.only_processes = only_processes
        variables = environment(**more.get("variables", {}))
        done = runner.run([bin_dir / "rometrace", *arguments], env=variables, cwd=folder, input=more.get("input"))
        seen.append((shown(done), sorted(os.listdir(folder))))
    assert (runner.processes, runner.forks) == (1, 1)
    assert seen[0] == seen[1]


def test_many_runs_at_once_keep_to_themselves(runner: Runner, bin_dir: Path, tmp_path: Path) -> None:
    def run(number: int) -> str:
        prompt = ("--prompt", f"Miles Davis plays the {number}", "--subject", "Miles Davis", "-q")
        command = [bin_dir / "rometrace", *prompt, "--kinds", "state", "--samples", "1"]
        return runner.run(command, env=environment(), encoding="utf-8").stdout

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(run, range(24)))
    for number, text in enumerate(answers):
        assert f'"prompt":"Miles Davis plays the {number}"' in text.replace('": "', '":"')
    assert runner.forks == 24


def test_a_run_that_takes_too_long_is_killed(runner: Runner, bin_dir: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "facts.json"
    os.mkfifo(fifo)  # nobody ever writes to it
    with pytest.raises(subprocess.TimeoutExpired):
        runner.run([bin_dir / "rometrace", "--facts", fifo, "-o", tmp_path / "out"], env=environment(), timeout=1)
    assert runner.run([bin_dir / "rometrace", "--version"], env=environment()).returncode == 0


def test_the_death_of_the_zygote_is_told(runner: Runner, bin_dir: Path) -> None:
    runner = Runner()  # with a zygote to kill
    command = [bin_dir / "rometrace", "--version"]
    assert runner.run(command, env=environment()).returncode == 0
    (zygote,) = runner.zygotes.values()
    zygote.process.kill()
    zygote.process.wait()
    with pytest.raises(ZygoteDied, match="exit status: -9"):
        runner.run(command, env=environment())
    runner.close()


def test_what_a_fork_would_not_show_takes_a_process(
    runner: Runner, bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable = bin_dir / "rometrace"
    (tmp_path / "rometrace").symlink_to(executable)

    def reason(command: Path, **options: Any) -> str | None:
        return runner.reason_for_a_process([str(command)], {"env": environment()} | options)

    assert reason(executable) is None
    assert "environment" in reason(executable, env=environment(OMP_NUM_THREADS="2"))
    assert "environment" in reason(executable, env=environment(MALLOC_CONF="stats_print:true"))
    assert "environment" in reason(executable, env={})
    assert "process is changed" in reason(executable, preexec_fn=os.getpid)
    assert "another name" in reason(tmp_path / "rometrace")
    assert "another program" in reason(Path(sys.executable))
    runner.only_processes = True
    assert "real_process" in reason(executable)
    runner.only_processes = False
    monkeypatch.setenv("ROMETRACE_TEST_ZYGOTE", "0")
    assert "ROMETRACE_TEST_ZYGOTE" in reason(executable)


@pytest.mark.parametrize("value, status", [(make_record(), 0), ({"schema": "rometrace/trace/1"}, 2)])
def test_a_script_that_draws_does_the_same(runner: Runner, tmp_path: Path, value: dict[str, Any], status: int) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts/plot_trace.py"), "-o", "out.png", "--dpi", "40"]
    seen = []
    for runner.only_processes in (False, True):
        folder = tmp_path / str(runner.only_processes)
        folder.mkdir()
        done = runner.run(command, env=os.environ, cwd=folder, input=json.dumps(value).encode(), timeout=120)
        picture = [path.read_bytes() for path in folder.iterdir()]
        seen.append((done.returncode, done.stdout, done.stderr, picture))
    assert (runner.forks, runner.processes) == (1, 1)
    assert seen[0] == seen[1] and seen[0][0] == status
