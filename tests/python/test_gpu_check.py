"""scripts/gpu_check on the CPU: the checks of a GPU in small, their table and figures, and what becomes of failures."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpu_check
from benchmark import BenchmarkError
from gpu_check import Check, Found, Outcome, Skip, compare_lines, largest_difference, run_check

pytest.importorskip("transformers")

SECONDS = 1800  # of the whole script, on a machine with other work


@pytest.fixture(scope="module")
def checked(repository: Path, bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """What the script says and writes."""
    output = tmp_path_factory.mktemp("gpu_check") / "gpu.json"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [repository / "scripts/gpu_check", "--device", "cpu", "--bin-dir", bin_dir, "--threads", "1"]
    command += ["--budget", str(SECONDS), "-o", output]
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(output.read_text())


def test_every_check_passes_on_the_cpu_or_says_why_it_is_not_for_one(checked):
    _, figures = checked
    assert figures["schema"] == "rometrace/gpu-check/1"
    assert not [check for check in figures["checks"] if check["status"] == "failed"]
    skipped = {check["name"]: check["detail"] for check in figures["checks"] if check["status"] == "skipped"}
    assert {reason for name, reason in skipped.items() if "float16" in name} == {"this CPU does not multiply in it"}
    assert skipped["facts on all GPUs"] == "no GPU was asked for"
    assert skipped["gpt2-xl, state, tf32"] == "is for GPUs"
    passed = [check["name"] for check in figures["checks"] if check["status"] == "passed"]
    for name in ("demo, float32, sweep", "gpt2, float64, gradient", "self-check", "facts, layers streamed", "edit"):
        assert name in passed
    assert len(passed) >= 20


def test_what_is_found_stands_beside_what_is_allowed(checked):
    _, figures = checked
    for check in figures["checks"]:
        if check["group"] == "engines" and check["status"] == "passed":
            assert 0 <= check["found"] <= check["allowed"] == gpu_check.ENGINES_ALLOWED[check["name"].split(", ")[1]]
        assert check["seconds"] >= 0


def test_speeds_are_beside_the_careful_loop_for_states_and_for_all_grids(checked):
    said, figures = checked
    rows = {(row["grids"], row["dtype"]): row for row in figures["speed"]}
    for grids in ("state", "state + mlp + attn"):
        row = rows[grids, "float32"]
        assert len(row["seconds"]) == len(row["careful_seconds"]) == gpu_check.ROUNDS
        assert min(row["seconds"] + row["careful_seconds"]) > 0
        assert row["difference"] < 1e-4
    assert "| grids | dtype | rometrace s |" in said


def test_the_table_has_a_line_for_each_check(checked):
    said, figures = checked
    for check in figures["checks"]:
        assert f"| {check['group']} | {check['name']} | {check['status']} |" in said
    counts = {status: sum(check["status"] == status for check in figures["checks"]) for status in ("passed", "skipped")}
    assert re.search(rf"^{counts['passed']} passed, 0 failed, {counts['skipped']} skipped; \d+ s$", said, re.MULTILINE)


def outcome_of(run, seconds: float = 1, left: float = 10) -> Outcome:
    return run_check(Check("group", "name", seconds, run), left)


def test_a_check_that_finds_too_much_or_no_number_or_breaks_fails_alone():
    assert outcome_of(lambda: Found(0.5, 0.5)).status == "passed"
    assert outcome_of(lambda: Found(detail="fine")).status == "passed"
    assert outcome_of(lambda: Found(0.6, 0.5)).status == "failed"
    for number in (math.nan, math.inf):
        outcome = outcome_of(lambda: Found(number, 0.5))
        assert (outcome.status, outcome.found) == ("failed", None)
        assert outcome.detail == "numbers that cannot be compared"

    def broken() -> Found:
        raise BenchmarkError("the program ended")

    outcome = outcome_of(broken)
    assert (outcome.status, outcome.detail) == ("failed", "the program ended")

    def unfit() -> Found:
        raise Skip("not here")

    outcome = outcome_of(unfit)
    assert (outcome.status, outcome.detail) == ("skipped", "not here")


def test_what_time_does_not_allow_is_skipped_and_what_takes_too_long_ended():
    outcome = outcome_of(lambda: Found(), seconds=20, left=15)
    assert (outcome.status, outcome.detail) == ("skipped", "takes some 20 s, and 15 s are left")
    began = time.perf_counter()
    outcome = outcome_of(lambda: time.sleep(30) or Found(), seconds=0.5, left=1)
    assert (outcome.status, outcome.detail) == ("failed", "the time that was left ended")
    assert time.perf_counter() - began < 20


def test_differences_are_relative_but_not_of_what_is_next_to_nothing():
    exact = {"high_score": 0.6, "low_score": 0.1, "state 0 0": 0.3}
    assert largest_difference(exact, exact) == 0
    assert largest_difference(exact | {"state 0 0": 0.27}, exact) == pytest.approx(0.1)
    assert largest_difference(exact | {"state 0 0": 0.4}, exact) == pytest.approx(0.25)
    assert largest_difference(exact | {"state 0 0": math.nan}, exact) == math.inf
    assert largest_difference(exact | {"state 0 1": 0.3}, exact) == math.inf
    small = exact | {"state 0 0": -1e-5}
    assert largest_difference(exact | {"state 0 0": 1e-5}, small) == pytest.approx(2e-5 / 0.006)


def test_lines_are_compared_number_by_number_and_all_else_is_equal():
    line = {"answer": " trumpet", "grids": [{"score": [[0.25, 0.5]]}], "run": {"seconds": 1.0}, "total_effect": 1e-9}
    assert compare_lines([line], [line | {"run": {"seconds": 2.0}}], 1e-3).value == 0
    other = json.loads(json.dumps(line))
    other["grids"][0]["score"][0][1] = 0.4
    found = compare_lines([line], [other], 1e-3)
    assert found.value == pytest.approx(0.2)
    assert found.detail == "line 1: /grids/0/score/0/1"
    assert compare_lines([line], [line | {"total_effect": 2e-9}], 1e-3).value == pytest.approx(1e-6)
    for unlike in (line | {"answer": " piano"}, line | {"more": 1}, line | {"answer": None}):
        assert compare_lines([line], [unlike], 1e-3).value == math.inf
    assert compare_lines([line], [line, line], 1e-3).value == math.inf


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--bin-dir", "/nowhere", "--device", "cpu"), "/nowhere/rometrace is not there; expected the programs of a build"),
        (("--only", "engines,all"), "'all' is no group, expected some of engines,batch,speed"),
        (("--budget", "0"), "'0' is not a whole number from 1 on"),
        (("-o", "/nowhere/gpu.json", "--device", "cpu"), "expected the name of a file in a folder that is there"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(repository: Path, words: tuple[str, ...], said: str):
    command = [sys.executable, repository / "scripts/benchmarks/gpu_check.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


def test_without_a_gpu_it_says_so(repository: Path):
    command = [sys.executable, repository / "scripts/benchmarks/gpu_check.py", "--bin-dir", "/nowhere"]
    done = subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "sees no GPU here; --device cpu tries the script without one" in done.stderr
