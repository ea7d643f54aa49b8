#!/usr/bin/env python3
"""Checks rometrace on this machine's GPU and times it there, in some minutes, without a network.

    scripts/gpu_check -o gpu.json                    builds against this Python's torch, then checks
    scripts/gpu_check --bin-dir CARRIED/bin          with programs that were built elsewhere, of the same torch
    scripts/gpu_check --device cpu                   the same checks in small on the CPU: does the script work?
    scripts/gpu_check --only engines,batch           some groups of checks

What is checked, by group:

    engines   each engine's scores on the GPU beside the CPU's in float64, of the demo model and a random gpt2, in four
              dtypes
    batch     a batch of facts, the same with layers that are streamed, a probe, neurons, an edit and --self-check on
              the GPU, by the program, beside the CPU's; with several GPUs, a batch on all of them beside one
    speed     gpt2-xl's shape, random weights: states, and all three grids, in float32, float32 with TF32 and bfloat16,
              beside the careful loop over transformers on the same GPU in the same dtype, round by round

The whole program has --budget seconds; what would not end in time is skipped by name. A check that fails does not stop
the others. The tables go to stdout as Markdown, progress to stderr, all figures with -o to a file as JSON. Exit status:
0 nothing failed; 1 a check failed; 2 could not run; 130 interrupted. Needs torch (for a GPU, a CUDA build of it) and
transformers in this Python; to build, what docs/installing.md names. CUDA_VISIBLE_DEVICES chooses among GPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from benchmark import (
    ALL_KINDS,
    KNOCKOUT_WINDOW,
    LARGEST_DIFFERENCE,
    PROMPTS,
    REPOSITORY,
    SEVERED,
    STATES,
    BenchmarkError,
    Checkpoint,
    Prompt,
    Worker,
    available_cores,
    careful_scores,
    count_of,
    header,
    interrupt,
    load,
    one_line,
    read_checkpoint,
    relative_difference,
    rometrace_scores,
    run_once,
    say,
    show,
    start_rometrace,
    start_transformers,
    table_head,
    table_row,
    three,
    three_or_dash,
    trace_with_rometrace,
    write_json,
)
from rometrace.launcher import minor_of, version_of
from rometrace.prepared import go_on_with

SCHEMA = "rometrace/gpu-check/1"
GROUPS = ("engines", "batch", "speed")
BUDGET = 600  # seconds
DEMO = REPOSITORY / "share/rometrace/demo"
FACTS = REPOSITORY / "share/rometrace/facts.json"
SAMPLES = 3  # N of the engines' checks
ROUNDS = 3

# What is allowed of the engines' scores, relative. A CPU with AVX-512 came to at most 4e-6 from its float64 in float32 and
# to 0.024 in bfloat16 in the same checks; a GPU sums in another order. float16 has three bits more than bfloat16.
ENGINES_ALLOWED = {"float64": 1e-9, "float32": LARGEST_DIFFERENCE, "bfloat16": 0.1, "float16": 0.02}
# Likewise of gpt2-xl's scores, beside rometrace's in float32. TF32 has as many bits as float16.
SPEED_ALLOWED = {"tf32": 0.02, "bfloat16": 0.1}
# Of the numbers in the program's lines, in float32: the share of the larger one, or of 0.001 where both are below.
LINES_ALLOWED = 1e-3
EDITS_ALLOWED = 0.02  # twenty steps of gradient descent, each from where rounding left the one before
SMALLEST = 1e-3


class Skip(Exception):
    """Why a check is not for this machine."""


@dataclass
class Found:
    """What a check found."""

    value: float | None = None
    """Largest difference."""
    allowed: float | None = None
    detail: str = ""

    def holds(self) -> bool:
        """Whether it is within what is allowed; what is no number is not."""
        return self.value is None or (self.allowed is not None and self.value <= self.allowed)


@dataclass
class Check:
    """One thing to be checked."""

    group: str
    name: str
    seconds: float
    """That it takes on a GPU, about."""
    run: Callable[[], Found]


@dataclass
class Outcome:
    """What became of a check."""

    group: str
    name: str
    status: str
    """passed, failed or skipped"""
    seconds: float
    found: float | None = None
    allowed: float | None = None
    detail: str = ""


@dataclass
class Timed:
    """One row of the speeds."""

    grids: str
    dtype: str
    seconds: list[float]
    """rometrace's, of each round."""
    careful_seconds: list[float]
    gflops: float
    difference: float
    """Largest relative one of a score: of float32 from the careful loop's, else from rometrace's float32."""
    peaks: dict[str, dict[str, int]] = field(default_factory=dict)


# --- The programs -----------------------------------------------------------------------------------------------


def torch_folder() -> Path:
    """This Python's torch. Raises BenchmarkError."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise BenchmarkError(f"{sys.executable} has no torch; give a Python that has one, with transformers")
    return Path(spec.submodule_search_locations[0])


def build(torch: Path) -> Path:
    """The folder of the programs, built against this torch. Raises BenchmarkError."""
    folder = REPOSITORY / "build/gpu_check"
    say(f"building in {folder}")
    root = f"-DROMETRACE_TORCH_ROOT={torch}"
    for words in (
        ["cmake", "--preset", "release", "-B", str(folder), root],
        ["cmake", "--build", str(folder), "--target", "rometrace_cli", "rometrace_benchmark", "--parallel"],
    ):
        run_in(REPOSITORY, words)
    return folder / "bin"


def run_in(folder: Path, words: Sequence[str]) -> None:
    """Runs a command there. Raises BenchmarkError with what it said last."""
    try:
        done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise BenchmarkError(f"{words[0]} cannot be run ({error.strerror}); --bin-dir takes programs built elsewhere") from None
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if "rror" in line] or done.stdout.splitlines() or ["it said nothing"]
        raise BenchmarkError(f"{' '.join(words[:2])} failed with exit status {done.returncode} ({lines[0].strip()})")


def use_torch(torch: Path) -> None:
    """Has programs that were linked against another folder's torch, of the same version, load this one."""
    others = os.environ.get("LD_LIBRARY_PATH")
    os.environ["LD_LIBRARY_PATH"] = f"{torch / 'lib'}:{others}" if others else str(torch / "lib")


def check_version(bin_dir: Path, torch: Path) -> None:
    """Raises BenchmarkError if the programs were built against another version of torch."""
    said = run_once([str(bin_dir / "rometrace"), "--version"]).strip()
    found = said.partition("libtorch ")[2].rstrip(")")
    if minor_of(found) != minor_of(version_of(torch)):
        raise BenchmarkError(f"{bin_dir}: {said}, and {torch} is {version_of(torch)}; expected programs built against it")


# --- What the checks share --------------------------------------------------------------------------------------


class Bench:
    """The models, the programs that run, and what was found so far. Ends the programs with its `with` block."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, speeds: list[Timed]) -> None:
        self.arguments = arguments
        self.folder = folder
        self.speeds = speeds
        self.small = arguments.device == "cpu"
        self.exact: dict[tuple[str, str], dict[str, float]] = {}
        self.known: dict[str, dict[str, float]] = {}
        self.prompts: dict[str, Prompt] = {}
        self.lines: dict[tuple[str, ...], list[Any]] = {}
        self.workers: dict[str, tuple[Any, Worker]] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.end(*list(self.workers))

    def end(self, *names: str) -> None:
        """Ends these programs, as far as they run."""
        for name in names:
            if name in self.workers:
                self.workers.pop(name)[1].__exit__()

    def loaded(self, name: str, shape: str, dtype: str, device: str, **more: Any) -> Worker:
        """The program of this name with a model loaded: the one that runs, or a new one in its place. Raises Skip where a
        CPU does not multiply in the dtype."""
        key = (shape, dtype, device, more)
        if name in self.workers and self.workers[name][0] == key:
            return self.workers[name][1]
        self.end(name)
        arguments = argparse.Namespace(**vars(self.arguments) | {"device": device})
        checkpoint = self.checkpoint(shape)
        worker = start_transformers(name) if name == "the careful loop" else start_rometrace(arguments)
        self.workers[name] = key, worker
        try:
            load(worker, checkpoint, arguments, dtype, **more)
        except BaseException as error:
            self.end(name)
            if device == "cpu" and ("not multiply" in str(error) or "is for GPUs" in str(error)):
                raise Skip("this CPU does not multiply in it") from None
            raise
        return worker

    def checkpoint(self, shape: str) -> Checkpoint:
        """The demo model, or a random checkpoint, made when it is first asked for."""
        if shape == "demo":
            return read_checkpoint(shape, DEMO)
        folder = self.folder / shape
        if not (folder / "model.safetensors").exists():
            sizes = ["--layers", "3", "--width", "64", "--heads", "4"] if self.small else []
            script = str(REPOSITORY / "scripts/benchmarks/make_random_checkpoint.py")
            run_once([sys.executable, script, str(folder), "--shape", shape, *sizes])
        return read_checkpoint(shape, folder)

    def prompt(self, shape: str) -> Prompt:
        """The demo's own tokens of prompt A, or GPT-2's."""
        prompt = PROMPTS["A"]
        if shape != "demo":
            return prompt
        if shape in self.prompts:
            return self.prompts[shape]
        words = ["--prompt", prompt.text, "--subject", "Miles Davis", "--kinds", "state", "--samples", "1", "--json", "-q"]
        record = json.loads(run_once([str(self.program()), "--model", str(DEMO), *words]))
        self.prompts[shape] = Prompt("A", prompt.text, tuple(record["token_ids"]), tuple(record["subject_range"]))
        return self.prompts[shape]

    def program(self) -> Path:
        return self.arguments.bin_dir / "rometrace"


def largest_difference(found: dict[str, float], exact: dict[str, float]) -> float:
    """Of a score, relative to the larger one, or to a hundredth of the clean score where both are below; infinite where
    scores are missing or no numbers."""
    if found.keys() != exact.keys():
        return math.inf
    least = exact["high_score"] / 100
    largest = 0.0
    for cell, score in found.items():
        if not (math.isfinite(score) and math.isfinite(exact[cell])):
            return math.inf
        largest = max(largest, abs(score - exact[cell]) / max(abs(score), abs(exact[cell]), least))
    return largest


# --- Engines ----------------------------------------------------------------------------------------------------

ENGINES = {
    "sweep": (*ALL_KINDS, *SEVERED, "head", "knockout"),
    "plain": ALL_KINDS,
    "gradient": (*ALL_KINDS, "head"),
}


def engine_scores(worker: Worker, prompt: Prompt, engine: str, **more: Any) -> dict[str, Any]:
    """One run of an engine, with the kinds that it is checked with."""
    request = prompt.request(SAMPLES) | {"window": 3, "knockout_window": KNOCKOUT_WINDOW}
    return worker.ask("trace", **request, kinds=ENGINES[engine], engine=engine, **more)


def check_engine(bench: Bench, shape: str, dtype: str, engine: str) -> Found:
    """The engine's scores in this dtype beside those of the CPU in float64, of the answer that the CPU gives."""
    prompt = bench.prompt(shape)
    worker = bench.loaded("rometrace", shape, dtype, bench.arguments.device)
    if (shape, engine) not in bench.exact:
        answer = engine_scores(bench.loaded("the judge", shape, "float64", "cpu"), prompt, engine)
        bench.exact[shape, engine] = rometrace_scores(answer) | {"answer": answer["answer_id"]}
    exact = dict(bench.exact[shape, engine])
    answer = engine_scores(worker, prompt, engine, target=int(exact.pop("answer")))
    return Found(largest_difference(rometrace_scores(answer), exact), ENGINES_ALLOWED[dtype])


def engine_checks(bench: Bench) -> Iterator[Check]:
    for shape in ("demo", "gpt2"):
        for dtype in ENGINES_ALLOWED:
            for engine in ENGINES:
                yield Check(
                    "engines",
                    f"{shape}, {dtype}, {engine}",
                    5 if shape == "demo" else 15,
                    lambda shape=shape, dtype=dtype, engine=engine: check_engine(bench, shape, dtype, engine),
                )


# --- Batches and other commands ---------------------------------------------------------------------------------

NOT_COMPARED = ("run", "seconds", "rometrace", "took")
"""Fields that say how a line came about."""

EDITED_FACT = {"subject": "Miles Davis", "prompt": "{} plays the", "object": "trumpet", "object_new": "guitar"}


def leaves_of(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Each number, text and null of a line, with its place."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in NOT_COMPARED and "seconds" not in name:
                yield from leaves_of(inner, f"{where}/{name}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves_of(inner, f"{where}/{place}")
    else:
        yield where, value


def compare_lines(found: Sequence[Any], expected: Sequence[Any], allowed: float) -> Found:
    """Of two files' lines, the largest difference of two numbers; all else must be equal."""
    if len(found) != len(expected):
        return Found(math.inf, allowed, f"{len(found)} lines, expected {len(expected)}")
    largest, place = 0.0, ""
    for number, (one, other) in enumerate(zip(found, expected)):
        mine, theirs = dict(leaves_of(one)), dict(leaves_of(other))
        if mine.keys() != theirs.keys():
            odd = sorted(mine.keys() ^ theirs.keys())[0]
            return Found(math.inf, allowed, f"line {number + 1}: {odd} stands in one alone")
        for where, value in mine.items():
            expected_value = theirs[where]
            if isinstance(value, float) and isinstance(expected_value, (int, float)):
                difference = abs(value - expected_value) / max(abs(value), abs(expected_value), SMALLEST)
                if not difference <= largest:
                    largest, place = difference, f"line {number + 1}: {where}"
            elif value != expected_value:
                return Found(math.inf, allowed, f"line {number + 1}: {where} is {value!r}, expected {expected_value!r}")
    return Found(largest, allowed, place if largest > allowed else "")


def run_lines(bench: Bench, device: str, words: Sequence[str]) -> list[Any]:
    """The lines that the program writes with these words on a device; kept, so that each is run once."""
    if (device, *words) in bench.lines:
        return bench.lines[device, *words]
    output = bench.folder / "lines.jsonl"
    output.unlink(missing_ok=True)
    command = [str(bench.program()), *words, "--model", str(DEMO), "--device", device, "-o", str(output), "-q"]
    run_once(command)
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    bench.lines[device, *words] = lines
    return lines


def check_lines(bench: Bench, words: Sequence[str], more: Sequence[str] = (), allowed: float = LINES_ALLOWED) -> Found:
    """What the program writes on the device, with `more` of it there, beside what it writes on the CPU."""
    expected = run_lines(bench, "cpu", words)
    found = run_lines(bench, bench.arguments.device, [*words, *more])
    return compare_lines(without_device(found), without_device(expected), allowed)


def without_device(lines: list[Any]) -> list[Any]:
    """The facts' lines: the first one says how they were made, device included."""
    return [line for line in lines if not line.get("schema", "").startswith(("rometrace/batch", "rometrace/edit-batch"))]


def check_all_gpus(bench: Bench, words: Sequence[str]) -> Found:
    """A batch on all GPUs, beside one."""
    if bench.arguments.gpus < 2:
        raise Skip("needs two GPUs; one is visible" if bench.arguments.gpus else "no GPU was asked for")
    expected = run_lines(bench, "cuda:0", words)
    found = run_lines(bench, "cuda:all", words)
    devices = {line["run"]["device"] for line in without_device(found) if line.get("status") == "traced"}
    result = compare_lines(without_device(found), without_device(expected), LINES_ALLOWED)
    result.detail = result.detail or f"facts ran on {', '.join(sorted(devices))}"
    return result


def check_self(bench: Bench) -> Found:
    said = run_once([str(bench.program()), "--self-check", "--model", str(DEMO), "--device", bench.arguments.device])
    return Found(detail=said.strip().splitlines()[-1])


def batch_checks(bench: Bench) -> Iterator[Check]:
    facts = ["--facts", str(FACTS), "--limit", "8" if bench.small else "60", "--window", "3"]
    all_kinds = [*facts, "--kinds", "state,mlp,attn,head,knockout", "--sever", "mlp,attn"]
    yield Check("batch", "self-check", 10, lambda: check_self(bench))
    yield Check("batch", "facts, all grids", 20, lambda: check_lines(bench, all_kinds))
    yield Check("batch", "facts, layers streamed", 20, lambda: check_lines(bench, facts, ["--memory", "4M"]))
    neurons = ["--facts", str(FACTS), "--limit", "4", "--kinds", "neuron", "--neurons", "1:3,1:117,2:40,5:200"]
    yield Check("batch", "neurons", 10, lambda: check_lines(bench, neurons))
    yield Check("batch", "probe", 10, lambda: check_lines(bench, [*facts[:4], "--probe"]))
    yield Check("batch", "edit", 20, lambda: check_edit(bench))
    yield Check("batch", "facts on all GPUs", 30, lambda: check_all_gpus(bench, facts))


def check_edit(bench: Bench) -> Found:
    """An edit on the device, beside the CPU's."""
    facts = bench.folder / "edited.json"
    facts.write_text(json.dumps([EDITED_FACT]))
    words = ["edit", "--facts", str(facts), "--each", "--templates", "none", "--no-moment"]
    return check_lines(bench, words, allowed=EDITS_ALLOWED)


# --- Speed ------------------------------------------------------------------------------------------------------

PRECISIONS = {"float32": ("float32", False), "tf32": ("float32", True), "bfloat16": ("bfloat16", False)}


def careful_grids(worker: Worker, checkpoint: Checkpoint, prompt: Prompt, kinds: Sequence[str], answer: int) -> dict[str, Any]:
    """Seconds of the careful loop for all grids, of one run that keeps what is restored, and its scores."""
    layers = list(range(checkpoint.layers))
    seconds, scores = 0.0, {}
    for kind in kinds:
        said = worker.ask("layers", **prompt.request(), layers=layers, kind=kind, answer=answer)
        seconds += sum(said["seconds"]) + (said["base_seconds"] if kind == kinds[0] else 0)
        found = careful_scores(said, layers, prompt.subject_range[0])
        scores |= {cell.replace("state", kind, 1): score for cell, score in found.items()}
    return {"seconds": seconds, "scores": scores}


def check_speed(bench: Bench, name: str, kinds: tuple[str, ...]) -> Found:
    """Rounds of both programs in turn, warm; float32 by both, the others by rometrace beside its own float32."""
    if bench.small and name == "tf32":
        raise Skip("is for GPUs")
    dtype, tf32 = PRECISIONS[name]
    checkpoint, prompt = bench.checkpoint("gpt2-xl"), PROMPTS["A"]
    grids = " + ".join(kinds)
    if name != "float32" and grids not in bench.known:
        raise Skip("float32 was not measured")
    worker = bench.loaded("rometrace", "gpt2-xl", dtype, bench.arguments.device, tf32=tf32)
    careful = bench.loaded("the careful loop", "gpt2-xl", dtype, bench.arguments.device, tf32=tf32)
    more = {"target": int(bench.known[grids]["answer"])} if name != "float32" else {}
    rows = []
    for _ in range(ROUNDS + 1):  # the first is not counted
        mine = trace_with_rometrace(worker, prompt, kinds, **more)
        theirs = careful_grids(careful, checkpoint, prompt, kinds, mine["answer_id"])
        rows.append((mine, theirs))
    peaks = {"rometrace": worker.ask("peak"), "careful": careful.ask("peak")}
    mine, theirs = rows[-1]
    scores = rometrace_scores(mine)
    if name == "float32":
        bench.known[grids] = scores | {"answer": mine["answer_id"]}
        shared = scores.keys() & theirs["scores"].keys()
        difference = max(relative_difference(scores[cell], theirs["scores"][cell]) for cell in shared)
        allowed = LARGEST_DIFFERENCE
    else:
        exact = {cell: score for cell, score in bench.known[grids].items() if cell != "answer"}
        difference, allowed = largest_difference(scores, exact), SPEED_ALLOWED[name]
    seconds, careful_seconds = ([one["seconds"] for one in side[1:]] for side in zip(*rows))
    gflops = mine["flops"] / statistics.median(seconds) / 1e9
    bench.speeds.append(Timed(grids, name, seconds, careful_seconds, gflops, difference, peaks))
    ratio = statistics.median(careful_seconds) / statistics.median(seconds)
    return Found(difference, allowed, f"{three(statistics.median(seconds))} s, {three(ratio)} times the careful loop's speed")


def make_xl(bench: Bench) -> Found:
    size = bench.checkpoint("gpt2-xl").weights_bytes
    return Found(detail=f"{three(size / 1e9)} GB")


def speed_checks(bench: Bench) -> Iterator[Check]:
    yield Check("speed", "weights of gpt2-xl's shape made", 60, lambda: make_xl(bench))
    for name in PRECISIONS:
        for kinds in (STATES, ALL_KINDS):
            yield Check(
                "speed",
                f"gpt2-xl, {' + '.join(kinds)}, {name}",
                45,
                lambda name=name, kinds=kinds: check_speed(bench, name, kinds),
            )


# --- The program ------------------------------------------------------------------------------------------------


class OutOfTime(BenchmarkError):
    """The budget ended in the middle of a check."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in the block when so much time is gone."""

    def end(number: int, frame: Any) -> None:
        raise OutOfTime("the time that was left ended")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_check(check: Check, left: float) -> Outcome:
    """Runs one check, whatever comes of it."""
    began = time.perf_counter()

    def outcome(status: str, found: Found) -> Outcome:
        seconds = time.perf_counter() - began
        value, detail = found.value, found.detail
        if value is not None and not math.isfinite(value):
            value, detail = None, detail or "numbers that cannot be compared"
        return Outcome(check.group, check.name, status, seconds, value, found.allowed, detail)

    if left < check.seconds:
        return outcome("skipped", Found(detail=f"takes some {check.seconds:.0f} s, and {max(0, left):.0f} s are left"))
    try:
        with limited(left):
            found = check.run()
    except Skip as reason:
        return outcome("skipped", Found(detail=str(reason)))
    except BenchmarkError as error:
        return outcome("failed", Found(detail=str(error)))
    except Exception as error:  # nothing that one check does ends the others
        return outcome("failed", Found(detail=f"{type(error).__name__}: {one_line(str(error))}"))
    return outcome("passed" if found.holds() else "failed", found)


def outcome_row(outcome: Outcome) -> str:
    """A row of the table of checks."""
    number = lambda value: "-" if value is None else f"{value:.1e}"  # noqa: E731
    status = outcome.status if outcome.status != "failed" else "FAILED"
    return table_row(
        [outcome.group, outcome.name, status, f"{outcome.seconds:.1f}", number(outcome.found), number(outcome.allowed), outcome.detail]
    )


def speed_table(speeds: Sequence[Timed], careful_of: str) -> list[str]:
    """What the rounds took, and the memory of the GPU."""

    def gigabytes(row: Timed, program: str) -> str:
        peak = row.peaks[program].get("device_bytes")
        return "-" if peak is None else three(peak / 1e9)

    columns = ["grids", "dtype", "rometrace s", f"careful loop s, {careful_of}", "careful / rometrace", "GFLOP/s",
               "GPU GB: rometrace", "careful", "largest difference"]  # fmt: skip
    rows = []
    for row in speeds:
        mine, theirs = statistics.median(row.seconds), statistics.median(row.careful_seconds)
        rows.append(
            table_row([row.grids, row.dtype, three(mine), three(theirs), three_or_dash(theirs / mine), three(row.gflops),
                       gigabytes(row, "rometrace"), gigabytes(row, "careful"), f"{row.difference:.1e}"])  # fmt: skip
        )
    return [*table_head(columns), *rows]


CAPTION = (
    f"gpt2-xl's shape, random weights, prompt A (5 tokens), ten draws; medians of {ROUNDS} rounds in which both run in "
    "turn, warm. The careful loop is transformers in the same dtype; its residual stream is in it, too. Differences are "
    "relative: of float32 from the careful loop's scores, else from rometrace's in float32."
)


def check_all(arguments: argparse.Namespace, folder: Path, outcomes: list[Outcome], speeds: list[Timed], began: float) -> None:
    """Runs the checks, row by row."""
    groups = {"engines": engine_checks, "batch": batch_checks, "speed": speed_checks}
    show(*table_head(["group", "check", "result", "s", "largest difference", "allowed", "detail"]))
    with Bench(arguments, folder, speeds) as bench:
        for group in arguments.only:
            for check in groups[group](bench):
                left = arguments.budget - (time.perf_counter() - began)
                outcomes.append(run_check(check, left))
                show(outcome_row(outcomes[-1]))
                if outcomes[-1].status == "failed":
                    bench.end(*list(bench.workers))  # whatever state they are in
            bench.end(*list(bench.workers))  # they hold memory of the GPU


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Checks rometrace on this machine's GPU, and times it there.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: in small, to try the script")
    parser.add_argument("--bin-dir", type=Path, metavar="FOLDER", help="programs that are there (default: build them)")
    parser.add_argument("--budget", type=count_of, default=BUDGET, metavar="SECONDS", help=f"for all (default: {BUDGET})")
    parser.add_argument("--only", type=groups_of, default=list(GROUPS), help=f"some of {','.join(GROUPS)} (default: all)")
    parser.add_argument("--folder", type=Path, help="where the random weights are made, 7 GB (default: a temporary one)")
    parser.add_argument("--threads", type=count_of, default=available_cores(), help="of each program (default: cores)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write all figures there as JSON")
    return parser.parse_args()


def groups_of(text: str) -> list[str]:
    """`--only` as a list."""
    groups = text.split(",")
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no group, expected some of {','.join(GROUPS)}")
    return groups


def gpus_visible() -> int:
    """As this Python's torch counts them, in a process of its own."""
    script = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    return int(run_once([sys.executable, "-c", script]))


def prepare(arguments: argparse.Namespace) -> dict[str, str]:
    """Builds, and says what is checked where. Raises BenchmarkError."""
    if not importlib.util.find_spec("transformers"):
        raise BenchmarkError(f"{sys.executable} has no transformers; give a Python that has it, with torch")
    if arguments.output and (arguments.output.is_dir() or not arguments.output.absolute().parent.is_dir()):
        raise BenchmarkError(f"{arguments.output}: expected the name of a file in a folder that is there")
    torch = torch_folder()
    arguments.gpus = gpus_visible() if arguments.device == "cuda" else 0
    if arguments.device == "cuda" and arguments.gpus == 0:
        raise BenchmarkError(f"torch {version_of(torch)} sees no GPU here; --device cpu tries the script without one")
    arguments.bin_dir = arguments.bin_dir or build(torch)
    for program in ("rometrace", "rometrace_benchmark"):
        if not (arguments.bin_dir / program).is_file():
            raise BenchmarkError(f"{arguments.bin_dir / program} is not there; expected the programs of a build")
    use_torch(torch)
    check_version(arguments.bin_dir, torch)
    about = header(arguments, "scripts/gpu_check")
    if arguments.device == "cuda":
        about["GPUs"] = str(arguments.gpus)
    return about


def gpu_check(arguments: argparse.Namespace, began: float) -> int:
    """Gives the exit status."""
    about = prepare(arguments)
    outcomes: list[Outcome] = []
    speeds: list[Timed] = []
    show(*(f"- {name}: {value}" for name, value in about.items()), "")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="rometrace-gpu-check-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        check_all(arguments, folder, outcomes, speeds, began)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder, ignore_errors=True)
        if arguments.output:
            figures = {"schema": SCHEMA, "header": about, "seconds": time.perf_counter() - began}
            write_json(arguments.output, figures | {"checks": outcomes, "speed": speeds})
    counts = {status: sum(one.status == status for one in outcomes) for status in ("passed", "failed", "skipped")}
    if speeds:
        show("", *speed_table(speeds, arguments.device), "", CAPTION)
    show("", ", ".join(f"{count} {status}" for status, count in counts.items()) + f"; {time.perf_counter() - began:.0f} s")
    return 1 if counts["failed"] else 0


def main() -> int:
    began = time.perf_counter()
    go_on_with("transformers")
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        return gpu_check(arguments, began)
    except (BenchmarkError, OSError) as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
