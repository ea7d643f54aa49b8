#!/usr/bin/env python3
"""Counts what ctest and pytest wrote as JUnit XML, for the end of scripts/test.

    count_results.py CTEST.xml PYTEST.xml

A test of ctest is a source file of many test cases, which it counts itself (tests/main.cpp). Prints what was skipped and
why, how much was checked, and as the last line "N passed, M failed, K skipped", in cases. Exit status: 1 if something
failed, or nothing passed.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as xml
from collections import Counter
from dataclasses import dataclass, field

CASES = re.compile(r"^test cases: (\d+) passed, (\d+) failed, (\d+) skipped; (\d+) assertions$", re.MULTILINE)
SKIPPED = re.compile(r"^skipped: (.*)$", re.MULTILINE)


@dataclass
class Results:
    """What became of the test cases of a file of results."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    assertions: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """Why cases were skipped, and how many each."""


def read_ctest(path: str) -> Results:
    """A test that did not come to its count (it crashed, hung or could not be started) is one failed case."""
    results = Results()
    for test in xml.parse(path).iter("testcase"):
        text = test.findtext("system-out") or ""
        if counted := CASES.search(text):
            passed, failed, skipped, assertions = map(int, counted.groups())
            results.passed += passed
            results.failed += max(failed, test.find("failure") is not None)
            results.skipped += skipped
            results.assertions += assertions
            results.reasons.update(SKIPPED.findall(text))
        elif test.get("status") == "run":
            results.passed += 1
        else:
            results.failed += 1
    return results


def read_pytest(path: str) -> Results:
    """Errors of set-up and tear-down are failed cases."""
    results = Results()
    for test in xml.parse(path).iter("testcase"):
        name = f"{(test.get('classname') or '').rpartition('.')[2]}::{test.get('name')}"
        skipped = test.find("skipped")
        if test.find("failure") is not None or test.find("error") is not None:
            results.failed += 1
        elif skipped is not None:
            results.skipped += 1
            results.reasons[f"{name}: {skipped.get('message')}"] += 1
        else:
            results.passed += 1
    return results


def main(ctest: str, pytest: str) -> int:
    unit, python = read_ctest(ctest), read_pytest(pytest)
    for reason in (*unit.reasons, *python.reasons):
        print(f"skipped: {reason}")
    print(f"unit tests: {unit.passed + unit.failed + unit.skipped} cases, {unit.assertions} assertions")
    print(f"Python tests: {python.passed + python.failed + python.skipped} cases")
    passed, failed, skipped = (
        getattr(unit, name) + getattr(python, name) for name in ("passed", "failed", "skipped")
    )
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
