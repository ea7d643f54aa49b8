"""Workers: a batch or a probe shared among any number of them is the one that a single one makes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from pathlib import Path

import pytest

from batches import command, environment, finished, orders, run, without_times
from waiting import wait_until

COUNTS = (2, 3)
LARGEST_DIFFERENCE = 1e-6  # relative: blocks of rows differ, and with them the order of float32 sums


@pytest.fixture(scope="module")
def executable(bin_dir: Path) -> Path:
    return bin_dir / "rometrace"


def results(executable: Path, folder: Path, threads: int, *more: object, name: str = "results", limit: int = 12) -> bytes:
    output = folder / f"{name}-{threads}.jsonl"
    finished(run(command(executable, output, "--threads", threads, *more, limit=limit)))
    return output.read_bytes()


def differences(one, other, where=""):
    """(place, one, other) of all that differs, but for times and threads; floats by more than rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            if key not in ("seconds", "threads"):
                yield from differences(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other)):
            yield from differences(left, right, f"{where}[{index}]")
    elif isinstance(one, float):
        if not math.isclose(one, other, rel_tol=LARGEST_DIFFERENCE, abs_tol=1e-7):
            yield where, one, other
    elif one != other:
        yield where, one, other


def lines_of(text: bytes) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "options",
    [
        ("--kinds", "state,mlp,head"),
        ("--kinds", "neuron", "--top", "3"),
        ("--engine", "gradient"),
        ("--precision", "0.05", "--direction", "noising"),
        ("--probe",),
    ],
    ids=" ".join,
)
def test_any_number_of_workers_makes_the_same_file(executable, tmp_path, options):
    if options == ("--probe",):
        outputs = {}
        for threads in (1, *COUNTS):
            output = tmp_path / f"probe-{threads}.jsonl"
            words = ["--facts", str(executable.parents[3] / "share/rometrace/facts.json"), "--limit", "25", "--probe", "-q"]
            finished(run([str(executable), *words, "-o", str(output), "--threads", str(threads)]))
            outputs[threads] = output.read_bytes()
    else:
        outputs = {threads: results(executable, tmp_path, threads, *options) for threads in (1, *COUNTS)}
        assert orders(outputs[1]) == list(range(1, len(lines_of(outputs[1]))))
    for threads in COUNTS:
        found = [difference for pair in zip(lines_of(outputs[1]), lines_of(outputs[threads]), strict=True)
                 for difference in differences(*pair)]  # fmt: skip
        assert not found, found[:5]
        assert lines_of(outputs[threads])[-1]["run"]["threads"] == threads


def test_the_same_number_gives_the_same_bytes(executable, tmp_path):
    first = results(executable, tmp_path, 3, name="first")
    assert without_times(results(executable, tmp_path, 3, name="second")) == without_times(first)


def test_rows_of_one_trace_are_shared(executable):
    words = ["--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--json", "-q"]
    traces = {}
    for threads in (1, *COUNTS):
        done = run([str(executable), *words, "--threads", str(threads)])
        finished(done)
        traces[threads] = json.loads(done.stdout)
    for threads in COUNTS:
        assert not list(differences(traces[1], traces[threads]))


@pytest.mark.real_process
def test_one_core_of_an_affinity_mask_is_one_worker(executable):
    words = ["--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--kinds", "state", "--json", "-q"]
    core = min(os.sched_getaffinity(0))
    variables = {name: value for name, value in environment().items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [str(executable), *words], env=variables, capture_output=True, text=True, timeout=300,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    finished(done)
    assert json.loads(done.stdout)["run"]["threads"] == 1


@pytest.mark.real_process
def test_ctrl_c_among_several_workers_leaves_whole_lines_and_nothing_missing(executable, tmp_path):
    output = tmp_path / "results.jsonl"
    words = command(executable, output, "--threads", 3, limit=60)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(), text=True)
    with process:
        wait_until(lambda: output.exists() and output.read_bytes().count(b"\n") >= 4, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    found = orders(output.read_bytes())
    assert found == list(range(1, len(found) + 1))
    finished(run(words))
    whole = results(executable, tmp_path, 3, name="whole", limit=60)
    assert without_times(output.read_bytes()) == without_times(whole)
