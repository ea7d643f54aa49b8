#!/usr/bin/env python3
"""Traces with weights that do not fit in memory, beside the same with weights that do, and beside the disk.

    scripts/benchmarks/make_random_checkpoint.py BIG --shape pythia-6.9b --dtype BF16 --tokenizer FOLDER
    scripts/benchmarks/benchmark_streaming.py BIG --memory 3G --facts-per-batch 8 --alone 2

Prints, for one prompt and for a batch of facts of one shape: seconds, the bytes that were read from the disk and their
rate beside that of reading the weights from the first byte to the last, peak memory, and the largest difference of any
score from the run that holds all weights. With --alone it also traces that many of the batch's facts in runs of their
own, streamed as well: what a fact costs when it does not share the reading. --no-held leaves out the runs that hold all
weights, where these do not fit. --limit sets a hard limit of memory for streamed runs by a control group (version 1 or
2), with the page cache counted; it needs the right to make one.
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

REPOSITORY = Path(__file__).resolve().parents[2]
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
    """Bytes from the disk."""
    peak: int
    """Bytes of this program, whatever was run before it."""
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


def measure(command: list[Any], group: Group | None = None) -> tuple[int, float, int, int]:
    """Runs a program. Gives its status, seconds, the bytes that it read from the disk, and the bytes of its peak, which
    the kernel counts from the fork on: never less than what this process weighs."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=sys.stderr, preexec_fn=group.enter if group else None)
    try:
        # It has ended, but its numbers are there until it is waited for.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - begin
        read = read_bytes(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process.returncode, seconds, read, usage.ru_maxrss * 1024


def run(arguments: argparse.Namespace, options: list[Any], limit: int | None) -> Run:
    """One run of the program from a cold cache."""
    drop_from_cache(arguments.folder)
    group = Group(limit) if limit else None
    try:
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "results.json"
            command = [arguments.program, "--model", arguments.folder, "-q", "-o", output, *options]
            status, seconds, read, peak = measure(command, group)
            if status not in (0, 1):
                sys.exit(f"rometrace ended with status {status}: {' '.join(map(str, command))}")
            return Run(seconds, read, peak, lines_of(output))
    finally:
        if group:
            group.remove()


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


def largest_difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    assert len(one) == len(other) > 0
    return max(
        abs(a - b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(scores(left), scores(right), strict=True)
    )


def made_facts(count: int) -> list[dict[str, Any]]:
    """Facts of as many tokens each, wherever words are tokens. No two have one prompt."""
    endings = [(verb, word) for word in WORDS for verb in VERBS]
    return [
        {"id": i, "subject": "Miles Davis", "prompt": f"Miles Davis {verb} {word}"}
        for i, (verb, word) in enumerate(endings[:count])
    ]


def write_facts(folder: str, facts: list[dict[str, Any]]) -> Path:
    path = Path(folder) / "facts.jsonl"
    path.write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    return path


def run_facts(arguments: argparse.Namespace, facts: list[dict[str, Any]], options: list[str], limit: int | None) -> Run:
    """A batch of them, all of which must be traced."""
    with tempfile.TemporaryDirectory() as scratch:
        done = run(arguments, ["--facts", write_facts(scratch, facts), "--all", *options], limit)
    if len(done.records) != len(facts):
        sys.exit(f"{len(done.records)} of {len(facts)} facts were traced; expected all of them")
    return done


def report(name: str, done: Run, disk: float) -> None:
    facts = len(done.records)
    print(
        f"{name}: {done.seconds:.1f} s ({done.seconds / facts:.2f} s a fact), read {done.read / 2**30:.3f} GiB "
        f"({done.read / facts / 2**30:.3f} GiB a fact) at {done.read / done.seconds / 1e9:.2f} GB/s "
        f"(the disk: {disk / 1e9:.2f} GB/s), peak {done.peak / 2**30:.2f} GiB",
        flush=True,
    )


def compare(what: str, one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    print(f"{what}: largest difference of a score {largest_difference(one, other):.2g}", flush=True)


def together(runs: list[Run]) -> Run:
    """Runs one after the other, as one."""
    records = [record for done in runs for record in done.records]
    return Run(
        sum(done.seconds for done in runs), sum(done.read for done in runs), max(done.peak for done in runs), records
    )


def compare_with_held(name: str, streamed: Run, held: Run, disk: float) -> None:
    report(f"{name}, held", held, disk)
    compare(f"{name}, streamed and held", streamed.records, held.records)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a model folder")
    parser.add_argument("--memory", default="2G", help="rometrace's --memory (default: 2G)")
    parser.add_argument("--limit", type=size, help="hard limit of streamed runs, by a control group")
    parser.add_argument("--samples", default="3", help="draws of noise (default: 3)")
    parser.add_argument("--facts-per-batch", type=int, default=8, help="facts of the batch (default: 8); 0: none")
    parser.add_argument("--alone", type=int, default=0, help="of these, how many to trace in runs of their own as well")
    parser.add_argument("--no-held", action="store_true", help="no runs that hold all weights")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--program", type=Path, default=REPOSITORY / "build/release/bin/rometrace")
    arguments = parser.parse_args()
    most = len(VERBS) * len(WORDS)
    if not 0 <= arguments.facts_per_batch <= most:
        parser.error(f"--facts-per-batch: {arguments.facts_per_batch}; expected 0 to {most}, which are made up here")
    if not 0 <= arguments.alone <= arguments.facts_per_batch:
        parser.error(f"--alone: {arguments.alone}; expected 0 to the {arguments.facts_per_batch} facts of the batch")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    files = weight_files(arguments.folder)
    total = sum(path.stat().st_size for path in files)
    seconds = read_through(arguments.folder)
    disk = total / seconds
    print(f"weights: {total / 2**30:.3f} GiB in {len(files)} files; read once in {seconds:.1f} s")
    common = ["--samples", arguments.samples, "--dtype", arguments.dtype, "--noise", "0.1"]
    streamed = [*common, "--memory", arguments.memory]

    one = ["--prompt", "Miles Davis plays the", "--subject", "Miles Davis"]
    small = run(arguments, [*one, *streamed], arguments.limit)
    report("one prompt, streamed", small, disk)
    if not arguments.no_held:
        compare_with_held("one prompt", small, run(arguments, [*one, *common], None), disk)
    if arguments.facts_per_batch == 0:
        return 0

    facts = made_facts(arguments.facts_per_batch)
    batch = run_facts(arguments, facts, streamed, arguments.limit)
    report(f"{len(facts)} facts together, streamed", batch, disk)
    if arguments.alone > 0:
        apart = together([run_facts(arguments, [fact], streamed, arguments.limit) for fact in facts[: arguments.alone]])
        report(f"{arguments.alone} of them alone, streamed", apart, disk)
        compare("together and alone", batch.records[: arguments.alone], apart.records)
    if not arguments.no_held:
        compare_with_held(f"{len(facts)} facts", batch, run_facts(arguments, facts, common, None), disk)
    return 0


VERBS = ["plays", "sees", "takes", "loves", "makes", "finds", "knows", "wants", "needs", "gives", "calls", "holds"]
WORDS = ["the", "a", "this", "his", "that", "my", "our", "their"]

if __name__ == "__main__":
    sys.exit(main())
