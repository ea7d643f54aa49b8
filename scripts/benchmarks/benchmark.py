#!/usr/bin/env python3
"""Times rometrace beside two programs over Hugging Face transformers, on random checkpoints of GPT-2's shapes.

    scripts/benchmarks/benchmark.py --quick                        gpt2 only, about a minute
    scripts/benchmarks/benchmark.py                                gpt2, gpt2-medium and gpt2-xl
    scripts/benchmarks/benchmark.py --methods --shapes gpt2        what kinds cost, alone and riding in one sweep
    scripts/benchmarks/benchmark.py --growth --shapes gpt2         how cost grows with tokens, draws and threads
    scripts/benchmarks/benchmark.py --moments --shapes gpt2        how fast second moments of keys are collected
    scripts/benchmarks/benchmark.py --overhead                     what the tool takes beyond starting libtorch

The programs over transformers are scripts/benchmarks/benchmark_transformers.py: the reference's procedure, one run of the whole
model for each cell, and a careful loop over layers. Each program has a process of its own, loads a checkpoint once, and
is timed in turn with the others, round by round, so that the machine's noise hits all alike. Their scores are
compared. With --methods so are the kinds: in turn, in one process, each kind's scores alone with those in company.
Checkpoints are made once, in $XDG_CACHE_HOME or ~/.cache, folder rometrace/benchmark.

Results go to stdout as Markdown, progress to stderr. Exit status: 0 measured; 1 scores that should agree differ; 2
could not run; 130 interrupted. Needs transformers, which scripts/test installs into .venv, and a release build.

Letters: N noise draws, T tokens, L layers, D width, V vocabulary.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import itertools
import json
import math
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Iterable, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from rometrace.prepared import go_on_with  # noqa: E402

SCHEMA = "rometrace/benchmark/1"
REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = 10  # N
SIGMA = 0.06  # 3 x the 0.02 that is the standard deviation of a random checkpoint's token embeddings
SEED = 1
WINDOW = 10  # layers, for mlp and attn
LARGEST_DIFFERENCE = 1e-4  # relative, of two float32 programs' scores; they come to about 1e-6
PRODUCT_ROWS = 1024  # of the block on which the packed products are timed
STATES = ("state",)
ALL_KINDS = ("state", "mlp", "attn")
SEVERED = ("state_mlp_severed", "state_attn_severed")
HEAD_WINDOW = 1
KNOCKOUT_WINDOW = 9
OVERHEAD_ROUNDS = 15
GROWTH_TOKENS = (5, 10, 20, 40)
GROWTH_SAMPLES = (1, 10, 50)
MOMENT_LAYERS = {"gpt2": 5, "gpt2-medium": 8, "gpt2-xl": 17}
MOMENT_TEXTS = ((52, 79), (1024, 4))  # tokens of each text, texts: some 4100 tokens
FULL_SHAPE = "gpt2-xl"  # of which the comparison measures all kinds and bfloat16 too


class BenchmarkError(Exception):
    """What was found, what was expected, what to do; in one line."""

    status = 2


class ScoresDiffer(BenchmarkError):
    """Two programs, or two runs of one, do not agree: nothing that was timed counts."""

    status = 1


@dataclass(frozen=True)
class Prompt:
    """One prompt as GPT-2's tokens: a random checkpoint has no tokeniser."""

    name: str
    text: str
    token_ids: tuple[int, ...]
    subject_range: tuple[int, int]

    def request(self, samples: int = SAMPLES) -> dict[str, Any]:
        """The fields of a request that say what is traced."""
        return {
            "token_ids": self.token_ids,
            "subject_range": self.subject_range,
            "window": WINDOW,
            "samples": samples,
            "seed": SEED,
            "sigma": SIGMA,
        }


PROMPTS = {
    "A": Prompt("A", "Miles Davis plays the", (44, 2915, 7802, 5341, 262), (0, 3)),
    "B": Prompt(
        "B",
        "The mother tongue of Danielle Darrieux is",
        (464, 2802, 11880, 286, 39808, 7491, 5034, 2821, 318),
        (4, 8),
    ),
}


@dataclass(frozen=True)
class Plan:
    """How much of a shape is measured; the rest is extrapolated."""

    rounds: int
    cells: int
    """Of each grid, run by the reference's procedure in each round."""
    layers: int
    """Run by the careful loop in each round."""
    warm_samples: int
    """N of rometrace's untimed first run: all draws where that is affordable."""


PLANS = {
    "gpt2": Plan(rounds=5, cells=20, layers=12, warm_samples=SAMPLES),
    "gpt2-medium": Plan(rounds=5, cells=12, layers=7, warm_samples=SAMPLES),
    "gpt2-xl": Plan(rounds=3, cells=6, layers=5, warm_samples=1),
}
QUICK = Plan(rounds=2, cells=6, layers=5, warm_samples=SAMPLES)


@dataclass(frozen=True)
class Checkpoint:
    """A random checkpoint in the cache."""

    shape: str
    folder: Path
    layers: int
    width: int
    vocabulary: int
    weights_bytes: int

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"


@dataclass(frozen=True)
class Loaded:
    """How long one program took to load one checkpoint."""

    shape: str
    program: str
    seconds: float
    first_product_seconds: float | None
    """From the start of loading; only rometrace says it."""


@dataclass(frozen=True)
class Case:
    """What one row of the comparison traces."""

    checkpoint: Checkpoint
    prompt: Prompt
    kinds: tuple[str, ...]
    plan: Plan

    def __str__(self) -> str:
        return f"{self.checkpoint.shape}, {self.prompt.name}, {' + '.join(self.kinds)}"

    @property
    def grid_cells(self) -> int:
        return len(self.prompt.token_ids) * self.checkpoint.layers

    def cells(self) -> list[tuple[int, int]]:
        """Cells (t, l) for the reference's procedure, spread; on the careful loop's layers if these are enough."""
        sampled = spread(self.plan.layers, self.checkpoint.layers)
        tokens = len(self.prompt.token_ids)
        columns = sampled if self.plan.cells <= tokens * len(sampled) else range(self.checkpoint.layers)
        cells = list(itertools.product(range(tokens), columns))
        count = min(self.plan.cells, len(cells))
        return [cells[index * len(cells) // count] for index in range(count)]

    def layers(self) -> list[int]:
        """Layers for the careful loop, which traces states only."""
        return spread(self.plan.layers, self.checkpoint.layers) if self.kinds == STATES else []


@dataclass(frozen=True)
class Round:
    """What one round of a case gave."""

    product_gflops: float | None
    """Rate of the packed products alone; None on a GPU without them."""
    seconds: dict[str, float]
    """Program -> a grid, or all grids, extrapolated to all cells."""
    flops: float
    """Floating-point operations of rometrace's run, by its own count."""
    scores: dict[str, float]
    """rometrace's: "high_score", "low_score", "state 2 17" for position 2 and layer 17."""
    difference: float
    """Largest relative difference of a score between two programs."""
    answer_id: int
    """The token that rometrace followed."""


@dataclass(frozen=True)
class Measured:
    """One row of the comparison."""

    shape: str
    prompt: str
    kinds: tuple[str, ...]
    dtype: str
    rounds: list[Round]
    grid_cells: int
    sampled_cells: int
    """Of each grid, run by the reference's procedure in each round."""
    layers: int
    sampled_layers: int
    """Run by the careful loop in each round."""
    peaks: dict[str, dict[str, int]]
    """Program -> its peak memory from its start to the end of this row."""
    weights_bytes: int
    reference_seconds: float
    """Median; of the float32 row with the same prompt and kinds if the row is bfloat16's."""
    largest_error: float | None = None
    """bfloat16: largest difference of a score from float32's."""
    total_effect: float | None = None
    """bfloat16: float32's."""

    def median_seconds(self, program: str) -> float | None:
        """None if the program does not run in this row."""
        return median_or_none(one.seconds.get(program) for one in self.rounds)

    def product_gflops(self) -> float | None:
        return median_or_none(one.product_gflops for one in self.rounds)


def median_or_none(values: Iterable[float | None]) -> float | None:
    """Of the values that are there; None if there are none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def say(text: str) -> None:
    """A line of progress."""
    print(f"{Path(sys.argv[0]).name}: {text}", file=sys.stderr, flush=True)


def show(*lines: str) -> None:
    """Lines of the result."""
    print("\n".join(lines), flush=True)


# --- Programs ---------------------------------------------------------------------------------------------------


class Worker:
    """A program in a process of its own that answers requests, one JSON object a line; ended with the `with` block."""

    def __init__(self, name: str, command: Sequence[str | Path]) -> None:
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                process_group=0,  # Ctrl-C is for this program, which then ends its workers
            )
        except OSError as error:
            raise BenchmarkError(f"{command[0]}: cannot be started ({error.strerror})") from None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(OSError):  # a dead program's request was not written
            self.process.stdin.close()
        self.errors.close()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The program's answer to one request."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise BenchmarkError(f'{self.name} ended instead of answering "{op}" ({self.last_words()})')
        try:
            answer = json.loads(line)
        except ValueError:
            raise BenchmarkError(f"{self.name} answered {line.strip()!r}, expected a JSON object") from None
        if "error" in answer:
            raise BenchmarkError(f'{self.name} could not do "{op}": {one_line(answer["error"])}')
        return answer

    def last_words(self) -> str:
        """What the program, now dead, said last."""
        status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return f"exit status {status}" + (f": {lines[-1]}" if lines else "")


def one_line(text: str) -> str:
    """`text` with each run of blanks and line ends as one blank."""
    return " ".join(text.split())


def start_rometrace(arguments: argparse.Namespace) -> Worker:
    return Worker("rometrace_benchmark", [arguments.bin_dir / "rometrace_benchmark"])


def start_transformers(name: str) -> Worker:
    return Worker(name, [sys.executable, REPOSITORY / "scripts/benchmarks/benchmark_transformers.py"])


def load(
    worker: Worker, checkpoint: Checkpoint, arguments: argparse.Namespace, dtype: str = "float32", **more: Any
) -> Loaded:
    """Loads the checkpoint, with its file in the page cache."""
    read_once(checkpoint.weights)
    answer = worker.ask(
        "load", folder=str(checkpoint.folder), dtype=dtype, device=arguments.device, threads=arguments.threads, **more
    )
    say(f"{checkpoint.shape}: {worker.name} loaded in {three(answer['seconds'])} s")
    program = worker.name if dtype == "float32" else f"{worker.name}, {dtype}"
    return Loaded(checkpoint.shape, program, answer["seconds"], answer.get("first_product_seconds"))


def read_once(file: Path) -> None:
    """Brings a file into the page cache."""
    with open(file, "rb", buffering=0) as opened:
        while opened.read(1 << 24):
            pass


def product_rate(worker: Worker, arguments: argparse.Namespace) -> float | None:
    """GFLOP/s of the packed products alone; None on a GPU where the program has none."""
    try:
        return worker.ask("products", rows=PRODUCT_ROWS)["gflops"]
    except BenchmarkError:
        if arguments.device == "cpu":
            raise
        return None


# --- Checkpoints ------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rometrace/benchmark"


def find_checkpoint(shape: str) -> Checkpoint:
    """The random checkpoint of a shape, made if it is not in the cache; the file of weights is written last."""
    folder = cache_folder() / shape
    if not (folder / "model.safetensors").exists():
        say(f"making {folder}")
        run_once([sys.executable, str(REPOSITORY / "scripts/benchmarks/make_random_checkpoint.py"), str(folder), "--shape", shape])
    return read_checkpoint(shape, folder)


def read_checkpoint(shape: str, folder: Path) -> Checkpoint:
    """A checkpoint of GPT-2's that is there."""
    config = json.loads((folder / "config.json").read_text())
    size = (folder / "model.safetensors").stat().st_size
    return Checkpoint(shape, folder, config["n_layer"], config["n_embd"], config["vocab_size"], size)


def run_once(command: Sequence[str]) -> str:
    """What a command writes to stdout. Raises BenchmarkError with its last line on stderr if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROMETRACE_")}
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        raise BenchmarkError(f"{command[0]}: cannot be started ({error.strerror})") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchmarkError(f"{Path(command[0]).name} failed with exit status {done.returncode} ({last})")
    return done.stdout


# --- What is sampled, and what it stands for --------------------------------------------------------------------


def spread(count: int, of: int) -> list[int]:
    """`count` of the numbers 0 .. of - 1, evenly spread, both ends among them."""
    count = min(max(2, count), of)
    return [round(index * (of - 1) / max(1, count - 1)) for index in range(count)]


def reference_grid_seconds(answer: dict[str, Any], cells: int) -> float:
    """Seconds for all grids of `cells` cells each: a run costs the same wherever it restores."""
    return sum(statistics.fmean(seconds) * cells for seconds in answer["seconds"].values())


def careful_grid_seconds(answer: dict[str, Any], sampled: Sequence[int], layers: int) -> float:
    """Seconds for all layers: a line fitted to the sampled ones, over the number of blocks after each."""
    passes = [layers - 1 - layer for layer in sampled]
    if len(passes) < 2:
        return answer["base_seconds"] + sum(answer["seconds"])
    line = statistics.linear_regression(passes, answer["seconds"])
    return answer["base_seconds"] + layers * line.intercept + line.slope * layers * (layers - 1) / 2


# --- Scores -----------------------------------------------------------------------------------------------------


def ends_of(answer: dict[str, Any]) -> dict[str, float]:
    return {name: answer[name] for name in ("high_score", "low_score")}


def rometrace_scores(answer: dict[str, Any]) -> dict[str, float]:
    grids = {
        f"{kind} {t} {layer}": score
        for kind, grid in answer["scores"].items()
        for t, row in enumerate(grid)
        for layer, score in enumerate(row)
    }
    return ends_of(answer) | grids


def reference_scores(answer: dict[str, Any], cells: Sequence[tuple[int, int]]) -> dict[str, float]:
    grids = {
        f"{kind} {t} {layer}": score
        for kind, scores in answer["scores"].items()
        for (t, layer), score in zip(cells, scores, strict=True)
    }
    return ends_of(answer) | grids


def careful_scores(answer: dict[str, Any], sampled: Sequence[int], begin: int) -> dict[str, float]:
    grid = {
        f"state {begin + row} {layer}": score
        for layer, scores in zip(sampled, answer["scores"], strict=True)
        for row, score in enumerate(scores)
    }
    return ends_of(answer) | grid


def relative_difference(one: float, other: float) -> float:
    """|one - other| over the larger; infinite if either is no number."""
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return 0.0 if one == other else abs(one - other) / max(abs(one), abs(other))


def compare_scores(where: str, programs: dict[str, dict[str, float]]) -> float:
    """Largest relative difference of any two programs (or runs of one) in a score that both have. Raises ScoresDiffer
    if too large."""
    largest = 0.0
    for (one, mine), (other, theirs) in itertools.combinations(programs.items(), 2):
        for cell in mine.keys() & theirs.keys():
            difference = relative_difference(mine[cell], theirs[cell])
            if difference > LARGEST_DIFFERENCE:
                raise ScoresDiffer(
                    f"{where}: {one} and {other} differ by {difference:.1e}, relative, in {cell} "
                    f"({mine[cell]!r} and {theirs[cell]!r}); expected at most {LARGEST_DIFFERENCE:.0e}"
                )
            largest = max(largest, difference)
    return largest


# --- Comparison -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Programs:
    """The processes that are compared on one checkpoint, all loaded."""

    rometrace: Worker
    reference: Worker
    careful: Worker


def compare(arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Prints the comparison, row by row, then the times of loading."""
    show("## One grid", "", *table_head(COLUMNS))
    for shape in arguments.shapes:
        checkpoint = find_checkpoint(shape)
        compare_programs(checkpoint, arguments, figures)
        if shape == FULL_SHAPE:
            compare_bfloat16(checkpoint, arguments, figures)
    show("", *comparison_caption(arguments, figures["comparison"]), "", *loading_table(figures["loading"]), "")


def compare_programs(checkpoint: Checkpoint, arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """The float32 rows of one checkpoint."""
    chosen = [("A", STATES), ("B", STATES)] + ([("A", ALL_KINDS)] if checkpoint.shape == FULL_SHAPE else [])
    with (
        start_rometrace(arguments) as rometrace,
        start_transformers("the reference's procedure") as reference,
        start_transformers("the careful loop") as careful,
    ):
        programs = Programs(rometrace, reference, careful)
        figures["loading"] += [load(worker, checkpoint, arguments) for worker in vars(programs).values()]
        for prompt, kinds in chosen:
            case = Case(checkpoint, PROMPTS[prompt], kinds, arguments.plans[checkpoint.shape])
            row = compare_case(programs, case, arguments)
            figures["comparison"].append(row)
            show(table_row(cells_of(row)))


def compare_case(programs: Programs, case: Case, arguments: argparse.Namespace) -> Measured:
    """One row: an untimed run of each program, then all in turn, round by round."""
    say(f"{case}: untimed first runs")
    warm_up(programs, case)
    rounds = []
    for number in range(1, case.plan.rounds + 1):
        rounds.append(run_round(programs, case, arguments))
        times = ", ".join(f"{name} {three(seconds)} s" for name, seconds in rounds[-1].seconds.items())
        say(f"{case}: round {number} of {case.plan.rounds}: {times}")
    return Measured(
        shape=case.checkpoint.shape,
        prompt=case.prompt.name,
        kinds=case.kinds,
        dtype="float32",
        rounds=rounds,
        grid_cells=case.grid_cells,
        sampled_cells=len(case.cells()),
        layers=case.checkpoint.layers,
        sampled_layers=len(case.layers()),
        peaks={name: getattr(programs, name).ask("peak") for name in rounds[0].seconds},
        weights_bytes=case.checkpoint.weights_bytes,
        reference_seconds=statistics.median(one.seconds["reference"] for one in rounds),
    )


def warm_up(programs: Programs, case: Case) -> None:
    """An untimed run of each program: of rometrace with the plan's draws, of the others for one cell and two layers."""
    trace_with_rometrace(programs.rometrace, case.prompt, case.kinds, case.plan.warm_samples)
    programs.reference.ask("cells", **case.prompt.request(), kinds=STATES, cells=case.cells()[:1])
    if case.layers():
        programs.careful.ask("layers", **case.prompt.request(), layers=case.layers()[-2:])


def run_round(programs: Programs, case: Case, arguments: argparse.Namespace) -> Round:
    """The packed products and each program, once. Raises ScoresDiffer if two programs' scores do."""
    rate = product_rate(programs.rometrace, arguments)
    traced = trace_with_rometrace(programs.rometrace, case.prompt, case.kinds)
    seconds = {"rometrace": traced["seconds"]}
    scores = {"rometrace": rometrace_scores(traced)}

    cells = case.cells()
    answer = programs.reference.ask("cells", **case.prompt.request(), kinds=case.kinds, cells=cells)
    seconds["reference"] = reference_grid_seconds(answer, case.grid_cells)
    scores["the reference's procedure"] = reference_scores(answer, cells)

    if layers := case.layers():
        answer = programs.careful.ask("layers", **case.prompt.request(), layers=layers)
        seconds["careful"] = careful_grid_seconds(answer, layers, case.checkpoint.layers)
        scores["the careful loop"] = careful_scores(answer, layers, case.prompt.subject_range[0])
    difference = compare_scores(str(case), scores)
    return Round(rate, seconds, traced["flops"], scores["rometrace"], difference, traced["answer_id"])


def trace_with_rometrace(
    worker: Worker, prompt: Prompt, kinds: Sequence[str], samples: int = SAMPLES, **more: Any
) -> dict[str, Any]:
    """One run of the sweep."""
    return worker.ask("trace", **prompt.request(samples), kinds=kinds, engine="sweep", **more)


def compare_bfloat16(checkpoint: Checkpoint, arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """The bfloat16 row: rometrace alone, beside the checkpoint's first float32 row."""
    exact = next(row for row in figures["comparison"] if row.shape == checkpoint.shape)
    case = Case(checkpoint, PROMPTS[exact.prompt], exact.kinds, arguments.plans[checkpoint.shape])
    followed = {"target": exact.rounds[0].answer_id}  # whatever bfloat16 would answer
    rounds = []
    with start_rometrace(arguments) as worker:
        figures["loading"].append(load(worker, checkpoint, arguments, "bfloat16"))
        trace_with_rometrace(worker, case.prompt, case.kinds, case.plan.warm_samples)
        for number in range(1, case.plan.rounds + 1):
            rate = product_rate(worker, arguments)
            traced = trace_with_rometrace(worker, case.prompt, case.kinds, **followed)
            seconds = {"rometrace": traced["seconds"]}
            scores = rometrace_scores(traced)
            rounds.append(Round(rate, seconds, traced["flops"], scores, 0.0, traced["answer_id"]))
            say(f"{case}, bfloat16: round {number} of {case.plan.rounds}: {three(traced['seconds'])} s")
        peaks = {"rometrace": worker.ask("peak")}
    known = exact.rounds[0].scores
    row = replace(
        exact,
        dtype="bfloat16",
        rounds=rounds,
        peaks=peaks,
        largest_error=max(abs(score - known[cell]) for cell, score in rounds[0].scores.items()),
        total_effect=abs(known["high_score"] - known["low_score"]),
    )
    figures["comparison"].append(row)
    show(table_row(cells_of(row)))


# --- Methods ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """Kinds that are traced in one sweep."""

    kinds: tuple[str, ...]
    positions: str = "all"
    """Of all kinds but the knockout, which has groups of positions."""

    def __str__(self) -> str:
        kinds = " + ".join(self.kinds).replace(" + ".join(SEVERED), "both severed")
        return kinds if self.positions == "all" else f"{kinds}, {self.positions}"

    def parts(self) -> list[Variant]:
        """Its kinds, each alone; none if it is alone."""
        if len(self.kinds) == 1:
            return []
        return [Variant((kind,), "all" if kind == "knockout" else self.positions) for kind in self.kinds]


ALONE = Variant(STATES)  # whose rate is the others' measure
JOINED = (
    Variant(ALL_KINDS),
    Variant((*ALL_KINDS, *SEVERED)),
    Variant((*ALL_KINDS, *SEVERED, "knockout")),
    Variant((*ALL_KINDS, *SEVERED, "knockout", "head"), "subject-last"),
)
# ALONE comes first, and the parts of a joined variant before it.
NEURONS = Variant(("neuron",), "subject-last")
VARIANTS = (*dict.fromkeys(variant for joined in JOINED for variant in (*joined.parts(), joined)), NEURONS)


@dataclass(frozen=True)
class MethodRound:
    """What one round of a row of the methods gave."""

    product_gflops: float | None
    """Rate of the packed products alone; None on a GPU without them."""
    state_gflops: float
    """Rate of the states alone."""
    seconds: float
    parts_seconds: float
    """Of the parts together; 0 without parts."""
    difference: float
    """Largest relative difference of a score from the part's own; 0 without parts."""


@dataclass(frozen=True)
class Method:
    """One row of the methods."""

    shape: str
    prompt: str
    variant: Variant
    rounds: list[MethodRound]
    flops: float
    """Floating-point operations, by rometrace's own count."""
    parts_flops: float
    """Of the parts together; 0 without parts."""
    token_layers: dict[str, int]
    """Group of products -> rows times layers."""
    passes: int

    def seconds(self) -> float:
        return statistics.median(one.seconds for one in self.rounds)

    def of_state_rate(self) -> float:
        """Its rate over that of the states alone."""
        return statistics.median(self.flops / one.seconds / 1e9 / one.state_gflops for one in self.rounds)

    def of_parts_operations(self) -> float | None:
        """Its seconds over those that its parts' operations take at the rate of the states alone."""
        if not self.parts_flops:
            return None
        return statistics.median(one.seconds * one.state_gflops * 1e9 / self.parts_flops for one in self.rounds)

    def of_parts_seconds(self) -> float | None:
        """Its seconds over its parts'."""
        if not self.parts_flops:
            return None
        return statistics.median(one.seconds / one.parts_seconds for one in self.rounds)


def methods(arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Prints what the kinds cost, alone and riding in one sweep."""
    show("## Kinds in one sweep", "", *table_head(METHOD_COLUMNS))
    for shape in arguments.shapes:
        checkpoint = find_checkpoint(shape)
        with start_rometrace(arguments) as worker:
            load(worker, checkpoint, arguments)
            for prompt in PROMPTS.values():
                rows = measure_methods(worker, checkpoint, prompt, arguments.plans[shape], arguments)
                figures["methods"] += rows
                show(*(table_row(method_cells(row)) for row in rows))
    show("", *methods_caption(arguments), "")


def measure_methods(
    worker: Worker, checkpoint: Checkpoint, prompt: Prompt, plan: Plan, arguments: argparse.Namespace
) -> list[Method]:
    """The rows of one prompt: an untimed run of each variant, then all in turn, round by round."""
    where = f"{checkpoint.shape}, {prompt.name}"
    say(f"{where}: untimed first runs")
    for variant in VARIANTS:
        trace_variant(worker, prompt, variant, plan.warm_samples)
    rounds: dict[Variant, list[MethodRound]] = {variant: [] for variant in VARIANTS}
    for number in range(1, plan.rounds + 1):
        rate = product_rate(worker, arguments)
        traced = {variant: trace_variant(worker, prompt, variant) for variant in VARIANTS}
        for variant in VARIANTS:
            rounds[variant].append(method_round(where, variant, traced, rate))
        say(f"{where}: round {number} of {plan.rounds}: {three(sum(one['seconds'] for one in traced.values()))} s")
    return [
        Method(
            shape=checkpoint.shape,
            prompt=prompt.name,
            variant=variant,
            rounds=rounds[variant],
            flops=traced[variant]["flops"],
            parts_flops=sum(traced[part]["flops"] for part in variant.parts()),
            token_layers=traced[variant]["token_layers"],
            passes=traced[variant]["passes"],
        )
        for variant in VARIANTS
    ]


def trace_variant(worker: Worker, prompt: Prompt, variant: Variant, samples: int = SAMPLES) -> dict[str, Any]:
    """One run of the sweep."""
    windows = {"head_window": HEAD_WINDOW, "knockout_window": KNOCKOUT_WINDOW}
    return trace_with_rometrace(worker, prompt, variant.kinds, samples, positions=variant.positions, **windows)


def method_round(
    where: str, variant: Variant, traced: dict[Variant, dict[str, Any]], rate: float | None
) -> MethodRound:
    """The variant's figures of one round. Raises ScoresDiffer if a kind's scores in company are not those alone."""
    alone: dict[str, float] = {}
    for part in variant.parts():
        alone |= rometrace_scores(traced[part])
    return MethodRound(
        product_gflops=rate,
        state_gflops=traced[ALONE]["flops"] / traced[ALONE]["seconds"] / 1e9,
        seconds=traced[variant]["seconds"],
        parts_seconds=sum(traced[part]["seconds"] for part in variant.parts()),
        difference=compare_scores(
            f"{where}, {variant}",
            {"the kinds in one sweep": rometrace_scores(traced[variant]), "each kind alone": alone},
        ),
    )


METHOD_COLUMNS = (
    "shape",
    "prompt",
    "grids",
    "s",
    "TFLOP",
    "token-layers: keys and values",
    "attention",
    "MLP",
    "GFLOP/s",
    "% of the states' rate",
    "packed products GFLOP/s",
    "%",
    "s / parts' operations at the states' rate",
    "s / parts' s",
    "largest difference",
)


def method_cells(row: Method) -> list[str]:
    """One row of the methods."""
    rate = row.flops / row.seconds() / 1e9
    products = median_or_none(one.product_gflops for one in row.rounds)
    return [
        row.shape,
        row.prompt,
        str(row.variant),
        three(row.seconds()),
        three(row.flops / 1e12),
        *(str(row.token_layers[group]) for group in ("keys_values", "attention", "mlp")),
        three(rate),
        f"{100 * row.of_state_rate():.0f}",
        three_or_dash(products),
        percent_or_dash(rate, products),
        three_or_dash(row.of_parts_operations()),
        three_or_dash(row.of_parts_seconds()),
        f"{max(one.difference for one in row.rounds):.1e}" if row.parts_flops else "-",
    ]


def methods_caption(arguments: argparse.Namespace) -> list[str]:
    rounds = ", ".join(f"{shape} {arguments.plans[shape].rounds}" for shape in arguments.shapes)
    return [
        "Medians over rounds in which all rows of a prompt, warm, run in turn in one process "
        f"(rounds: {rounds}). {settings_caption(arguments)}, heads' window {HEAD_WINDOW}, knockout's window "
        f"{KNOCKOUT_WINDOW}. subject-last: patches at the last token of the subject only. neuron: the 20 neurons that the "
        "gradient ranks first, the sets with their controls, and the search for half; without the ranking's seconds.",
        "",
        "The operations are those of the products that the token-layers go through, by rometrace's own count, and of "
        "the head; the seconds hold attention's sums and the clean run as well. The states' rate is that of all states "
        "alone, the first row, in the same round. The parts of a row are its kinds, each alone; what a row takes is "
        "set beside the sum of their operations at the states' rate, and beside the sum of their own seconds: up to 1, "
        "riding together costs no more than that. Part of the gain is that kinds in company share the unpatched run, "
        "which each alone has to itself; the row's own % of the states' rate does not hold that gain. The second % is "
        f"of the packed products alone on {PRODUCT_ROWS} rows, measured in the same rounds. Largest difference: "
        "relative, of any score in company from the same score of the part "
        f"(allowed: {LARGEST_DIFFERENCE:.0e}).",
    ]


# --- Growth -----------------------------------------------------------------------------------------------------


def predict_flops(checkpoint: Checkpoint, tokens: int, begin: int, samples: int) -> float:
    """Operations of a sweep over the states, two for each multiply-add; the clean run and attention's sums left out.

    The corrupted run has N (T - b) rows. A patch at position t adds T - t rows to every later layer; at the subject's
    first position the restored row itself is the clean one, whose keys and values are computed once. The last layer
    needs the keys and values of all rows, everything else of the last position only.
    """
    layers, width = checkpoint.layers, checkpoint.width
    length = tokens - begin
    patch_rows = length * (length + 1) // 2 - 1

    def rows_of(passed: int) -> int:
        return samples * (length * passed + patch_rows * passed * (passed - 1) // 2)

    answers = samples * (1 + length * (layers - 1))
    keys_values = 4 * width**2 * (rows_of(layers) + layers * (begin + 1))
    others = 20 * width**2 * (rows_of(layers - 1) + answers)
    return keys_values + others + 2 * width * checkpoint.vocabulary * answers


@dataclass(frozen=True)
class Grown:
    """One run of the growth table."""

    shape: str
    tokens: int
    samples: int
    threads: int
    predicted_flops: float
    predicted_seconds: float
    seconds: float | None = None
    """None where the prediction was over the limit."""
    flops: float | None = None
    """As rometrace counted them."""

    def __str__(self) -> str:
        return f"{self.shape}, threads {self.threads}, N = {self.samples}, T = {self.tokens}"


def growth(arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Prints how the seconds of a grid of states grow, beside what the number of operations predicts."""
    head = ["shape", "threads", "packed products GFLOP/s", "N", *(f"T = {tokens}" for tokens in GROWTH_TOKENS)]
    show("## How cost grows", "", *table_head(head))
    for shape in arguments.shapes:
        checkpoint = find_checkpoint(shape)
        with start_rometrace(arguments) as worker:
            load(worker, checkpoint, arguments)
            for threads in growth_threads(arguments):
                worker.ask("threads", threads=threads)
                figures["growth"] += grow(worker, checkpoint, threads, arguments)
    show("", *growth_caption(arguments, figures["growth"]), "")


def growth_threads(arguments: argparse.Namespace) -> list[int]:
    """One thread and the number asked for; on a GPU the latter only."""
    return sorted({1, arguments.threads}) if arguments.device == "cpu" else [arguments.threads]


def grow(worker: Worker, checkpoint: Checkpoint, threads: int, arguments: argparse.Namespace) -> list[Grown]:
    """The rows of one shape and number of threads."""
    rate = product_rate(worker, arguments)
    if rate is None:
        raise BenchmarkError("--growth needs the rate of the packed products, which rometrace_benchmark does not give")
    runs = []
    for samples in GROWTH_SAMPLES:
        row = []
        for tokens in GROWTH_TOKENS:
            flops = predict_flops(checkpoint, tokens, 0, samples)
            run = Grown(checkpoint.shape, tokens, samples, threads, flops, flops / rate / 1e9)
            row.append(run_if_short(worker, run, arguments.growth_limit))
        show(table_row([checkpoint.shape, str(threads), three(rate), str(samples), *map(growth_cell, row)]))
        runs += row
    return runs


def run_if_short(worker: Worker, run: Grown, limit: float) -> Grown:
    """`run` with its time, unless it is predicted to take over `limit` seconds."""
    if run.predicted_seconds > limit:
        say(f"{run}: left out, predicted {three(run.predicted_seconds)} s")
        return run
    prompt = Prompt("growth", "", tuple(range(1000, 1000 + run.tokens)), (0, run.tokens // 2))
    traced = trace_with_rometrace(worker, prompt, STATES, run.samples)
    say(f"{run}: {three(traced['seconds'])} s, predicted {three(run.predicted_seconds)} s")
    return replace(run, seconds=traced["seconds"], flops=traced["flops"])


def growth_cell(run: Grown) -> str:
    """Seconds, and in brackets the predicted ones."""
    return f"{three_or_dash(run.seconds)} ({three(run.predicted_seconds)})"


def growth_caption(arguments: argparse.Namespace, runs: Sequence[Grown]) -> list[str]:
    off = [abs(run.flops / run.predicted_flops - 1) for run in runs if run.flops is not None]
    counted = f" They are within {max(off):.1%} of those that rometrace counted." if off else ""
    return [
        "Seconds of rometrace for a grid of states, one run each, and in brackets what is predicted: the operations "
        "of the formula over the rate of the packed products of that shape and number of threads. "
        f"- : predicted over {arguments.growth_limit:g} s, not run. Subject: tokens 0 .. T/2 - 1. The operations "
        f"leave out the clean run.{counted}"
    ]


# --- Second moments ---------------------------------------------------------------------------------------------


@dataclass
class MomentRow:
    """The best of some rounds, and the best rate of the packed products that were timed in turn."""

    shape: str
    layer: int
    texts: int
    length: int
    seconds: float
    gflops: float
    product_gflops: float | None


def moments(arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """The rate at which second moments are collected, beside that of the packed products alone."""
    show("## Second moments of keys", "", *table_head(["shape", "layer", "texts x tokens", "s", "GFLOP/s", "of products"]))
    rows = figures["moments"] = []
    for shape in arguments.shapes:
        checkpoint = find_checkpoint(shape)
        with start_rometrace(arguments) as worker:
            load(worker, checkpoint, arguments)
            for length, texts in MOMENT_TEXTS:
                row = collect_moments(worker, checkpoint, length, texts, arguments)
                rows.append(row)
                rate, part = three(row.gflops), percent_or_dash(row.gflops, row.product_gflops)
                show(table_row([shape, str(row.layer), f"{texts} x {length}", three(row.seconds), rate, part]))
    show(
        "",
        "The formula's operations (all products of the layers up to the one named, and 2 F^2 a token) by the time of the "
        f"best round; the last column is that rate in the packed products' best on {PRODUCT_ROWS} rows, timed in turn.",
        "",
    )


def collect_moments(
    worker: Worker, checkpoint: Checkpoint, length: int, texts: int, arguments: argparse.Namespace
) -> MomentRow:
    """The first round, which packs weights, does not count; so the products are timed too."""
    layer = MOMENT_LAYERS[checkpoint.shape]
    request = {"layers": [layer], "length": length, "texts": texts, "seed": SEED}
    answers, rates = [], []
    for number in range(arguments.plans[checkpoint.shape].rounds + 1):
        rates.append(product_rate(worker, arguments))
        answers.append(worker.ask("moments", **request))
        say(f"{checkpoint.shape}, {texts} x {length}: {three(answers[-1]['seconds'])} s")
        if answers[-1]["traces"] != answers[0]["traces"]:
            raise ScoresDiffer(f"{checkpoint.shape}: two runs gave other moments")
    seconds = min(answer["seconds"] for answer in answers[1:])
    return MomentRow(
        shape=checkpoint.shape,
        layer=layer,
        texts=texts,
        length=length,
        seconds=seconds,
        gflops=answers[0]["flops"] / seconds / 1e9,
        product_gflops=max((rate for rate in rates[1:] if rate is not None), default=None),
    )


# --- Overhead ---------------------------------------------------------------------------------------------------


def overhead(arguments: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Prints what a whole run of the tool on the demo model takes beyond a program that only starts libtorch."""
    tool = [str(arguments.bin_dir / "rometrace"), "--prompt", "Miles Davis plays the", "--subject", "Miles Davis"]
    commands = {"rometrace": tool, "one tensor": [str(arguments.bin_dir / "rometrace_benchmark"), "--one-tensor"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(OVERHEAD_ROUNDS + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            run_once(command)
            if number > 0:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    figures["overhead"] = seconds
    show(
        "## What the tool takes on the demo model",
        "",
        *table_head(["process", "median s", "least s", "most s"]),
        *(
            table_row([name, f"{medians[name]:.3f}", f"{min(values):.3f}", f"{max(values):.3f}"])
            for name, values in seconds.items()
        ),
        table_row(["difference", f"{medians['rometrace'] - medians['one tensor']:.3f}", "", ""]),
        "",
        f"Wall time of whole processes, {OVERHEAD_ROUNDS} each, in turn, after one untimed: `{shlex.join(tool[1:])}` "
        "(all three grids, stdout a pipe), and a program that makes one tensor with libtorch and ends.",
        "",
    )


# --- Tables -----------------------------------------------------------------------------------------------------


COLUMNS = (
    "shape",
    "prompt",
    "grids",
    "rometrace s",
    "reference's procedure s",
    "careful loop s",
    "reference / rometrace",
    "careful / rometrace",
    "rometrace GFLOP/s",
    "packed products GFLOP/s",
    "%",
    "peak GB: rometrace",
    "reference",
    "careful",
    "weights file GB",
    "largest difference",
)


def table_head(columns: Sequence[str]) -> list[str]:
    return [table_row(columns), table_row(["---"] * len(columns))]


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def three(value: float) -> str:
    """A positive number with three digits, or all that stand before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def three_or_dash(value: float | None) -> str:
    return "-" if value is None else three(value)


def percent_or_dash(part: float, whole: float | None) -> str:
    return f"{100 * part / whole:.0f}" if whole else "-"


def peak_of(row: Measured, program: str) -> str:
    """Peak memory in GB; of a GPU, where the program says it, after a plus."""
    if program not in row.peaks:
        return "-"
    peak = row.peaks[program]
    device = f" + {three(peak['device_bytes'] / 1e9)} GPU" if "device_bytes" in peak else ""
    return three(peak["bytes"] / 1e9) + device


def difference_of(row: Measured) -> str:
    """The last column."""
    if row.largest_error is None:
        return f"{max(one.difference for one in row.rounds):.1e}"
    relative = f"{row.largest_error / row.total_effect:.2%}" if row.total_effect else "infinitely much"
    return f"{row.largest_error:.1e}, {relative} of the total effect"


def cells_of(row: Measured) -> list[str]:
    """One row of the comparison."""
    seconds = row.median_seconds("rometrace")
    careful = row.median_seconds("careful")
    rate = row.rounds[0].flops / seconds / 1e9
    products = row.product_gflops()
    exact = row.dtype == "float32"
    return [
        row.shape,
        row.prompt,
        " + ".join(row.kinds) + ("" if exact else f", {row.dtype}"),
        three(seconds),
        three(row.reference_seconds) if exact else f"({three(row.reference_seconds)})",
        three_or_dash(careful),
        three(row.reference_seconds / seconds),
        three(careful / seconds) if careful else "-",
        three(rate),
        three_or_dash(products),
        percent_or_dash(rate, products),
        *(peak_of(row, program) for program in ("rometrace", "reference", "careful")),
        three(row.weights_bytes / 1e9),
        difference_of(row),
    ]


def comparison_caption(arguments: argparse.Namespace, rows: Sequence[Measured]) -> list[str]:
    """What the comparison's figures are."""
    largest = max(one.difference for row in rows for one in row.rounds)
    return [
        f"Medians over rounds in which the programs, all warm, run in turn. {settings_caption(arguments)}, float32 "
        "unless said otherwise.",
        "",
        "The reference's procedure runs the whole model for each of the T x L cells of a grid, those before the "
        "subject included; its seconds are those of the mean sampled cell, times T x L. The careful loop takes a "
        "layer's restored states of all positions from the subject on as one batch through the blocks that follow; its "
        "seconds are those of its first run and, for all layers, of a line fitted to the sampled ones over the number "
        "of blocks that follow.",
        "",
        *(f"- {shape}: {plan_caption(arguments.plans[shape], rows, shape)}" for shape in arguments.shapes),
        "",
        "GFLOP/s of rometrace: the operations of its products, by its own count, over its seconds; % is of the packed "
        f"products alone on {PRODUCT_ROWS} rows, measured in the same rounds. Peak memory: resident, from the process' "
        "start to the end of the row, the mapped pages of the weights file included (transformers, too, maps it). "
        "Largest difference: relative, of any score between any two programs; "
        f"{largest:.1e} over all rows (allowed: {LARGEST_DIFFERENCE:.0e}).",
        *BFLOAT16_CAPTION[: 2 * any(row.dtype == "bfloat16" for row in rows)],
    ]


def settings_caption(arguments: argparse.Namespace) -> str:
    """What was traced, with how many threads."""
    prompts = "; ".join(
        f'{prompt.name} = "{prompt.text}" (T = {len(prompt.token_ids)}, subject_range {list(prompt.subject_range)})'
        for prompt in PROMPTS.values()
    )
    return (
        f"{prompts}. N = {SAMPLES}, seed {SEED}, sigma {SIGMA}, window {WINDOW}, random weights, "
        f"threads {arguments.threads}"
    )


BFLOAT16_CAPTION = (
    "",
    "bfloat16: beside the reference's procedure in float32, from the row of the same prompt; its largest difference is "
    "absolute, of rometrace's scores from its float32 ones.",
)


def plan_caption(plan: Plan, rows: Sequence[Measured], shape: str) -> str:
    """How much of a shape was sampled."""
    states = [row for row in rows if row.shape == shape and row.dtype == "float32" and row.kinds == STATES]
    cells = ", ".join(f"{row.prompt} {row.sampled_cells} of {row.grid_cells}" for row in states)
    return (
        f"{plan.rounds} rounds; cells sampled in each: {cells}; layers: {states[0].sampled_layers} of "
        f"{states[0].layers}; rometrace's untimed first run: N = {plan.warm_samples}"
    )


def loading_table(rows: Sequence[Loaded]) -> list[str]:
    """How long loading takes."""
    return [
        "## Loading",
        "",
        *table_head(["shape", "program", "load s", "to the first product s"]),
        *(
            table_row([row.shape, row.program, three(row.seconds), three_or_dash(row.first_product_seconds)])
            for row in rows
        ),
        "",
        "Once each, in a fresh process, with the weights file in the page cache; starting the process and importing "
        "torch and transformers not counted.",
    ]


# --- The program ------------------------------------------------------------------------------------------------


def header(arguments: argparse.Namespace, program: str = "scripts/benchmarks/benchmark.py") -> dict[str, str]:
    """What was measured where, and by which command. Raises BenchmarkError if the device is not there."""
    script = (
        "import json, torch, transformers; print(json.dumps([torch.__version__, transformers.__version__,"
        " f'{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}' if torch.cuda.is_available() else None]))"
    )
    torch_version, transformers_version, gpu = json.loads(run_once([sys.executable, "-c", script]))
    if arguments.device == "cuda" and gpu is None:
        raise BenchmarkError("--device cuda: torch sees no GPU here; leave the option out")
    rometrace = run_once([str(arguments.bin_dir / "rometrace"), "--version"]).strip()
    machine = f"{cpu_model()}, {available_cores()} cores"
    return {
        "Machine": machine if arguments.device == "cpu" else f"{gpu}; {machine}",
        "Versions": f"{rometrace}; Python {platform.python_version()}, torch {torch_version}, "
        f"transformers {transformers_version}",
        "Date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "Command": f"`{shlex.join([program, *sys.argv[1:]])}`",
    }


def cpu_model() -> str:
    """The processor's name as the kernel knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def available_cores() -> int:
    return len(os.sched_getaffinity(0))


def check(arguments: argparse.Namespace) -> None:
    """Refuses, before anything is measured, what could not be done in the end."""
    if not importlib.util.find_spec("transformers"):
        raise BenchmarkError(
            "transformers is not installed; run scripts/test once, or pip install -r tests/requirements.txt"
        )
    for program in ("rometrace", "rometrace_benchmark"):
        if not (arguments.bin_dir / program).is_file():
            raise BenchmarkError(
                f"{arguments.bin_dir / program} is not there; build it: "
                "cmake --preset release && cmake --build --preset release"
            )
    if arguments.json and (arguments.json.is_dir() or not arguments.json.parent.is_dir()):
        raise BenchmarkError(f"{arguments.json}: expected the name of a file in a folder that is there")


def write_json(file: Path, figures: dict[str, Any]) -> None:
    """Writes beside `file`, then renames."""
    part = file.with_name(f".{file.name}.part")
    record = {name: [asdict(row) for row in rows] if isinstance(rows, list) else rows for name, rows in figures.items()}
    try:
        part.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BenchmarkError(f"{file}: cannot be written ({error.strerror})") from None


def measure(arguments: argparse.Namespace) -> None:
    """Runs the chosen parts."""
    check(arguments)
    about = header(arguments)
    figures = {"schema": SCHEMA, "header": about, "overhead": {}}
    figures |= {table: [] for table in ("comparison", "loading", "methods", "growth")}
    show(*(f"- {name}: {value}" for name, value in about.items()), "")
    for part in arguments.parts:
        part(arguments, figures)
    if arguments.json:
        write_json(arguments.json, figures)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> Any:
        self.exit(2, f"benchmark.py: {message}; see benchmark.py --help\n")


def shapes_of(text: str) -> list[str]:
    """`--shapes` as a list."""
    shapes = text.split(",")
    unknown = [shape for shape in shapes if shape not in PLANS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not a shape, expected {', '.join(PLANS)}")
    return shapes


def count_of(text: str) -> int:
    """A whole number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description="Times rometrace beside programs over transformers, on random checkpoints.")
    parser.add_argument("--shapes", type=shapes_of, help=f"some of {','.join(PLANS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="gpt2 only, few rounds: about a minute")
    parser.add_argument("--compare", action="store_true", help="the comparison (default if no part is chosen)")
    parser.add_argument(
        "--methods", action="store_true", help="what kinds, severed states and knockout cost, alone and in one sweep"
    )
    parser.add_argument("--growth", action="store_true", help="how cost grows with tokens, draws and threads")
    parser.add_argument("--moments", action="store_true", help="how fast second moments of keys are collected")
    parser.add_argument("--overhead", action="store_true", help="what the tool takes beyond starting libtorch")
    parser.add_argument("--rounds", type=count_of, help="of comparison and methods (default: 5, gpt2-xl 3)")
    parser.add_argument("--cells", type=count_of, help="that the reference's procedure runs of each grid, each round")
    parser.add_argument("--layers", type=count_of, help="that the careful loop runs, each round")
    parser.add_argument(
        "--growth-limit", type=float, default=120, help="leave out what is predicted longer, seconds (default: 120)"
    )
    parser.add_argument("--threads", type=count_of, default=available_cores(), help="of each program (default: cores)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument(
        "--bin-dir", type=Path, default=REPOSITORY / "build/release/bin", help="folder of rometrace_benchmark"
    )
    arguments = parser.parse_args()
    arguments.shapes = arguments.shapes or (["gpt2"] if arguments.quick else list(PLANS))
    arguments.plans = {shape: plan_of(shape, arguments) for shape in arguments.shapes}
    chosen = {
        compare: arguments.compare,
        methods: arguments.methods,
        growth: arguments.growth,
        moments: arguments.moments,
        overhead: arguments.overhead,
    }
    arguments.parts = [part for part, wanted in chosen.items() if wanted] or [compare]
    return arguments


def plan_of(shape: str, arguments: argparse.Namespace) -> Plan:
    """The shape's plan with what the command line changes."""
    plan = QUICK if arguments.quick else PLANS[shape]
    changes = {name: getattr(arguments, name) for name in ("rounds", "cells", "layers")}
    return replace(plan, **{name: value for name, value in changes.items() if value})


def interrupt(number: int, frame: Any) -> None:
    """Handler of signals that end the program: as Ctrl-C, so that its processes end with it."""
    raise KeyboardInterrupt


def main() -> int:
    go_on_with("transformers")
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        measure(arguments)
    except BenchmarkError as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
