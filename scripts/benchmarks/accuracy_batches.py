"""What the scripts share that hold estimates against exact effects: batches of the same facts, run in different ways."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from rometrace.places import find_program  # noqa: E402
from rometrace.results_file import Line, Parser, UserError, one_line, positive, read_lines, replacing  # noqa: E402

Fact = TypeVar("Fact")


def add_batch_options(parser: argparse.ArgumentParser) -> None:
    """The model, the facts, and what every batch is run with."""
    parser.add_argument("model", help="folder or name of a model")
    parser.add_argument("facts", help="facts file")
    parser.add_argument("--sample", type=positive, help="draw as many of the facts (default: all)")
    parser.add_argument("--samples", type=positive, help="noise draws")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--rometrace", metavar="PATH", help="executable (default: the one that was built here)")


def parse_with_options(parser: Parser) -> argparse.Namespace:
    """The script's own arguments; `options` are those behind "--", which go to the program."""
    own, options = sys.argv[1:], []
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    arguments.options = options
    return arguments


def batch_command(arguments: argparse.Namespace, *words: str, named: Sequence[str] = ("sample", "samples")) -> list[str]:
    """The program's command for a batch, with these words, the named ones of the arguments, and the program's own."""
    command = [arguments.rometrace or str(find_program()), "--model", arguments.model, "--facts", arguments.facts, *words]
    for name in named:
        if (value := getattr(arguments, name)) is not None:
            command += [f"--{name}", str(value)]
    return command + arguments.options


def run_batch(
    command: Sequence[str], output: Path, read: Callable[[Line], Fact], note: Callable[[str], None]
) -> dict[str, Fact]:
    """What `read` makes of each traced record of a batch, which is run; see traced()."""
    try:
        done = subprocess.run([*command, "-o", str(output), "-q"], capture_output=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run ({error.strerror}); build it, or give --rometrace") from None
    if done.returncode not in (0, 1):
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UserError(f"rometrace failed with exit status {done.returncode} ({one_line(lines[-1], 300)})")
    return traced(read_lines(str(output), note), read)


def traced(lines: Iterable[Line], read: Callable[[Line], Fact]) -> dict[str, Fact]:
    """What `read` makes of each traced record, by what names its fact."""
    found = {}
    for line in lines:
        if line.place and line.status == "traced":
            fact = {name: value for name, value in line.fact.items() if name != "order"}
            found[json.dumps([fact, line.value["prompt"]], sort_keys=True)] = read(line)
    return found


def ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    result = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for i in order[begin:end]:
            result[i] = (begin + 1 + end) / 2
        begin = end
    return result


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's, from -1 to 1; None where either side's values are all alike."""
    try:
        return statistics.correlation(ranks(one), ranks(other))
    except statistics.StatisticsError:
        return None


def write_figures(output: Path, figures: dict[str, Any]) -> None:
    with replacing(output) as part:
        part.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
