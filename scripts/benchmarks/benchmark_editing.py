#!/usr/bin/env python3
"""Times an edit by rometrace beside the same one over Hugging Face transformers, on random GPT-2 checkpoints.

    scripts/benchmarks/benchmark_editing.py --shapes gpt2 --rounds 1
    scripts/benchmarks/benchmark_editing.py                            gpt2, gpt2-medium and gpt2-xl

The edit is ROME's (arXiv 2202.05262) of "Miles Davis plays the" to " guitar" behind 21 templates: the bare prompt, ten
prefixes of 4 tokens and ten of 9, at the published layer and with the published settings. C is given, a file in the
layout of the reference. The other program, scripts/benchmarks/benchmark_editing_transformers.py, does what the
reference does and is careful about it. Both make the same number of evaluations and are checked against each other: u,
r and each loss.

What is timed: reading and factoring C, the values, the search for delta, and the change of the matrix; of rometrace
also reading and tokenising the templates. Both programs time these themselves, with the weights in memory: rometrace
has run the model on the prompt by then, which it measures before the edit, and transformers an evaluation. So neither
loading nor rometrace's table of what the edit did counts; the whole run of rometrace, which has both, stands beside it.
The two edit in turn, round by round, so that the machine's noise hits both alike; figures are medians, the ratio is the
median of the rounds' ratios. Peak memory is the largest resident size of rometrace's whole run, the mapped pages of the
weights included, in bytes of the weights.

Results go to stdout as Markdown, progress to stderr. Exit status: 0 measured, each bar met; 1 a bar missed, or the
programs do not agree; 2 could not run; 130 interrupted. Needs transformers and safetensors, which scripts/test installs
into .venv, a release build, and GPT-2's vocab.json and merges.txt (--tokenizer). Checkpoints are those of
scripts/benchmarks/benchmark.py and lie beside them.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import math
import os
import platform
import random
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Sequence

from benchmark import (
    REPOSITORY,
    BenchmarkError,
    Checkpoint,
    ScoresDiffer,
    Worker,
    available_cores,
    cache_folder,
    count_of,
    cpu_model,
    find_checkpoint,
    interrupt,
    read_once,
    run_once,
    table_head,
    table_row,
    three,
    write_json,
)

from rometrace.prepared import go_on_with

SCHEMA = "rometrace/benchmark-editing/1"
PROMPT, SUBJECT, TARGET, TRUE = "Miles Davis plays the", "Miles Davis", " guitar", " trumpet"
PREFIXES = {4: 10, 9: 10}
"""Tokens of a prefix -> how many."""
FIRST_WORDS = ("The", "It", "He", "They", "We", "In", "But", "When")
WORDS = ("year", "people", "time", "was", "first", "and", "of", "world", "city", "new", "long", "one", "river", "in",
         "house", "with", "after", "book", "made", "water")  # fmt: skip
"""All of these are tokens of GPT-2's."""
MOMENT_RANK = 64
TOKENS_BY_WIDTH = 50  # of the text that C would be of
LARGEST_DIFFERENCES = {"u": 1e-4, "r": 1e-2, "loss": 1e-3}
"""Relative, of two float32 programs. The first step takes the sign of each number of the gradient: r differs most."""
MEMORY_BAR = 1.75


@dataclass(frozen=True)
class Plan:
    """An edit of a shape."""

    layer: int
    clamp: float
    rounds: int
    bar: float | None
    """The least ratio of seconds that is asked for."""


PLANS = {
    "gpt2": Plan(layer=4, clamp=4, rounds=5, bar=None),
    "gpt2-medium": Plan(layer=8, clamp=3, rounds=3, bar=4),
    "gpt2-xl": Plan(layer=17, clamp=4, rounds=1, bar=5),
}


@dataclass(frozen=True)
class Edit:
    """What both programs are given."""

    folder: Path
    """Of the model, with its tokeniser."""
    layer: int
    templates: list[str]
    """With the bare prompt's, {}."""
    moment: Path
    steps: int
    clamp: float

    def settings(self) -> dict[str, float]:
        """Those of the reference."""
        return {"steps": self.steps, "rate": 0.5, "decay": 0.5, "clamp": self.clamp, "kl": 0.0625}

    def request(self) -> dict[str, Any]:
        """The fields of a request to transformers."""
        texts = {"prompt": PROMPT, "subject": SUBJECT, "target": TARGET, "templates": self.templates}
        return texts | {"moment": str(self.moment), "layer": self.layer, "low_enough": 0.05} | self.settings()


@dataclass(frozen=True)
class Edited:
    """One edit by one program."""

    seconds: dict[str, float]
    """By stage."""
    losses: list[float]
    """Of each evaluation."""
    u: list[float]
    """[F]"""
    r: list[float]
    """[D]"""
    whole_seconds: float = 0.0
    """rometrace's run from its start to its end."""
    peak_bytes: int = 0

    def total(self) -> float:
        """Seconds of the edit."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Round:
    """What one round gave."""

    rometrace: dict[str, float]
    transformers: dict[str, float]
    """Seconds by stage."""
    whole_seconds: float
    peak_bytes: int
    differences: dict[str, float]
    """Relative, the largest: of u, r, and losses."""

    def ratio(self) -> float:
        return sum(self.transformers.values()) / sum(self.rometrace.values())


@dataclass(frozen=True)
class Measured:
    """A row of the table."""

    shape: str
    layer: int
    evaluations: int
    weights_bytes: int
    bar: float | None
    transformers_peak_bytes: int
    rounds: list[Round]

    def ratio(self) -> float:
        return statistics.median(one.ratio() for one in self.rounds)

    def memory(self) -> float:
        """Peak memory of rometrace in sizes of the weights."""
        return max(one.peak_bytes for one in self.rounds) / self.weights_bytes

    def misses(self) -> list[str]:
        """What of the bars is not met."""
        missed = []
        if self.bar is not None and self.ratio() < self.bar:
            missed.append(f"{self.shape}: {self.ratio():.2f} times as fast as transformers, expected {self.bar:g}")
        if self.bar is not None and self.memory() > MEMORY_BAR:
            missed.append(f"{self.shape}: peak memory is {self.memory():.2f} x the weights, expected {MEMORY_BAR}")
        return missed


def say(text: str) -> None:
    """A line of progress."""
    print(f"benchmark_editing.py: {text}", file=sys.stderr, flush=True)


# --- What is edited ---------------------------------------------------------------------------------------------


def make_templates(vocabulary: dict[str, int] | None = None, seed: int = 0) -> list[str]:
    """The bare prompt's template and prefixes of as many tokens as PREFIXES says, each a word of the vocabulary."""
    if vocabulary is not None:
        missing = [word for word in FIRST_WORDS if word not in vocabulary]
        missing += [word for word in WORDS if f"Ġ{word}" not in vocabulary]
        if missing:
            raise BenchmarkError(f'--tokenizer: the vocabulary has no token "{missing[0]}", expected GPT-2\'s')
    draw = random.Random(seed)
    templates = ["{}"]
    for tokens, count in PREFIXES.items():
        for _ in range(count):
            words = [draw.choice(FIRST_WORDS), *draw.choices(WORDS, k=tokens - 1)]
            templates.append(f"{' '.join(words)}. {{}}")
    return templates


def make_moment(folder: Path, layer: int, width: int) -> Path:
    """A second moment as the reference stores it: the sum of k k^T, float32, and the number of tokens; made up."""
    import numpy as np

    path = folder / f"transformer.h.{layer}.mlp.c_proj_float32_mom2_100000.npz"
    tokens = TOKENS_BY_WIDTH * width
    generator = np.random.default_rng(0)
    factors = generator.standard_normal((width, MOMENT_RANK), dtype=np.float32)
    moment = factors @ factors.T
    moment[np.diag_indices(width)] += np.exp(generator.standard_normal(width, dtype=np.float32))
    moment *= np.float32(tokens)
    part = path.with_name("part.npz")
    arrays = {"mom2.mom2": moment, "mom2.count": np.array(tokens), "sample_size": np.array(tokens)}
    np.savez(part, **arrays)
    part.replace(path)
    return path


def model_with_tokenizer(checkpoint: Checkpoint, tokenizer: Path) -> Path:
    """A folder with the checkpoint's weights, linked, and this tokeniser."""
    folder = cache_folder() / "editing" / checkpoint.shape
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in {
        "config.json": checkpoint.folder,
        "model.safetensors": checkpoint.folder,
        "vocab.json": tokenizer,
        "merges.txt": tokenizer,
    }.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to((source / name).resolve())
    return folder


# --- The two programs -------------------------------------------------------------------------------------------


def run_measured(command: Sequence[str]) -> tuple[str, float, int]:
    """What a command writes to stdout, its seconds, and the bytes of its peak. Raises BenchmarkError with its last line
    on stderr if it fails.

    The kernel counts the peak from the fork on: never less than what this process weighs.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROMETRACE_")}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        try:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, text=True
            )
        except OSError as error:
            raise BenchmarkError(f"{command[0]}: cannot be started ({error.strerror})") from None
        try:
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            process.wait()
            raise
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            last = (errors.read().strip().splitlines() or ["it said nothing"])[-1]
            raise BenchmarkError(f"{Path(command[0]).name} failed with exit status {process.returncode} ({last})")
        return output.read(), seconds, usage.ru_maxrss * 1024


def edit_with_rometrace(edit: Edit, arguments: argparse.Namespace) -> Edited:
    """One run of the program."""
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as scratch:
        templates, output = Path(scratch) / "templates.txt", Path(scratch) / "miles.edit"
        templates.write_text("".join(f"{template}\n" for template in edit.templates if template != "{}"))
        settings = [word for name, value in edit.settings().items() for word in (f"--{name}", f"{value:g}")]
        command = [arguments.bin_dir / "rometrace", "edit", "--model", edit.folder, "--prompt", PROMPT]
        command += ["--subject", SUBJECT, "--target", TARGET, "--true", TRUE, "--method", "rome", *settings]
        command += ["--layer", edit.layer, "--templates", templates, "--moments", edit.moment, "--engine", "fast"]
        command += ["--threads", arguments.threads, "--force", "--json", "--quiet", "-o", output]
        written, seconds, peak = run_measured([str(word) for word in command])
        tensors = load_file(output)
    record = json.loads(written)
    if "seconds" not in record:
        raise BenchmarkError(f"the record of {arguments.bin_dir / 'rometrace'} has no seconds; build it anew")
    stages = {name: spent for name, spent in record["seconds"].items() if name != "measures"}
    matrix = record["matrices"][0]["tensor"]
    losses = record["requests"][0]["losses"]["total"]
    u, r = (tensors[f"{matrix}.{name}"][0].tolist() for name in ("u", "r"))
    return Edited(stages, losses, u, r, seconds, peak)


def start_transformers() -> Worker:
    script = REPOSITORY / "scripts/benchmarks/benchmark_editing_transformers.py"
    return Worker("transformers", [sys.executable, script])


def edit_with_transformers(worker: Worker, edit: Edit) -> Edited:
    """One edit over transformers."""
    answer = worker.ask("edit", **edit.request())
    return Edited(answer["seconds"], answer["losses"], answer["u"], answer["r"])


# --- Measuring --------------------------------------------------------------------------------------------------


def compare(shape: str, ours: Edited, theirs: Edited) -> dict[str, float]:
    """The largest relative differences. Raises ScoresDiffer if the two did not make the same edit."""
    if len(ours.losses) != len(theirs.losses):
        raise ScoresDiffer(
            f"{shape}: rometrace made {len(ours.losses)} evaluations, transformers {len(theirs.losses)}"
        )
    differences = {
        "u": distance(ours.u, theirs.u),
        "r": distance(ours.r, theirs.r),
        "loss": max(map(relative, ours.losses, theirs.losses), key=lambda one: math.inf if math.isnan(one) else one),
    }
    for name, allowed in LARGEST_DIFFERENCES.items():
        if not differences[name] <= allowed:
            raise ScoresDiffer(f"{shape}: {name} differs by {differences[name]:.1e}, expected at most {allowed:.0e}")
    return differences


def relative(one: float, other: float) -> float:
    """|one - other| / |other| of two numbers."""
    return abs(one - other) / abs(other)


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """|one - other| / |other| of two vectors."""
    return math.dist(one, other) / math.hypot(*other)


def measure_edit(
    checkpoint: Checkpoint, edit: Edit, plan: Plan, rounds: int, arguments: argparse.Namespace
) -> Measured:
    """A row of the table: the two programs in turn."""
    read_once(checkpoint.weights)
    measured = []
    with start_transformers() as worker:
        worker.ask("load", folder=str(edit.folder), device="cpu", threads=arguments.threads)
        worker.ask("warm", **edit.request())
        for number in range(rounds):
            ours = edit_with_rometrace(edit, arguments)
            say(f"{checkpoint.shape}, round {number + 1} of {rounds}: rometrace {three(ours.total())} s")
            theirs = edit_with_transformers(worker, edit)
            say(f"{checkpoint.shape}, round {number + 1} of {rounds}: transformers {three(theirs.total())} s")
            differences = compare(checkpoint.shape, ours, theirs)
            one = Round(ours.seconds, theirs.seconds, ours.whole_seconds, ours.peak_bytes, differences)
            measured.append(one)
        peak = worker.ask("peak")["bytes"]
    size = checkpoint.weights_bytes
    return Measured(checkpoint.shape, edit.layer, len(ours.losses), size, plan.bar, peak, measured)


def measure_shape(shape: str, arguments: argparse.Namespace) -> Measured:
    """The edit of a shape's random checkpoint."""
    plan, checkpoint = PLANS[shape], find_checkpoint(shape)
    folder = model_with_tokenizer(checkpoint, arguments.tokenizer)
    templates = make_templates(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    moment = make_moment(folder, plan.layer, 4 * checkpoint.width)
    edit = Edit(folder, plan.layer, templates, moment, arguments.steps, plan.clamp)
    return measure_edit(checkpoint, edit, plan, arguments.rounds or plan.rounds, arguments)


# --- Tables -----------------------------------------------------------------------------------------------------

STAGES = ("moments", "value")
COLUMNS = ("shape", "layer", "evaluations", "rometrace s", *(f"its {stage} s" for stage in STAGES), "its whole run s",
           "transformers s", *(f"its {stage} s" for stage in STAGES), "transformers / rometrace", "bar", "weights GB",
           "rometrace peak GB", "x weights", "bar", "transformers peak GB", "difference of u", "r", "loss")  # fmt: skip


def cells_of(row: Measured) -> list[str]:
    """One row."""

    def median(values: Sequence[float]) -> str:
        middle = statistics.median(values)
        return three(middle) if middle > 0 else "0"

    def seconds_of(program: str) -> list[str]:
        stages = [getattr(one, program) for one in row.rounds]
        return [
            median([sum(each.values()) for each in stages]),
            *(median([each.get(stage, 0.0) for each in stages]) for stage in STAGES),
        ]

    peak = max(one.peak_bytes for one in row.rounds)
    return [
        row.shape,
        str(row.layer),
        str(row.evaluations),
        *seconds_of("rometrace"),
        median([one.whole_seconds for one in row.rounds]),
        *seconds_of("transformers"),
        f"{row.ratio():.2f}",
        "-" if row.bar is None else f"{row.bar:g}",
        three(row.weights_bytes / 1e9),
        three(peak / 1e9),
        f"{row.memory():.2f}",
        "-" if row.bar is None else str(MEMORY_BAR),
        three(row.transformers_peak_bytes / 1e9),
        *(f"{max(one.differences[name] for one in row.rounds):.1e}" for name in LARGEST_DIFFERENCES),
    ]


def caption(arguments: argparse.Namespace, rows: Sequence[Measured]) -> str:
    """What the figures are."""
    rounds = ", ".join(f"{row.shape} {len(row.rounds)}" for row in rows)
    prefixes = " and ".join(f"{count} of {tokens}" for tokens, count in PREFIXES.items())
    return (
        f'One edit of "{PROMPT}" to "{TARGET}" by rome, templates: the bare prompt and prefixes, {prefixes} tokens; '
        f"random weights, C made up, float32, threads {arguments.threads}, at most {arguments.steps} "
        f"evaluations. Medians over rounds ({rounds}). Peak memory: resident, of the whole run, the mapped pages of "
        "the weights included. Differences: relative, the largest of all rounds."
    )


def header(arguments: argparse.Namespace) -> dict[str, str]:
    """What was measured where."""
    script = "import json, torch, transformers; print(json.dumps([torch.__version__, transformers.__version__]))"
    torch_version, transformers_version = json.loads(run_once([sys.executable, "-c", script]))
    rometrace = run_once([str(arguments.bin_dir / "rometrace"), "--version"]).strip()
    return {
        "Machine": f"{cpu_model()}, {available_cores()} cores",
        "Versions": f"{rometrace}; Python {platform.python_version()}, torch {torch_version}, "
        f"transformers {transformers_version}",
        "Date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "Command": f"`{shlex.join(['scripts/benchmarks/benchmark_editing.py', *sys.argv[1:]])}`",
    }


# --- The program ------------------------------------------------------------------------------------------------


def check(arguments: argparse.Namespace) -> None:
    """Refuses, before anything is measured, what could not be done in the end."""
    for package in ("transformers", "safetensors"):
        if not importlib.util.find_spec(package):
            raise BenchmarkError(
                f"{package} is not installed; run scripts/test once, or pip install -r tests/requirements.txt"
            )
    if not (arguments.bin_dir / "rometrace").is_file():
        raise BenchmarkError(
            f"{arguments.bin_dir / 'rometrace'} is not there; build it: "
            "cmake --preset release && cmake --build --preset release"
        )
    for name in ("vocab.json", "merges.txt"):
        if not (arguments.tokenizer / name).is_file():
            raise BenchmarkError(f"--tokenizer: {arguments.tokenizer / name} is not there, expected GPT-2's")
    if arguments.json and (arguments.json.is_dir() or not arguments.json.parent.is_dir()):
        raise BenchmarkError(f"{arguments.json}: expected the name of a file in a folder that is there")


def measure(arguments: argparse.Namespace) -> int:
    """Measures the chosen shapes; gives the exit status."""
    check(arguments)
    about = header(arguments)
    lines = [*(f"- {name}: {value}" for name, value in about.items()), "", *table_head(COLUMNS)]
    print("\n".join(lines), flush=True)
    rows = []
    for shape in arguments.shapes:
        rows.append(measure_shape(shape, arguments))
        print(table_row(cells_of(rows[-1])), flush=True)
    print(f"\n{caption(arguments, rows)}", flush=True)
    if arguments.json:
        write_json(arguments.json, {"schema": SCHEMA, "header": about, "edits": rows})
    missed = [miss for row in rows for miss in row.misses()]
    for miss in missed:
        say(miss)
    return 1 if missed else 0


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> Any:
        self.exit(2, f"benchmark_editing.py: {message}; see benchmark_editing.py --help\n")


def shapes_of(text: str) -> list[str]:
    """`--shapes` as a list."""
    shapes = text.split(",")
    unknown = [shape for shape in shapes if shape not in PLANS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not a shape, expected {', '.join(PLANS)}")
    return shapes


def parse_arguments() -> argparse.Namespace:
    shared = Path(os.environ.get("ROMETRACE_SHARED", REPOSITORY.parent / "shared"))
    parser = Parser(description="Times an edit by rometrace beside one over transformers, on random checkpoints.")
    parser.add_argument(
        "--shapes", type=shapes_of, default=list(PLANS), help=f"some of {','.join(PLANS)} (default: all)"
    )
    parser.add_argument("--rounds", type=count_of, help="of each shape (default: 5, gpt2-medium 3, gpt2-xl 1)")
    parser.add_argument("--steps", type=count_of, default=20, help="evaluations (default: %(default)s)")
    parser.add_argument("--threads", type=count_of, default=available_cores(), help="of each program (default: cores)")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=shared / "tokenizers/gpt2",
        help="folder of GPT-2's vocab.json and merges.txt (default: tokenizers/gpt2 in $ROMETRACE_SHARED or ../shared)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--bin-dir", type=Path, default=REPOSITORY / "build/release/bin", help="folder of rometrace")
    return parser.parse_args()


def main() -> int:
    go_on_with("transformers")
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        return measure(arguments)
    except BenchmarkError as error:
        say(str(error))
        return error.status
    except OSError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
