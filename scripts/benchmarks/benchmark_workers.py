#!/usr/bin/env python3
"""Times two builds of rometrace beside each other, on an idle machine or a busy one: how work is shared out.

    scripts/benchmarks/benchmark_workers.py OLD/build/release/bin
    scripts/benchmarks/benchmark_workers.py OLD/build/release/bin --busy 6 --rounds 5
    scripts/benchmarks/benchmark_workers.py OLD/build/release/bin --tokenizer FOLDER --rows gpt2,probe

Rows: gpt2 and gpt2-xl are one warm trace of states on random checkpoints, "Miles Davis plays the" with ten draws, in a
process that has the weights packed; batch is the demo model over 100 of its facts, three
kinds, a process a run; probe is 300 facts of a facts file on a random Llama of 135M parameters, a process a run, with
GPT-2's tokeniser (--tokenizer, a folder with vocab.json and merges.txt; without it the row is left out).

Old and new run in turn, round by round, so that the machine's noise hits both alike; seconds are medians, the ratio is
the median of the rounds' ratios, above 1 where the new one is faster. With --busy N, N processes that compute without
end run beside. Scores of both are compared.

Results go to stdout as Markdown, progress to stderr. Exit status: 0 measured; 1 scores differ; 2 could not run; 130
interrupted. Needs a release build of both commits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator

from benchmark import (
    PROMPTS,
    REPOSITORY,
    BenchmarkError,
    ScoresDiffer,
    Worker,
    available_cores,
    cache_folder,
    count_of,
    cpu_model,
    find_checkpoint,
    interrupt,
    read_once,
    relative_difference,
    run_once,
    table_head,
    table_row,
    three,
)

ROWS = ("gpt2", "gpt2-xl", "batch", "probe")
BARS = {"gpt2": (0.97, 1.25), "gpt2-xl": (0.97, 1.15), "batch": (1.8, 1.6), "probe": (1.5, 2.5)}
"""The least ratio that is asked for, on an idle machine and on a busy one (two cores, six programs beside)."""
LARGEST_DIFFERENCE = 1e-5
"""Of scores, relative: blocks of rows differ, and with them the order of float32 sums."""
FACTS = 100
PROBED = 300
VOCABULARY = 50257
"""GPT-2's, which the random Llama is given with its tokeniser."""


@dataclass
class Row:
    """The seconds of each round, old and new, and their processor seconds where they are known."""

    name: str
    old: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    old_cpu: list[float] = field(default_factory=list)
    new_cpu: list[float] = field(default_factory=list)
    difference: float = 0

    @property
    def ratio(self) -> float:
        return statistics.median(old / new for old, new in zip(self.old, self.new))


def say(text: str) -> None:
    print(f"benchmark_workers.py: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute beside: of this session, as Linux shares out cores by session first."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"], process_group=0) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@dataclass
class Run:
    """One run of a program: its seconds, processor seconds where they are its own, and numbers to compare."""

    wall: float
    cpu: float | None
    scores: list[float]


def numbers_in(value: Any) -> Iterator[float]:
    """All scores of a record or of a worker's answer, in order; not its times."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("seconds", "run", "settings", "standard_error", "work"):
                yield from numbers_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers_in(inner)
    elif isinstance(value, float):
        yield value


def traces(shape: str, arguments: argparse.Namespace) -> Iterator[Callable[[str], Run]]:
    """Both programs with the checkpoint loaded; the function traces in one of them."""
    checkpoint = find_checkpoint(shape)
    read_once(checkpoint.weights)
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, folder in (("old", arguments.old), ("new", arguments.new)):
            workers[name] = stack.enter_context(Worker(f"{name} rometrace_benchmark", [folder / "rometrace_benchmark"]))
            workers[name].ask(
                "load", folder=str(checkpoint.folder), dtype="float32", device="cpu", threads=arguments.threads or available_cores()
            )

        def run(name: str) -> Run:
            begin = time.monotonic()
            answer = workers[name].ask("trace", **PROMPTS["A"].request(), kinds=["state"], engine="sweep")
            return Run(time.monotonic() - begin, None, list(numbers_in(answer["scores"])))

        for name in workers:
            run(name)  # packs
        yield run


def command_run(program: Path, words: list[str], threads: int | None) -> Run:
    """The program once, its output in a file that is read and goes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "results.jsonl"
        command = [str(program), *words, "--quiet", "-o", str(output)]
        if threads is not None:
            command += ["--threads", str(threads)]
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        run_once(command)
        wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        records = [json.loads(line) for line in output.read_text().splitlines()[1:]]
    return Run(wall, cpu, [number for record in records for number in numbers_in(record)])


def batch(arguments: argparse.Namespace) -> Iterator[Callable[[str], Run]]:
    words = ["--facts", str(REPOSITORY / "share/rometrace/facts.json"), "--limit", str(FACTS)]
    yield lambda name: command_run(getattr(arguments, name) / "rometrace", words, arguments.threads)


def probe(arguments: argparse.Namespace) -> Iterator[Callable[[str], Run]]:
    folder = cache_folder() / "smollm2-135m"
    if not (folder / "model.safetensors").exists():
        say(f"making {folder}")
        make = REPOSITORY / "scripts/benchmarks/make_random_checkpoint.py"
        command = [sys.executable, str(make), str(folder), "--shape", "smollm2-135m"]
        run_once([*command, "--vocab", str(VOCABULARY), "--tokenizer", str(arguments.tokenizer)])
    words = ["--model", str(folder), "--facts", str(arguments.facts), "--limit", str(PROBED), "--probe"]
    yield lambda name: command_run(getattr(arguments, name) / "rometrace", words, arguments.threads)


def measure(name: str, arguments: argparse.Namespace) -> Row:
    row = Row(name)
    source = {"batch": batch, "probe": probe}.get(name)
    for run in source(arguments) if source else traces(name, arguments):
        for number in range(arguments.rounds):
            order = ("old", "new") if number % 2 == 0 else ("new", "old")
            runs = {which: run(which) for which in order}
            for which in order:
                getattr(row, which).append(runs[which].wall)
                if runs[which].cpu is not None:
                    getattr(row, f"{which}_cpu").append(runs[which].cpu)
            if len(runs["old"].scores) != len(runs["new"].scores):
                raise ScoresDiffer(f"{name}: {len(runs['old'].scores)} scores and {len(runs['new'].scores)}")
            pairs = zip(runs["old"].scores, runs["new"].scores)
            row.difference = max([row.difference, *(relative_difference(old, new) for old, new in pairs)])
            say(f"{name}, round {number + 1} of {arguments.rounds}: {three(row.old[-1])} s, {three(row.new[-1])} s")
    return row


def cells(row: Row, busy_loops: int) -> list[str]:
    def cpu(seconds: list[float]) -> str:
        return three(statistics.median(seconds)) if seconds else "-"

    bar = BARS[row.name][1 if busy_loops else 0]
    return [
        row.name, three(statistics.median(row.old)), three(statistics.median(row.new)), cpu(row.old_cpu),
        cpu(row.new_cpu), f"{row.ratio:.2f}", f"{bar}", f"{row.difference:.1e}",
    ]  # fmt: skip


def rows_of(text: str) -> list[str]:
    rows = text.split(",")
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such row: {unknown[0]}; expected some of {','.join(ROWS)}")
    return rows


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="folder of the other build's programs")
    parser.add_argument("--new", type=Path, default=REPOSITORY / "build/release/bin", help="of this one's")
    parser.add_argument("--rows", type=rows_of, default=list(ROWS), help=f"some of {','.join(ROWS)} (default: all)")
    parser.add_argument("--rounds", type=count_of, default=5)
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="processes that compute beside (default: 0)")
    parser.add_argument("--threads", type=count_of, help="of both (default: what each chooses; of gpt2's rows, cores)")
    parser.add_argument("--tokenizer", type=Path, help="folder with GPT-2's vocab.json and merges.txt, for probe")
    parser.add_argument(
        "--facts", type=Path, default=REPOSITORY / "share/rometrace/facts.json", help="that are probed (default: the demo's)"
    )
    arguments = parser.parse_args()
    arguments.old, arguments.new = arguments.old.resolve(), arguments.new.resolve()
    if arguments.tokenizer is None and "probe" in arguments.rows:
        say("without --tokenizer the row probe is left out")
        arguments.rows.remove("probe")
    return arguments


def main() -> int:
    signal.signal(signal.SIGTERM, interrupt)
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    try:
        with busy(arguments.busy):
            rows = [measure(name, arguments) for name in arguments.rows]
    except KeyboardInterrupt:
        return 130
    except ScoresDiffer as error:
        say(str(error))
        return 1
    except BenchmarkError as error:
        say(str(error))
        return 2
    print(f"- Machine: {cpu_model()}, {available_cores()} cores; load before the run {load:.1f}")
    print(f"- Beside: {arguments.busy} processes that compute; threads {arguments.threads or 'as each chooses'}; rounds {arguments.rounds}")
    print()
    columns = ("row", "old s", "new s", "old CPU s", "new CPU s", "old / new", "bar", "difference")
    print(*table_head(columns), *(table_row(cells(row, arguments.busy)) for row in rows), sep="\n")
    differs = [row.name for row in rows if row.difference > LARGEST_DIFFERENCE]
    if differs:
        say(f"{differs[0]}: scores differ by more than {LARGEST_DIFFERENCE}")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
