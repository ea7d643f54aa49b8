"""What scripts/benchmarks/benchmark.py computes rather than measures, and the programs and runs whose scores it compares."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

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
            more = {"careful"} if kinds == benchmark.STATES else set()
            assert set(row.rounds[0].seconds) == {"rometrace", "reference"} | more


def test_kinds_in_company_have_their_scores_and_share_the_unpatched_run(checkpoint, arguments):
    plan = benchmark.Plan(rounds=2, cells=1, layers=1, warm_samples=1)
    with benchmark.start_rometrace(arguments) as worker:
        benchmark.load(worker, checkpoint, arguments)
        rows = benchmark.measure_methods(worker, checkpoint, a_prompt(7, (2, 5)), plan, arguments)
    by_variant = {row.variant: row for row in rows}
    assert rows[0].variant == benchmark.ALONE and rows[0].of_state_rate() == 1
    for row in rows:
        assert len(row.rounds) == 2 and len(benchmark.method_cells(row)) == len(benchmark.METHOD_COLUMNS)
        parts = [by_variant[part] for part in row.variant.parts()]
        if not parts:
            assert row.of_parts_operations() is None and row.of_parts_seconds() is None
            continue
        assert max(one.difference for one in row.rounds) < 1e-5
        for group, rows_of_group in row.token_layers.items():
            alone = [part.token_layers[group] for part in parts]
            assert max(alone) < rows_of_group < sum(alone), group


def test_scores_in_company_are_compared_for_every_cell(checkpoint, arguments):
    joined = benchmark.JOINED[-1]
    with benchmark.start_rometrace(arguments) as worker:
        benchmark.load(worker, checkpoint, arguments)
        variants = (benchmark.ALONE, *joined.parts(), joined)
        traced = {one: benchmark.trace_variant(worker, a_prompt(6, (1, 4)), one, 2) for one in variants}
    together = traced[joined]["scores"]
    assert set(together) == set(joined.kinds)
    for part in joined.parts():
        (kind,) = part.kinds
        assert [len(row) for row in together[kind]] == [len(row) for row in traced[part]["scores"][kind]]
    assert len(together["knockout"]) == 4  # subject, before, after, last
    assert [len(row) for row in together["state"]] == [checkpoint.layers]
    assert len(together["head"]) == 1 and len(together["head"][0]) % checkpoint.layers == 0

    together["head"][0][-1] *= 1.01
    with pytest.raises(benchmark.ScoresDiffer, match=r"test, .* head 0 \d+ "):
        benchmark.method_round("test", joined, traced, 100.0)


def test_figures_of_moments_are_written(checkpoint, arguments, monkeypatch, capsys, tmp_path):
    plans = {"demo": benchmark.Plan(rounds=1, cells=1, layers=1, warm_samples=1)}
    for name, value in (("shapes", ["demo"]), ("plans", plans)):
        setattr(arguments, name, value)
    monkeypatch.setattr(benchmark, "find_checkpoint", lambda shape: checkpoint)
    monkeypatch.setattr(benchmark, "MOMENT_LAYERS", {"demo": 2})
    monkeypatch.setattr(benchmark, "MOMENT_TEXTS", ((7, 3), (20, 2)))
    figures: dict = {}
    benchmark.moments(arguments, figures)
    benchmark.write_json(tmp_path / "figures.json", figures)
    rows = json.loads((tmp_path / "figures.json").read_text())["moments"]
    assert [(row["layer"], row["texts"], row["length"]) for row in rows] == [(2, 3, 7), (2, 2, 20)]
    assert all(row["seconds"] > 0 and row["gflops"] > 0 for row in rows)
    assert "| demo | 2 | 3 x 7 | " in capsys.readouterr().out


def test_what_a_row_takes_is_set_beside_its_parts_round_by_round():
    # 6 GFLOP in 2 s and 3 s, while the states ran at 2 and 1 GFLOP/s; the parts have 8 GFLOP.
    rounds = [
        benchmark.MethodRound(10.0, state_gflops=2.0, seconds=2.0, parts_seconds=4.0, difference=0.0),
        benchmark.MethodRound(10.0, state_gflops=1.0, seconds=3.0, parts_seconds=4.0, difference=0.0),
    ]
    row = benchmark.Method("gpt2", "A", benchmark.JOINED[0], rounds, 6e9, 8e9, {}, 1)
    assert row.seconds() == 2.5
    assert row.of_state_rate() == pytest.approx((3 / 2 + 2 / 1) / 2)
    assert row.of_parts_operations() == pytest.approx((2 * 2 / 8 + 3 * 1 / 8) / 2)
    assert row.of_parts_seconds() == pytest.approx((2 / 4 + 3 / 4) / 2)


def test_windows_are_those_asked_for(checkpoint, arguments):
    kinds = ("head", "knockout")
    with benchmark.start_rometrace(arguments) as worker:
        benchmark.load(worker, checkpoint, arguments)
        one, wide_heads, wide_knockout = (
            benchmark.trace_with_rometrace(worker, a_prompt(5, (1, 3)), kinds, 2, positions="last", **windows)["scores"]
            for windows in (
                {"head_window": 1, "knockout_window": 1},
                {"head_window": 3, "knockout_window": 1},
                {"head_window": 1, "knockout_window": 3},
            )
        )
    assert wide_heads["head"] != one["head"] and wide_heads["knockout"] == one["knockout"]
    assert wide_knockout["knockout"] != one["knockout"] and wide_knockout["head"] == one["head"]


@pytest.mark.parametrize(
    "kinds, positions, message",
    [
        (("state", "heads"), "all", "no such kind: heads"),
        (("state",), "subject-first", '"subject-first" names no positions'),
        (("state",), "1,9", "position 9 is not in the prompt"),
    ],
)
def test_unknown_kinds_and_positions_are_refused(checkpoint, arguments, kinds, positions, message):
    with benchmark.start_rometrace(arguments) as worker:
        benchmark.load(worker, checkpoint, arguments)
        with pytest.raises(benchmark.BenchmarkError, match=message):
            benchmark.trace_with_rometrace(worker, a_prompt(5, (1, 3)), kinds, 1, positions=positions)


def test_the_careful_loops_cache_takes_what_newer_versions_of_transformers_pass():
    torch = pytest.importorskip("torch")
    from benchmark_transformers import Prefix  # transformers with it, which no other test here needs in this process

    keys, values = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)
    prefix = Prefix(SimpleNamespace(layers=[SimpleNamespace(keys=keys, values=values)]), 2)
    plain = prefix.update(keys[:, :, 2:], values[:, :, 2:], 0)  # as 5.23 calls it
    named = prefix.update(keys[:, :, 2:], values[:, :, 2:], 0, kwargs={"position_ids": None})  # 5.24
    assert [part.tolist() for part in named] == [part.tolist() for part in plain] == [keys.tolist(), values.tolist()]


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
