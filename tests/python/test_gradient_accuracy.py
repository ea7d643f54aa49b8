"""scripts/benchmarks/gradient_accuracy.py: what it computes of made results files, and that it runs both engines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import accuracy_batches
import gradient_accuracy
import pytest
from records import LOW, make_head_grid
from rometrace.results_file import UserError, read_lines
from results_made import make_header, make_traced, make_untraced, write_lines

SCRIPT = Path(gradient_accuracy.__file__)


def read(path: Path, *lines: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The traced records of a results file of these lines."""
    return gradient_accuracy.traced_records(read_lines(str(write_lines(path, lines)), print))


def with_effects(record: dict[str, Any], kind: str, effects: list[Any]) -> dict[str, Any]:
    """The record with one grid only."""
    return record | {"grids": {kind: {"window": 1, "indirect_effect": effects}}}


def test_ranks_are_shared_by_equal_values():
    assert accuracy_batches.ranks([0.3, 0.1, 0.3, 0.2]) == [3.5, 1, 3.5, 2]


def test_cells_are_those_from_the_subject_on():
    record = make_traced(1) | {"subject_range": [1, 2]}
    effects = [[9.0] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.0] * 6, [0.7] * 6]
    exact = with_effects(record, "state", effects)
    nearly = with_effects(record, "state", [[-9.0] * 6, [0.1, 0.2, 0.3, 0.4, 0.6, 0.5], *effects[2:]])
    cells = gradient_accuracy.cells_of("a fact", "state", exact, nearly)
    assert len(cells.exact) == 18
    # The last token's effects are larger, but left out; before it the strongest two have changed places.
    assert cells.same_strongest is False
    # Ranks are six times 3.5, then 7 to 12, six times 15.5: their squares about the mean add up to 449.5, and with two
    # neighbours exchanged the products to one less.
    assert cells.correlation == pytest.approx(1 - 1 / 449.5)
    attention = [with_effects(record, "attn", one["grids"]["state"]["indirect_effect"]) for one in (exact, nearly)]
    assert gradient_accuracy.cells_of("a fact", "attn", *attention).same_strongest is True


def test_errors_are_over_all_facts_and_correlations_within_each(tmp_path):
    def effects(scale: float) -> list[list[float]]:
        return [[scale * (t + 4 * layer) for layer in range(6)] for t in range(4)]

    facts = [with_effects(make_traced(number), "mlp", effects(0.01)) for number in (1, 2, 3)]
    skipped = make_untraced(4, "skipped", "prediction")
    exact = read(tmp_path / "sweep.jsonl", make_header(), *facts, skipped)
    # The first fact as it is, the second upside down, the third twice too large; in another order.
    found = [with_effects(fact, "mlp", effects(scale)) for fact, scale in zip(facts, (0.01, -0.01, 0.02))]
    approximate = read(tmp_path / "gradient.jsonl", make_header(), *reversed(found), skipped)
    (row,) = gradient_accuracy.compare(exact, approximate)
    squares = sum((t + 4 * layer) ** 2 for t in range(4) for layer in range(6)) / 24 * 0.01**2
    assert (row.kind, row.window, row.facts, row.cells) == ("mlp", 1, 3, 72)
    assert row.correlation == pytest.approx([0, 1, 1])
    assert row.effect == pytest.approx(squares**0.5)
    assert row.error == pytest.approx(((0 + 4 + 1) / 3 * squares) ** 0.5)
    assert row.largest_error == pytest.approx(2 * 0.01 * 23)
    assert row.same_strongest == pytest.approx(2 / 3)
    assert list(gradient_accuracy.table([row]))[2] == (
        "| mlp | 1 | 3 | 72 | 1.000 (0.000 to 1.000) | 0.1342 | 0.1733 | 0.4600 | 67 % |"
    )


def test_heads_are_cells_of_their_own(tmp_path):
    peaks = [(2, 3, 1), (2, 3, 0)]
    lines = [make_traced(1) | {"grids": {"head": make_head_grid(range(4), 6, peak)}} for peak in peaks]
    exact, found = (read(tmp_path / f"{i}.jsonl", make_header(), line) for i, line in enumerate(lines))
    (row,) = gradient_accuracy.compare(exact, found)
    assert row.cells == 48
    assert row.same_strongest == 0
    assert row.largest_error > LOW


def test_a_fact_without_any_effect_has_no_correlation(tmp_path):
    flat = [with_effects(make_traced(1), "mlp", [[0.0] * 6] * 4)]
    records = read(tmp_path / "flat.jsonl", make_header(), *flat)
    (row,) = gradient_accuracy.compare(records, records)
    assert row.correlation == []
    assert "| – |" in list(gradient_accuracy.table([row]))[2]


def test_results_of_different_facts_are_refused(tmp_path):
    one, other = (read(tmp_path / f"{n}.jsonl", make_header(), make_traced(n)) for n in (1, 2))
    with pytest.raises(UserError, match="different facts"):
        gradient_accuracy.compare(one, other)
    with pytest.raises(UserError, match="no fact was traced"):
        gradient_accuracy.compare({}, {})


def test_both_engines_are_run_and_compared(demo, repository, bin_dir, tmp_path):
    figures = tmp_path / "accuracy.json"
    command = [sys.executable, SCRIPT, demo, repository / "share/rometrace/facts.json", "--sample", "4"]
    command += ["--window", "2", "--samples", "3", "--rometrace", bin_dir / "rometrace", "--json", figures]
    command += ["--", "--all"]
    done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    written = json.loads(figures.read_text(encoding="utf-8"))
    assert [row["kind"] for row in written["kinds"]] == ["state", "mlp", "attn", "head"]
    assert written["commands"]["gradient"][-1] == "--all"
    for row, line in zip(written["kinds"], done.stdout.splitlines()[2:], strict=True):
        assert line.startswith(f"| {row['kind']} | {row['window']} | 4 |")
        assert 0 < row["error"] < row["largest_error"]


def test_what_gradients_do_not_approximate_is_refused():
    command = [sys.executable, SCRIPT, "model", "facts.json", "--kinds", "state,knockout"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert "'knockout' is none of state, mlp, attn, head" in done.stderr
