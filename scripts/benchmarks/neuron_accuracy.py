#!/usr/bin/env python3
"""Says how well the estimates by which `rometrace --kinds neuron` ranks neurons agree with their exact effects.

    scripts/benchmarks/neuron_accuracy.py share/rometrace/demo share/rometrace/facts.json --sample 60
    scripts/benchmarks/neuron_accuracy.py MODEL FACTS --rankings gradient --json a.json -- --direction noising --all

Runs every neuron at the last subject token exactly, once for each ranking, whose estimates stand in the same results;
what follows "--" goes to all runs. Beside the rankings stands the order by the size of the change between the value's
two means. Of each fact: Spearman's rank correlation of the estimates with the exact effects (of the change with their
sizes), and how many of the 20 neurons of the largest exact |effect| are among the 20 and the 50 that the ranking puts
first by size; then how many of the ranking's first hold 18 of those 20 in the mean over facts, and that over 20. The
last column is the effect of 64 neurons together, in percent of probability: the first by the signed estimate, or by the
change. Means over facts stand with 95 % bootstrap intervals.

The table goes to stdout as Markdown, progress to stderr. Exit status: 0 measured; 2 could not run; 130 interrupted.
Needs a release build, or --rometrace.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator, Sequence

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
    Line,
    Parser,
    Progress,
    UserError,
    check_folder_of,
    finish,
)

PROGRAM = "neuron_accuracy.py"
SCHEMA = "rometrace/neuron-accuracy/1"
RANKINGS = ("gradient", "integrated:8")
CHANGE = "size of the change"
BEST = 20
LOOKED_AT = (20, 50)
ENOUGH = 0.9
TOGETHER = 64
EVERY = 2**20
"""The most that --top takes."""
RESAMPLES = 2000


# --- Measuring --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neurons:
    """One fact's neurons, in the order of position, layer and number."""

    exact: list[float]
    estimate: list[float]
    change: list[float]
    """|clean - corrupted| of the means."""
    together: float
    """The effect of TOGETHER neurons, the first by the estimate; of all where there are fewer."""
    by_change: float
    """Likewise by the change, mean over draws of its size."""


@dataclass(frozen=True)
class Mean:
    """Over facts, with its 95 % interval by bootstrap."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """What one fact says of one ranking."""

    correlation: float | None
    """None where the effects or the estimates are all alike."""
    places: list[int]
    """Of the truly best neurons in the ranking, from 0, sorted."""
    candidates: int

    def among(self, first: int) -> int:
        """How many of the truly best are among the ranking's first."""
        return sum(place < first for place in self.places)


@dataclass(frozen=True)
class Row:
    """What the table says of one ranking."""

    ranking: str
    facts: int
    neurons: int
    correlation: Mean | None
    among: dict[int, Mean]
    """By how many of the ranking are looked at: how many of the truly best are there."""
    needed: int
    """How many of the ranking's first hold ENOUGH of the truly best in the mean over facts."""
    together: Mean
    """The effect of the TOGETHER first."""


def best_first(values: Sequence[float]) -> list[int]:
    """Indices by |value|; ties as they stand."""
    return sorted(range(len(values)), key=lambda i: -abs(values[i]))


def agreement(exact: Sequence[float], estimate: Sequence[float], of_sizes: bool = False) -> Agreement:
    """Of estimates with exact effects; `of_sizes`: with their sizes, where the estimate has no sign."""
    compared = [abs(value) for value in exact] if of_sizes else exact
    place = {neuron: place for place, neuron in enumerate(best_first(estimate))}
    places = [place[neuron] for neuron in best_first(exact)[:BEST]]
    return Agreement(rank_correlation(compared, estimate), sorted(places), len(exact))


def mean_of(values: Sequence[float]) -> Mean:
    """The mean over facts; facts are drawn again for its interval, always the same way."""
    generator = random.Random(0)
    means = sorted(statistics.fmean(generator.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return Mean(statistics.fmean(values), means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1])


def needed_for(facts: Sequence[Agreement], share: float) -> int:
    """The least number of a ranking's first that hold the share of the truly best, in the mean over facts."""
    wanted = share * sum(len(fact.places) for fact in facts)
    places = sorted(place for fact in facts for place in fact.places)
    return next(place + 1 for n, place in enumerate(places, 1) if n >= wanted - 1e-9)


def row_of(ranking: str, facts: Sequence[Agreement], together: Sequence[float]) -> Row:
    """Over all facts."""
    correlations = [fact.correlation for fact in facts if fact.correlation is not None]
    return Row(
        ranking=ranking,
        facts=len(facts),
        neurons=max(fact.candidates for fact in facts),
        correlation=mean_of(correlations) if correlations else None,
        among={first: mean_of([fact.among(first) for fact in facts]) for first in LOOKED_AT},
        needed=needed_for(facts, ENOUGH),
        together=mean_of(together),
    )


def measure(by_ranking: dict[str, dict[str, Neurons]]) -> list[Row]:
    """A row for each ranking, and one for the change of the values, which all runs give alike."""
    first = next(iter(by_ranking.values()))
    if not first:
        raise UserError("no fact was traced, so nothing can be compared; does the model know them? -- --all traces all")
    for ranking, facts in by_ranking.items():
        if facts.keys() != first.keys():
            raise UserError(f"{ranking} traced {len(facts)} facts and another ranking {len(first)}; were any stopped?")
    rows = []
    for ranking, facts in by_ranking.items():
        agreements = [agreement(fact.exact, fact.estimate) for fact in facts.values()]
        rows.append(row_of(ranking, agreements, [fact.together for fact in facts.values()]))
    agreements = [agreement(fact.exact, fact.change, of_sizes=True) for fact in first.values()]
    return [*rows, row_of(CHANGE, agreements, [fact.by_change for fact in first.values()])]


# --- Reading ----------------------------------------------------------------------------------------------------


def neurons_of(line: Line) -> Neurons:
    """Every neuron of a record."""
    where, told = line.where, line.value.get("neurons")
    if not isinstance(told, dict):
        raise UserError(f"{where} has no neurons, expected those of --kinds neuron")
    effects = sorted(told["effects"], key=lambda one: (one["position"], one["layer"], one["neuron"]))
    if len(effects) != told["candidates"]:
        raise UserError(f"{where} tells of {len(effects)} of {told['candidates']} neurons, expected all")
    if any(one["estimate"] is None for one in effects):
        raise UserError(f"{where} has neurons without an estimate, expected a ranking")
    return Neurons(
        exact=[one["indirect_effect"] for one in effects],
        estimate=[one["estimate"] for one in effects],
        change=[abs(one["value"]["clean"] - one["value"]["corrupted"]) for one in effects],
        together=effect_together(told["sets"]),
        by_change=effect_together([one for one in told["controls"] if one["order"] == "change"]),
    )


def effect_together(sets: list[dict[str, Any]]) -> float:
    """Of TOGETHER neurons, of sets of all layers."""
    by_size = {one["neurons"]: one["indirect_effect"] for one in sets if "layer" not in one}
    return by_size.get(TOGETHER, by_size[max(by_size)])


def traced_neurons(lines: Iterator[Line]) -> dict[str, Neurons]:
    """Of the traced records, by what names their fact."""
    return traced(lines, neurons_of)


# --- Running ----------------------------------------------------------------------------------------------------


def command_of(arguments: argparse.Namespace, ranking: str) -> list[str]:
    """The command that runs every neuron."""
    return batch_command(arguments, "--kinds", "neuron", "--rank-by", ranking, "--top", str(EVERY))


# --- Writing ----------------------------------------------------------------------------------------------------


def cell(value: Mean | None, digits: int) -> str:
    return "–" if value is None else f"{value.mean:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def percent(value: Mean) -> Mean:
    return Mean(100 * value.mean, 100 * value.low, 100 * value.high)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The Markdown lines."""
    among = [f"of the {BEST} best, among its {first}" for first in LOOKED_AT]
    columns = ["ranked by", "facts", "neurons", "rank correlation", *among]
    columns += [f"needed for {100 * ENOUGH:.0f} %", f"its {TOGETHER} together, %"]
    yield "| " + " | ".join(columns) + " |"
    yield "|---" + "|---:" * (len(columns) - 1) + "|"
    for row in rows:
        found = [cell(row.among[first], 1) for first in LOOKED_AT]
        needed = f"{row.needed} ({row.needed / BEST:.1f} x)"
        cells = [row.ranking, str(row.facts), str(row.neurons), cell(row.correlation, 2), *found, needed]
        cells.append(cell(percent(row.together), 1))
        yield "| " + " | ".join(cells) + " |"


def write_json(output: Path, commands: dict[str, list[str]], rows: list[Row]) -> None:
    figures = {"schema": SCHEMA, "commands": commands, "best": BEST, "rows": [asdict(row) for row in rows]}
    write_figures(output, figures)


def rankings_list(text: str) -> list[str]:
    rankings = list(dict.fromkeys(text.split(",")))
    for ranking in rankings:
        if not re.fullmatch(r"gradient|integrated:[1-9]\d*", ranking):
            raise argparse.ArgumentTypeError(f'{ranking!r} estimates nothing, expected "gradient" or "integrated:M"')
    return rankings


def parse_arguments() -> argparse.Namespace:
    parser = Parser(
        prog=PROGRAM,
        description=__doc__.partition("\n\n")[0],
        epilog="what follows -- is handed to rometrace, every time",
    )
    add_batch_options(parser)
    default = ",".join(RANKINGS)
    parser.add_argument("--rankings", type=rankings_list, default=list(RANKINGS), help=f"(default: {default})")
    return parse_with_options(parser)


def work(arguments: argparse.Namespace) -> int:
    """Runs every neuron by each ranking and prints the table."""
    if arguments.json:
        check_folder_of(arguments.json)
    progress = Progress(PROGRAM, "rankings run", len(arguments.rankings))
    commands = {ranking: command_of(arguments, ranking) for ranking in arguments.rankings}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (ranking, command) in enumerate(commands.items()):
            progress.note(f"every neuron, ranked by {ranking} …")
            output = Path(folder) / f"{number}.jsonl"
            found[ranking] = run_batch(command, output, neurons_of, progress.note)
            output.unlink()
    rows = measure(found)
    print("\n".join(table(rows)))
    if arguments.json:
        write_json(arguments.json, commands, rows)
    progress.finish(f"{rows[0].facts} facts traced")
    return 0


def main() -> int:
    arguments = parse_arguments()
    return finish(PROGRAM, lambda: work(arguments))


if __name__ == "__main__":
    sys.exit(main())
