#!/usr/bin/env python3
"""Says how near the approximate effects of `rometrace --engine gradient` come to the exact ones, kind by kind.

    scripts/benchmarks/gradient_accuracy.py share/rometrace/demo share/rometrace/facts.json --sample 60 --window 3
    scripts/benchmarks/gradient_accuracy.py MODEL FACTS --kinds state,head --json accuracy.json -- --direction noising --all

Traces the same facts by the sweep and by gradients; what follows "--" goes to both. Compared are the cells' indirect
effects, of positions from the subject on: by Spearman's rank correlation within each fact, and by their differences
over all facts. The strongest cell is the one of the largest effect; of single states those of the last token are left
out, whose last ones have the whole effect whatever the fact.

The table goes to stdout as Markdown, progress to stderr. Exit status: 0 measured; 2 could not run; 130 interrupted.
Needs a release build, or --rometrace.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from accuracy_batches import (  # noqa: E402
    add_batch_options,
    batch_command,
    parse_with_options,
    rank_correlation,
    run_batch,
    traced,
    write_figures,
)
from rometrace.results_file import (  # noqa: E402
    KINDS,
    Line,
    Parser,
    Progress,
    UserError,
    check_folder_of,
    corrupted_positions,
    finish,
    flat,
    one_line,
    positions_of,
    positive,
    read_grid,
)

PROGRAM = "gradient_accuracy.py"
SCHEMA = "rometrace/gradient-accuracy/1"
ENGINES = ("sweep", "gradient")
APPROXIMATED = ("state", "mlp", "attn", "head")


# --- Measuring --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """One kind's indirect effects of one fact, cell by cell."""

    exact: list[float]
    approximate: list[float]
    candidates: range
    """Those among which the strongest is looked for."""

    @property
    def correlation(self) -> float | None:
        return rank_correlation(self.exact, self.approximate)

    @property
    def same_strongest(self) -> bool | None:
        """None if there are no candidates."""
        if not self.candidates:
            return None
        return strongest(self.exact, self.candidates) == strongest(self.approximate, self.candidates)


@dataclass
class Accuracy:
    """What the table says of one kind. Effects and errors are probabilities."""

    kind: str
    window: int
    facts: int = 0
    cells: int = 0
    correlation: list[float] = field(default_factory=list)
    """Lower quartile, median, upper quartile over facts; empty if no fact has one."""
    effect: float = 0
    """Root mean square of the exact effects, beside which errors are to be seen."""
    error: float = 0
    """Root mean square."""
    largest_error: float = 0
    same_strongest: float | None = None
    """Share of the facts."""


def strongest(effects: Sequence[float], candidates: Iterable[int]) -> int:
    return max(candidates, key=lambda cell: effects[cell])


def quartiles(values: Sequence[float]) -> list[float]:
    if len(values) < 2:
        return list(values) * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values) / len(values)) if values else math.nan


def measure(kind: str, window: int, facts: Sequence[Cells]) -> Accuracy:
    """Compares all facts' cells of one kind."""
    errors = [found - exact for fact in facts for exact, found in zip(fact.exact, fact.approximate, strict=True)]
    same = [fact.same_strongest for fact in facts if fact.same_strongest is not None]
    return Accuracy(
        kind=kind,
        window=window,
        facts=len(facts),
        cells=len(errors),
        correlation=quartiles([value for fact in facts if (value := fact.correlation) is not None]),
        effect=root_mean_square([effect for fact in facts for effect in fact.exact]),
        error=root_mean_square(errors),
        largest_error=max(map(abs, errors), default=math.nan),
        same_strongest=statistics.fmean(same) if same else None,
    )


# --- Reading ----------------------------------------------------------------------------------------------------


def cells_of(where: str, kind: str, exact: dict[str, Any], approximate: dict[str, Any]) -> Cells:
    """The cells of one kind in two records of the same fact."""
    tokens, layers = len(exact["token_ids"]), int(exact["model"]["layers"])
    first = min(corrupted_positions(exact), default=tokens)
    name = f"{where}: grids.{kind}"
    grids = [record["grids"][kind] for record in (exact, approximate)]
    positions = positions_of(name, grids[0], tokens)
    if positions != positions_of(name, grids[1], tokens):
        raise UserError(f"{name} has rows for other positions than the other engine's")
    heads = int(grids[0].get("heads", 1))
    shape = (len(positions), layers, heads) if kind == "head" else (len(positions), layers)
    effects = [
        list(flat(row for row, position in zip(rows, positions) if position >= first))
        for rows in (read_grid(f"{name}.indirect_effect", grid["indirect_effect"], shape, False) for grid in grids)
    ]
    before_last = sum(first <= position < tokens - 1 for position in positions) * layers
    return Cells(*effects, candidates=range(before_last if kind == "state" else len(effects[0])))


def traced_records(lines: Iterable[Line]) -> dict[str, dict[str, Any]]:
    """The traced records of a batch by what names their fact."""
    return traced(lines, whole_record)


def whole_record(line: Line) -> dict[str, Any]:
    return line.value


def compare(exact: dict[str, dict[str, Any]], approximate: dict[str, dict[str, Any]]) -> list[Accuracy]:
    """Compares the records of one engine with those of the other, which must be of the same facts."""
    if exact.keys() != approximate.keys():
        raise UserError(f"the engines traced different facts ({len(exact)} and {len(approximate)}); were any stopped?")
    if not exact:
        raise UserError("no fact was traced, so nothing can be compared; does the model know them? -- --all traces all")
    facts: dict[str, list[Cells]] = {}
    windows: dict[str, int] = {}
    for name, record in exact.items():
        for kind in record["grids"]:
            facts.setdefault(kind, []).append(cells_of(one_line(record["prompt"]), kind, record, approximate[name]))
            windows[kind] = int(record["grids"][kind]["window"])
    return [measure(kind, windows[kind], facts[kind]) for kind in KINDS if kind in facts]


# --- Running ----------------------------------------------------------------------------------------------------


def command_of(arguments: argparse.Namespace, engine: str) -> list[str]:
    """The command that traces the facts by `engine`."""
    words = ("--kinds", arguments.kinds, "--engine", engine)
    return batch_command(arguments, *words, named=("sample", "window", "samples"))


def seconds_of(records: Iterable[dict[str, Any]]) -> float:
    return math.fsum(record["run"]["seconds"] for record in records)


# --- Writing ----------------------------------------------------------------------------------------------------


def number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def table(rows: Sequence[Accuracy]) -> Iterator[str]:
    """The Markdown lines."""
    columns = (
        *("kind", "window", "facts", "cells", "rank correlation, median (quartiles)"),
        *("RMS effect", "RMS error", "largest error", "same strongest cell"),
    )
    yield "| " + " | ".join(columns) + " |"
    yield "|---" + "|---:" * (len(columns) - 1) + "|"
    for row in rows:
        correlation = "–"
        if row.correlation:
            low, median, high = row.correlation
            correlation = f"{median:.3f} ({low:.3f} to {high:.3f})"
        share = "–" if row.same_strongest is None else f"{100 * row.same_strongest:.0f} %"
        errors = (number(value, 4) for value in (row.effect, row.error, row.largest_error))
        yield "| " + " | ".join(
            (row.kind, str(row.window), str(row.facts), str(row.cells), correlation, *errors, share)
        ) + " |"


def write_json(output: Path, commands: dict[str, list[str]], seconds: dict[str, float], rows: list[Accuracy]) -> None:
    figures = {"schema": SCHEMA, "commands": commands, "seconds": seconds, "kinds": [asdict(row) for row in rows]}
    write_figures(output, figures)


def kinds_list(text: str) -> str:
    unknown = [kind for kind in text.split(",") if kind not in APPROXIMATED]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(APPROXIMATED)}")
    return text


def parse_arguments() -> argparse.Namespace:
    parser = Parser(
        prog=PROGRAM,
        description=__doc__.partition("\n\n")[0],
        epilog="what follows -- is handed to rometrace, both times",
    )
    add_batch_options(parser)
    parser.add_argument("--kinds", type=kinds_list, default=",".join(APPROXIMATED), help="(default: %(default)s)")
    parser.add_argument("--window", type=positive, help="layers patched together, for mlp and attn")
    return parse_with_options(parser)


def work(arguments: argparse.Namespace) -> int:
    """Runs both engines, compares them and prints the table."""
    if arguments.json:
        check_folder_of(arguments.json)
    progress = Progress(PROGRAM, "engines run", len(ENGINES))
    commands = {engine: command_of(arguments, engine) for engine in ENGINES}
    records = {}
    with tempfile.TemporaryDirectory() as folder:
        for engine, command in commands.items():
            progress.note(f"tracing by {engine} …")
            output = Path(folder) / f"{engine}.jsonl"
            records[engine] = run_batch(command, output, whole_record, lambda message: None)
    rows = compare(records["sweep"], records["gradient"])
    seconds = {engine: seconds_of(records[engine].values()) for engine in ENGINES}
    print("\n".join(table(rows)))
    if arguments.json:
        write_json(arguments.json, commands, seconds, rows)
    took = " and ".join(f"{seconds[engine]:.2f} s by {engine}" for engine in ENGINES)
    progress.finish(f"{len(records['sweep'])} facts traced, in {took}")
    return 0


def main() -> int:
    arguments = parse_arguments()
    return finish(PROGRAM, lambda: work(arguments))


if __name__ == "__main__":
    sys.exit(main())
