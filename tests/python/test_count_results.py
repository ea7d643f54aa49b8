"""The closing lines of scripts/test, from files such as ctest and pytest write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PASSES = """<testcase name="a" status="run"><system-out>skipped: one case: no &lt;file&gt;
test cases: 3 passed, 0 failed, 1 skipped; 77 assertions
</system-out></testcase>"""
ALL_SKIPPED = """<testcase name="b" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/><system-out>skipped: another: no GPU
test cases: 0 passed, 0 failed, 1 skipped; 0 assertions
</system-out></testcase>"""
FAILS = """<testcase name="c" status="fail"><failure message=""/><system-out>
test cases: 4 passed, 2 failed, 0 skipped; 9 assertions
</system-out></testcase>"""
FAILS_AFTER_THE_COUNT = FAILS.replace("4 passed, 2 failed", "6 passed, 0 failed")
CRASHES = """<testcase name="d" status="fail"><failure message=""/><system-out>half a li</system-out></testcase>"""
NOT_STARTED = """<testcase name="e" status="notrun"><skipped message="Unable to find executable"/></testcase>"""
OTHER = """<testcase name="f" status="run"><system-out></system-out></testcase>"""

PYTHON = """<testcase classname="tests.python.test_a" name="test_one"/>
<testcase classname="tests.python.test_a" name="test_two"><skipped message="chromium is not there"/></testcase>"""
PYTHON_FAILS = """<testcase classname="a" name="one"><failure message="no"/></testcase>
<testcase classname="a" name="two"><error message="in set-up"/></testcase>"""


@pytest.mark.parametrize(
    "ctest, python, last, status",
    [
        (PASSES, PYTHON, "4 passed, 0 failed, 2 skipped", 0),
        (PASSES + OTHER, PYTHON, "5 passed, 0 failed, 2 skipped", 0),
        (PASSES + ALL_SKIPPED, PYTHON, "4 passed, 0 failed, 3 skipped", 0),
        (ALL_SKIPPED, "", "0 passed, 0 failed, 1 skipped", 1),
        (FAILS, PYTHON, "5 passed, 2 failed, 1 skipped", 1),
        (FAILS_AFTER_THE_COUNT, PYTHON, "7 passed, 1 failed, 1 skipped", 1),
        (PASSES + CRASHES, PYTHON, "4 passed, 1 failed, 2 skipped", 1),
        (PASSES + NOT_STARTED, PYTHON, "4 passed, 1 failed, 2 skipped", 1),
        (PASSES, PYTHON_FAILS, "3 passed, 2 failed, 1 skipped", 1),
    ],
)
def test_cases_are_counted_and_every_reason_is_told(
    ctest: str, python: str, last: str, status: int, repository: Path, tmp_path: Path
) -> None:
    for name, cases in (("ctest", ctest), ("pytest", python)):
        (tmp_path / f"{name}.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    command = [sys.executable, repository / "tests/count_results.py", tmp_path / "ctest.xml", tmp_path / "pytest.xml"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (status, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == last
    for text, reason in [
        (ctest, "one case: no <file>"),
        (ctest, "another: no GPU"),
        (python, "test_a::test_two: chromium is not there"),
    ]:
        told = reason.split(": ")[1].replace("<", "&lt;").replace(">", "&gt;") in text
        assert (f"skipped: {reason}" in lines) == told
    if ctest == PASSES:
        assert "unit tests: 4 cases, 77 assertions" in lines
