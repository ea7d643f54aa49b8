"""Weights that are cut short under a run, and a Ctrl-C while weights are read: one line, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from batches import FACTS, command, environment, finished, refused, run, without_times
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.real_process


@pytest.fixture
def model(demo: Path, tmp_path: Path) -> Path:
    """A copy of the demo model, to be cut."""
    return Path(shutil.copytree(demo, tmp_path / "model"))


@pytest.fixture
def executable(bin_dir: Path) -> Path:
    return bin_dir / "rometrace"


def batch(executable: Path, output: Path | str, *options: object, limit: int) -> list[str]:
    arguments = command(executable, output, limit=limit)
    place = arguments.index("--samples")
    return arguments[:place] + arguments[place + 2 :] + [str(option) for option in options]


def start(arguments: list[object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    )


def lines_of(output: Path) -> int:
    return output.read_bytes().count(b"\n") if output.exists() else 0


def test_a_batch_whose_weights_are_cut_ends_with_one_line_and_goes_on_when_they_are_whole(
    executable: Path, model: Path, tmp_path: Path
) -> None:
    weights, output = model / "model.safetensors", tmp_path / "results.jsonl"
    whole = weights.read_bytes()
    arguments = batch(executable, output, "--model", model, "--samples", 20, limit=60)
    process = start(arguments)
    wait_until(lambda: lines_of(output) > 2, process)
    os.truncate(weights, 1000)
    error = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 2, error
    assert error.count("\n") == 1 and error.startswith(f"rometrace: {weights}: "), error
    assert "cut short while it was used" in error
    assert '"failed"' not in output.read_text()
    weights.write_bytes(whole)
    finished(run(arguments))
    other = tmp_path / "other.jsonl"
    finished(run(batch(executable, other, "--model", model, "--samples", 20, limit=60)))
    assert without_times(output.read_bytes()) == without_times(other.read_bytes())


def test_so_does_a_trace_that_reads_the_file_s_own_memory(executable: Path, model: Path, tmp_path: Path) -> None:
    """The gradient's backwards read the mapped file, so that no check can come before each."""
    weights, output = model / "model.safetensors", tmp_path / "trace.json"
    arguments = [executable, "--model", model, "--prompt", "Miles Davis plays the", "--subject", "Miles Davis"]
    arguments += ["--noise", "0.25", "--engine", "gradient", "--samples", "100000", "-o", output, "-v"]
    process = start(arguments)
    heard = ""
    while "parameters loaded" not in heard:
        heard += process.stderr.readline()
    time.sleep(1)  # until it reads the layers again and again; whenever it is, the end is the same
    os.truncate(weights, 5000)
    error = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 2, error
    (line,) = (line for line in error.splitlines() if str(weights) in line)
    assert line.startswith(f"rometrace: {weights}: ") and "cut short while it was used" in line
    assert not output.exists()


def test_a_bus_error_elsewhere_is_still_one(executable: Path) -> None:
    process = start(command(executable, "-", limit=500))
    process.stdout.readline()
    process.send_signal(signal.SIGBUS)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGBUS


def test_ctrl_c_leaves_a_sweep_that_reads_its_layers_from_the_files(executable: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    slow = ("--memory", "7M", "--engine", "plain", "--kinds", "state,mlp,attn,head", "--samples", 400)  # minutes a fact
    arguments = batch(executable, output, *slow, limit=3)
    arguments.remove("-q")
    process = start(arguments)
    try:
        wait_until(lambda: lines_of(output) == 1, process)
        time.sleep(2)  # the clean runs are done
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "leaving the facts at hand, as layers are read from the files" in error
    assert "interrupted: 0 of 3 facts are in" in error
    assert lines_of(output) == 1
    header = json.loads(output.read_text())
    assert header["schema"] == "rometrace/batch/1"
