"""What scripts/benchmark.py computes rather than measures, and the two programs that it compares with rometrace."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import benchmark
import pytest


@pytest.fixture
def checkpoint(demo: Path) -> benchmark.Checkpoint:
    """The demo model in place of a random checkpoint."""
    config = json.loads((demo / "config.json").read_text())
    return benchmark.Checkpoint("demo", demo, config["n_layer"], config["n_embd"], config["vocab_size"], 0)


@pytest.fixture
def arguments(bin_dir: Path) -> argparse.Namespace:
    return argparse.Namespace(bin_dir=bin_dir, device="cpu", threads=1)


def a_prompt(tokens: int, subject_range: tuple[int, int]) -> benchmark.Prompt:
    return benchmark.Prompt("test", "", tuple(range(300, 300 + tokens)), subject_range)


@pytest.mark.parametrize("tokens, begin, samples", [(5, 0, 10), (7, 3, 2), (2, 0, 1)])
def test_the_predicted_operations_are_those_that_the_sweep_counts(checkpoint, arguments, tokens, begin, samples):
    with benchmark.start_rometrace(arguments) as worker:
        benchmark.load(worker, checkpoint, arguments)
        prompt = a_prompt(tokens, (begin, begin + 1))
        traced = benchmark.trace_with_rometrace(worker, prompt, benchmark.STATES, samples)
    assert benchmark.predict_flops(checkpoint, tokens, begin, samples) == traced["flops"]


def test_a_row_of_the_table_compares_three_programs_that_agree(checkpoint, arguments):
    plan = benchmark.Plan(rounds=1, cells=6, layers=3, warm_samples=1)
    with (
        benchmark.start_rometrace(arguments) as rometrace,
        benchmark.start_transformers("the reference's procedure") as reference,
        benchmark.start_transformers("the careful loop") as careful,
    ):
        programs = benchmark.Programs(rometrace, reference, careful)
        for worker in vars(programs).values():
            benchmark.load(worker, checkpoint, arguments)
        for kinds in (benchmark.STATES, benchmark.ALL_KINDS):
            case = benchmark.Case(checkpoint, a_prompt(6, (2, 4)), kinds, plan)
            row = benchmark.compare_case(programs, case, arguments)
            assert row.rounds[0].difference < 1e-5
            assert set(row.rounds[0].seconds) == {"rometrace", "reference"} | ({"careful"} if kinds == ("state",) else set())


def test_the_careful_loop_is_extrapolated_by_a_line():
    # 2 s a layer and half a second for each block that follows, of 10 layers, three of them measured.
    sampled = [0, 4, 9]
    seconds = [2 + 0.5 * (9 - layer) for layer in sampled]
    total = benchmark.careful_grid_seconds({"base_seconds": 3, "seconds": seconds}, sampled, 10)
    assert total == pytest.approx(3 + 10 * 2 + 0.5 * 45)


def test_cells_and_layers_are_spread_over_the_grid(checkpoint):
    plan = benchmark.Plan(rounds=1, cells=8, layers=3, warm_samples=1)
    case = benchmark.Case(checkpoint, a_prompt(6, (2, 4)), benchmark.STATES, plan)
    assert case.layers() == [0, 4, 7]
    cells = case.cells()
    assert len(set(cells)) == 8 and {layer for _, layer in cells} <= {0, 4, 7}
    assert {position for position, _ in cells} == set(range(6))
