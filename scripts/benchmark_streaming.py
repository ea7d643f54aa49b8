#!/usr/bin/env python3
"""Traces with weights that do not fit in memory, beside the same with weights that do, and beside the disk.

    scripts/make_random_checkpoint.py BIG --shape pythia-6.9b --dtype BF16 --tokenizer FOLDER
    scripts/benchmark_streaming.py BIG --memory 3G --facts-per-batch 8

Prints, for one prompt and for a batch of facts of one shape: seconds, the bytes that were read from the disk and their
rate beside that of reading the weights from the first byte to the last, peak memory, and the largest difference of any
score from the run that holds all weights. --limit sets a hard limit of memory by a control group (version 1 or 2), with
the page cache counted; it needs the right to make one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = 1 << 24
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size(text: str) -> int:
    found = re.fullmatch(r"([0-9.]+)([KMGT]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; expected one such as 3G")
    return int(float(found[1]) * UNITS[found[2]])


def weight_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")])


def drop_from_cache(folder: Path) -> None:
    """Lets the kernel forget the weights, so that they are read from the disk."""
    for path in weight_files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(folder: Path) -> float:
    """Seconds that it takes to read all weights, from the first byte to the last."""
    drop_from_cache(folder)
    buffer = bytearray(BLOCK)
    begin = time.perf_counter()
    for path in weight_files(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - begin


class Group:
    """A control group with a limit of memory, page cache counted."""

    def __init__(self, limit: int) -> None:
        first = Path("/sys/fs/cgroup/memory")
        self.version = 1 if (first / "memory.limit_in_bytes").exists() else 2
        root = first if self.version == 1 else Path("/sys/fs/cgroup")
        self.folder = root / f"rometrace-{os.getpid()}"
        self.folder.mkdir()
        name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
        (self.folder / name).write_text(str(limit))

    def enter(self) -> None:
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        self.folder.rmdir()


@dataclass
class Run:
    seconds: float
    read: int
    peak: int
    records: list[dict[str, Any]]


def lines_of(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    records = [json.loads(line) for line in text.splitlines()] if "\n{" in text.strip() else [json.loads(text)]
    return [record for record in records if "grids" in record]


def read_bytes(pid: int) -> int:
    try:
        found = re.search(r"^read_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    except OSError:
        return 0


def run(arguments: argparse.Namespace, options: list[str], limit: int | None) -> Run:
    """One run of the program from a cold cache."""
    drop_from_cache(arguments.folder)
    group = Group(limit) if limit else None
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "results.json"
        command = [arguments.program, "--model", arguments.folder, "-q", "-o", output, *options]
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=sys.stderr, preexec_fn=group.enter if group else None)
        read = 0
        while process.poll() is None:
            read = max(read, read_bytes(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - begin
        if process.returncode not in (0, 1):
            sys.exit(f"rometrace ended with status {process.returncode}: {' '.join(map(str, command))}")
        records = lines_of(output)
    if group:
        group.remove()
    return Run(seconds, read, peak_of_children(), records)


def peak_of_children() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def scores(record: dict[str, Any]) -> Iterator[float]:
    def numbers(value: Any) -> Iterator[float]:
        if isinstance(value, list):
            for item in value:
                yield from numbers(item)
        elif value is not None:
            yield value

    yield from (record["low_score"], record["high_score"])
    for grid in record["grids"].values():
        yield from numbers(grid["scores"])


def largest_difference(one: Run, other: Run) -> float:
    assert len(one.records) == len(other.records) > 0
    return max(
        abs(a - b)
        for left, right in zip(one.records, other.records, strict=True)
        for a, b in zip(scores(left), scores(right), strict=True)
    )


def report(name: str, streamed: Run, held: Run, disk: float, facts: int) -> None:
    rate = streamed.read / streamed.seconds
    print(
        f"{name}: streamed {streamed.seconds:.1f} s ({streamed.seconds / facts:.2f} s a fact), "
        f"read {streamed.read / 2**30:.2f} GiB at {rate / 1e9:.2f} GB/s (the disk: {disk / 1e9:.2f} GB/s), "
        f"peak {streamed.peak / 2**30:.2f} GiB; held {held.seconds:.1f} s; "
        f"largest difference {largest_difference(streamed, held):.2g}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a model folder")
    parser.add_argument("--memory", default="2G", help="rometrace's --memory (default: 2G)")
    parser.add_argument("--limit", type=size, help="hard limit of the streamed run, by a control group")
    parser.add_argument("--samples", default="3", help="draws of noise (default: 3)")
    parser.add_argument("--facts-per-batch", type=int, default=8, help="facts of the batch; 0: none")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--program", type=Path, default=REPOSITORY / "build/release/bin/rometrace")
    arguments = parser.parse_args()

    total = sum(path.stat().st_size for path in weight_files(arguments.folder))
    seconds = read_through(arguments.folder)
    disk = total / seconds
    print(f"weights: {total / 2**30:.2f} GiB in {len(weight_files(arguments.folder))} files; read once in {seconds:.1f} s")
    common = ["--samples", arguments.samples, "--dtype", arguments.dtype, "--noise", "0.1"]
    streamed = ["--memory", arguments.memory]
    held: list[str] = []

    one = ["--prompt", "Miles Davis plays the", "--subject", "Miles Davis", *common]
    # The streamed run first: the peak of children never falls.
    small, large = run(arguments, [*one, *streamed], arguments.limit), run(arguments, [*one, *held], None)
    if arguments.facts_per_batch > 0:
        with tempfile.TemporaryDirectory() as scratch:
            facts = Path(scratch) / "facts.jsonl"
            facts.write_text(
                "".join(
                    json.dumps({"id": i, "subject": "Miles Davis", "prompt": f"Miles Davis {verb} the"}) + "\n"
                    for i, verb in zip(range(arguments.facts_per_batch), VERBS)
                )
            )
            batch = ["--facts", facts, "--all", *common]
            many = run(arguments, [*batch, *streamed], arguments.limit)
            report("one prompt", small, large, disk, 1)
            report(f"{len(many.records)} facts", many, run(arguments, [*batch, *held], None), disk, len(many.records))
    else:
        report("one prompt", small, large, disk, 1)
    return 0


VERBS = ["plays", "sees", "takes", "loves", "makes", "finds", "knows", "wants", "needs", "gives", "calls", "holds"]

if __name__ == "__main__":
    sys.exit(main())
