"""scripts/benchmarks/neuron_accuracy.py: what it computes of made results files, and that it runs the program."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Sequence

import neuron_accuracy
import pytest
from neuron_accuracy import Agreement, Neurons, agreement, measure, needed_for, table
from rometrace.results_file import UserError, read_lines
from results_made import make_header, make_traced, make_untraced, write_lines

SCRIPT = Path(neuron_accuracy.__file__)


def make_neurons(exact: Sequence[float], estimate: Sequence[float | None], **changes: Any) -> dict[str, Any]:
    """A record's neurons, two a layer, the largest effect first; the value falls from 1 by its number."""
    effects = [
        {
            "layer": n // 2,
            "position": 1,
            "neuron": n % 2,
            "estimate": estimate[n],
            "indirect_effect": exact[n],
            "value": {"clean": 1.0, "corrupted": 1.0 - n},
        }
        for n in range(len(exact))
    ]
    effects.sort(key=lambda one: -abs(one["indirect_effect"]))
    sets = [{"position": 1, "neurons": n, "indirect_effect": n / 100} for n in (1, 64, 128)]
    few = [one | {"indirect_effect": one["neurons"] / 1000} for one in sets if one["neurons"] < 64]
    controls = [{"order": order} | one for order, some in (("random", sets), ("change", few)) for one in some]
    controls.append({"order": "change", "layer": 0} | sets[1])
    return {"candidates": len(exact), "effects": effects, "sets": sets, "controls": controls} | changes


def read(path: Path, *lines: dict[str, Any]) -> dict[str, Neurons]:
    return neuron_accuracy.traced_neurons(read_lines(str(write_lines(path, lines)), print))


def test_neurons_are_read_in_their_order(tmp_path: Path) -> None:
    exact, estimate = [0.1, -0.4, 0.2, 0.3], [0.2, -0.3, 0.1, 0.4]
    traced = make_traced(1) | {"neurons": make_neurons(exact, estimate)}
    (found,) = read(tmp_path / "a.jsonl", make_header(), traced, make_untraced(2, "skipped", "prediction")).values()
    assert found == Neurons(exact, estimate, [0, 1, 2, 3], 0.64, 0.001)


def test_records_that_do_not_tell_all_are_refused(tmp_path: Path) -> None:
    few = make_traced(1) | {"neurons": make_neurons([0.1, 0.2], [0.1, 0.2], candidates=3)}
    with pytest.raises(UserError, match="tells of 2 of 3 neurons"):
        read(tmp_path / "few.jsonl", make_header(), few)
    unranked = make_traced(1) | {"neurons": make_neurons([0.1, 0.2], [None, None])}
    with pytest.raises(UserError, match="without an estimate"):
        read(tmp_path / "unranked.jsonl", make_header(), unranked)
    with pytest.raises(UserError, match="has no neurons"):
        read(tmp_path / "none.jsonl", make_header(), make_traced(1))


def test_the_best_are_found_by_size_and_the_correlation_by_sign() -> None:
    exact = [(-1) ** n * (100 - n) for n in range(100)]
    assert agreement(exact, exact) == Agreement(pytest.approx(1), list(range(20)), 100)
    opposite = agreement(exact, [-value for value in exact])
    assert (opposite.correlation, opposite.among(20)) == (pytest.approx(-1), 20)
    # The best twenty come behind the thirty after them.
    moved = agreement(exact, [*exact[30:50], *exact[:30], *exact[50:]])
    assert moved.places == list(range(30, 50))
    assert [moved.among(first) for first in (20, 30, 31, 50)] == [0, 0, 1, 20]
    sizes = agreement(exact, [abs(value) for value in exact], of_sizes=True)
    assert sizes.correlation == pytest.approx(1)
    assert agreement(exact, [0.0] * 100).correlation is None


def test_what_is_needed_is_of_the_mean_over_facts() -> None:
    near, far = Agreement(1, list(range(20)), 100), Agreement(1, [*range(15), 40, 50, 60, 70, 80], 100)
    assert needed_for([near], 0.9) == 18
    assert needed_for([far], 0.9) == 61
    # 36 of 40: all of the first, and 16 of the second.
    assert needed_for([near, far], 0.9) == 41
    assert needed_for([near, far], 1) == 81


def test_the_table_has_a_row_for_each_ranking_and_one_for_the_change() -> None:
    draw = random.Random(3)
    facts = {}
    for name in "abc":
        exact = [draw.gauss(0, 1) for _ in range(200)]
        facts[name] = Neurons(exact, [value + draw.gauss(0, 0.1) for value in exact], [draw.random() for _ in exact], 0.25, 0.125)
    perfect = {name: Neurons(fact.exact, fact.exact, fact.change, 0.5, 0.125) for name, fact in facts.items()}
    rows = measure({"gradient": facts, "integrated:8": perfect})
    assert [(row.ranking, row.facts, row.neurons) for row in rows] == [
        ("gradient", 3, 200),
        ("integrated:8", 3, 200),
        ("size of the change", 3, 200),
    ]
    gradient, integrated, change = rows
    assert 0.9 < gradient.correlation.low <= gradient.correlation.mean <= gradient.correlation.high < 1
    assert abs(change.correlation.mean) < 0.2
    assert 0 <= change.among[20].mean < 10 <= gradient.among[20].mean < 20
    assert [row.together.mean for row in rows] == [0.25, 0.5, 0.125]
    assert 18 < gradient.needed < change.needed <= 200
    lines = list(table(rows))
    assert lines[0].count("|") == lines[1].count("|") == lines[3].count("|")
    assert lines[3] == (
        "| integrated:8 | 3 | 200 | 1.00 (1.00 to 1.00) | 20.0 (20.0 to 20.0) | 20.0 (20.0 to 20.0) | 18 (0.9 x) "
        "| 50.0 (50.0 to 50.0) |"
    )


def test_intervals_are_those_of_drawing_facts_again() -> None:
    values = [float(n) for n in range(100)]
    found = neuron_accuracy.mean_of(values)
    assert found.mean == 49.5
    # The mean of 100 of them has a standard deviation of 2.89.
    assert found.low == pytest.approx(49.5 - 1.96 * 2.89, abs=0.4)
    assert found.high == pytest.approx(49.5 + 1.96 * 2.89, abs=0.4)
    assert neuron_accuracy.mean_of(values) == found


def test_results_of_different_facts_are_refused() -> None:
    one = {"a": Neurons([1.0, 2.0], [1.0, 2.0], [1.0, 2.0], 0.5, 0.5)}
    with pytest.raises(UserError, match="traced 0 facts and another ranking 1"):
        measure({"gradient": one, "integrated:8": {}})
    with pytest.raises(UserError, match="no fact was traced"):
        measure({"gradient": {}})


def test_a_ranking_that_estimates_nothing_is_refused() -> None:
    command = [sys.executable, SCRIPT, "model", "facts.json", "--rankings", "gradient,none"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert "'none' estimates nothing" in done.stderr


def test_every_neuron_is_run_and_compared(repository: Path, bin_dir: Path, tmp_path: Path) -> None:
    figures = tmp_path / "accuracy.json"
    command = [SCRIPT, repository / "share/rometrace/demo", repository / "share/rometrace/facts.json", "--sample", "2"]
    command += ["--samples", "2", "--rometrace", bin_dir / "rometrace", "--json", figures, "--", "--layers", "3-3"]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text(encoding="utf-8"))
    assert [row["ranking"] for row in written["rows"]] == ["gradient", "integrated:8", "size of the change"]
    for row, line in zip(written["rows"], done.stdout.splitlines()[2:], strict=True):
        assert line.startswith(f"| {row['ranking']} |")
        assert row["neurons"] == 512
    assert written["rows"][0]["correlation"]["mean"] > 0.9
