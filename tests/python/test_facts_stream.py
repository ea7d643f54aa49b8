"""Facts files are read record by record: memory does not grow with the file, and reading stops at the limit."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batches import FACTS, environment
from conftest import Rometrace

LAYOUTS = ("list", "indented", "lines", "csv", "lines.gz")
PLAIN = ("--noise", "0.3")
PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, encoding="utf-8")
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.stderr.replace("\\n", " "))
"""


def records(count: int, padding: int = 900) -> list[dict[str, Any]]:
    """Facts of different subjects, each with a text that is not read."""
    subjects = [fact["subject"] for fact in json.loads(FACTS.read_text())["facts"]]
    return [
        {"id": number, "subject": subjects[number % 100], "prompt": "{} plays the", "object": "trumpet", "note": f"{number} " * (padding // 6)}
        for number in range(count)
    ]


def write(path: Path, layout: str, facts: list[dict[str, Any]]) -> Path:
    lines = "".join(json.dumps(fact) + "\n" for fact in facts)
    if layout == "list":
        path.write_text(json.dumps(facts))
    elif layout == "indented":
        path.write_text(json.dumps(facts, indent=1))
    elif layout == "lines":
        path.write_text(lines)
    elif layout == "lines.gz":
        path.write_bytes(gzip.compress(lines.encode(), compresslevel=1))
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(facts[0]))
        writer.writeheader()
        writer.writerows(facts)
        path.write_text(text.getvalue())
    return path


def peak_of(bin_dir: Path, *arguments: Any) -> int:
    """KiB that a batch holds at most."""
    command = [sys.executable, "-c", PEAK, str(bin_dir / "rometrace"), "--kinds", "state", "--samples", "1", "--all", "-q", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=300, env=environment())
    status, peak, said = done.stdout.split(" ", 2)
    assert (status, said.strip()) == ("0", "")
    return int(peak)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_does_not_grow_with_the_file(bin_dir: Path, tmp_path: Path, layout: str) -> None:
    def peak(name: str, count: int, padding: int, *more: str) -> int:
        file = write(tmp_path / name, layout, records(count, padding))
        return peak_of(bin_dir, "--facts", file, "--limit", "3", *more, "-o", tmp_path / f"{name}.jsonl")

    # The large files' text is 14 MiB longer; held as parsed JSON it would take several times that.
    slack = 6 * 1024
    assert peak("many", 16000, 900, *PLAIN) < peak("few", 1000, 900, *PLAIN) + slack
    # Where the noise is of the subjects these are held, and their embeddings: as many in both files.
    assert peak("long", 1600, 9000) < peak("short", 1600, 60) + slack


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_records_of_a_limit_are_those_of_the_whole_file(rometrace: Rometrace, tmp_path: Path, layout: str) -> None:
    facts = records(40, padding=12)
    whole = write(tmp_path / "whole", layout, facts)

    def lines(name: str, *options: Any) -> list[dict[str, Any]]:
        output = tmp_path / name
        done = rometrace("--kinds", "state", "--samples", 1, "--all", "-q", "-o", output, *options)
        assert done.returncode == 0, done.stderr
        header, *found = (json.loads(line) for line in output.read_text().splitlines())
        for line in found:
            del line["run"]["seconds"]
        return [header, *found]

    for noise in (PLAIN, ()):
        all_header, *all_lines = lines(f"all{len(noise)}.jsonl", "--facts", whole, *noise)
        header, *found = lines(f"some{len(noise)}.jsonl", "--facts", whole, "--limit", 7, *noise)
        assert found == all_lines[:7]
        assert header["facts"]["files"] == all_header["facts"]["files"]
        assert header["run"]["noise"] == all_header["run"]["noise"]
        assert header["facts"]["records"] == (7 if noise else 40)
        assert header["facts"]["selected"] == 7


def test_what_is_broken_behind_the_limit_matters_only_where_it_is_needed(rometrace: Rometrace, tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    text = json.dumps(records(20, padding=12))
    file.write_text(text[: len(text) // 2])
    quick = ("--facts", file, "--limit", 3, "--kinds", "state", "--all", "-q")
    assert rometrace(*quick, *PLAIN).returncode == 0
    assert rometrace(*quick, "--noise-facts", FACTS).returncode == 0
    needed = [(), ("--sample", 3, *PLAIN), ("--ids", "1", *PLAIN), ("--corrupt", "swap"), ("--only", "known", *PLAIN)]
    for options in needed:
        done = rometrace(*quick, *options)
        assert done.returncode == 2 and "facts.json: line 1, column" in done.stderr, (options, done.stderr)
    done = rometrace("--facts", file, "--limit", 3, "--probe", "-q")
    assert done.returncode == 2 and "facts.json: line 1, column" in done.stderr
    # Before the limit it matters always.
    done = rometrace("--facts", file, "--limit", 15, "--kinds", "state", "--samples", 1, "-q", *PLAIN)
    assert done.returncode == 2 and "not JSON" in done.stderr


def test_a_batch_with_a_limit_goes_on_with_the_same_file_only(rometrace: Rometrace, tmp_path: Path) -> None:
    file, output = write(tmp_path / "facts.jsonl", "lines", records(20, padding=12)), tmp_path / "out.jsonl"
    batch = ("--facts", file, "--limit", 3, "--kinds", "state", "--samples", 1, "--all", *PLAIN, "-o", output)
    assert rometrace(*batch).returncode == 0
    assert "done already: 3 of 3 facts" in rometrace(*batch).stderr
    file.write_text(file.read_text() + "{}\n")  # behind the limit, but another file
    done = rometrace(*batch)
    assert done.returncode == 2 and "facts.files[0].sha256" in done.stderr


def test_standard_input_is_read_as_a_file(rometrace: Rometrace, bin_dir: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "facts.gz", "lines.gz", records(200))
    arguments = [bin_dir / "rometrace", "--facts", "-", "--limit", "2", "--kinds", "state", "--samples", "1", "--all", "-q", *PLAIN, "--json"]
    with file.open("rb") as stream:
        done = subprocess.run(arguments, stdin=stream, capture_output=True, encoding="utf-8", timeout=120, env=environment())
    assert done.returncode == 0, done.stderr
    header, *lines = (json.loads(line) for line in done.stdout.splitlines())
    named = json.loads(rometrace(*("--facts", file, *arguments[3:])).stdout.splitlines()[0])
    assert header["facts"]["files"][0]["sha256"] == named["facts"]["files"][0]["sha256"]
    assert len(lines) == 2
