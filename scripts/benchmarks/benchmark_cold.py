#!/usr/bin/env python3
"""Times the first trace of a process beside the next one: what loading and packing the weights cost.

    scripts/benchmarks/benchmark_cold.py
    scripts/benchmarks/benchmark_cold.py --shapes gpt2,gpt2-xl --rounds 3 --also OLD/build/release/bin

States on a random checkpoint, "Miles Davis plays the" with ten draws, float32. Of each round a new process: cold is the
time from asking it to load the checkpoint to the end of its first trace, warm the median of two more. The file is read
beforehand, so that it is in the page cache; its hash is not asked for. With --also the programs of another build take
turns with this one's.

A Markdown table goes to stdout (medians), progress to stderr. Exit status: 0 measured; 2 could not run; 130
interrupted. Needs a release build.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from pathlib import Path

from benchmark import (
    PROMPTS,
    REPOSITORY,
    BenchmarkError,
    Worker,
    available_cores,
    count_of,
    cpu_model,
    find_checkpoint,
    interrupt,
    read_once,
    table_head,
    table_row,
    three,
)


def seconds_of(program: Path, folder: Path, threads: int) -> tuple[float, float]:
    """Cold and warm."""
    with Worker(str(program), [program / "rometrace_benchmark"]) as worker:

        def trace() -> None:
            worker.ask("trace", **PROMPTS["A"].request(), kinds=["state"], engine="sweep")

        worker.ask("peak")  # the process is up
        begin = time.monotonic()
        worker.ask("load", folder=str(folder), dtype="float32", device="cpu", threads=threads)
        trace()
        cold = time.monotonic() - begin
        warm = []
        for _ in range(2):
            begin = time.monotonic()
            trace()
            warm.append(time.monotonic() - begin)
    return cold, statistics.median(warm)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="gpt2", help="of random checkpoints (default: gpt2)")
    parser.add_argument("--also", type=Path, metavar="FOLDER", help="another build's programs")
    parser.add_argument("--rounds", type=count_of, default=5)
    parser.add_argument("--threads", type=count_of, default=available_cores())
    return parser.parse_args()


def main() -> int:
    signal.signal(signal.SIGTERM, interrupt)
    arguments = parse_arguments()
    programs = {"this": REPOSITORY / "build/release/bin"}
    if arguments.also:
        programs["also"] = arguments.also.resolve()
    rows = []
    try:
        for shape in arguments.shapes.split(","):
            checkpoint = find_checkpoint(shape)
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
            for number in range(arguments.rounds):
                for name, program in programs.items():
                    read_once(checkpoint.weights)
                    cold, warm = seconds_of(program, checkpoint.folder, arguments.threads)
                    times[name].append((cold, warm))
                    print(
                        f"benchmark_cold.py: {shape}, {name}, round {number + 1} of {arguments.rounds}: "
                        f"{three(cold)} s, {three(warm)} s",
                        file=sys.stderr,
                        flush=True,
                    )
            for name, pairs in times.items():
                cold, warm = (statistics.median(column) for column in zip(*pairs))
                ratio = statistics.median(cold / warm for cold, warm in pairs)
                rows.append([shape, name, three(cold), three(warm), f"{ratio:.2f}", three(cold - warm)])
    except KeyboardInterrupt:
        return 130
    except BenchmarkError as error:
        print(f"benchmark_cold.py: {error}", file=sys.stderr)
        return 2
    print(f"- Machine: {cpu_model()}, {available_cores()} cores; threads {arguments.threads}; rounds {arguments.rounds}\n")
    print(*table_head(("shape", "build", "cold s", "warm s", "cold / warm", "more s")), *map(table_row, rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
