"""The picture of neurons shows what the record says, and a bad input is told in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY
from records import HIGH, LOW, make_neuron_record, make_record, make_skipped_record, with_counter
from results_made import make_header, make_neuron_summary, make_summary, make_traced, write_lines
from rometrace.plot_neurons import (
    PlotError,
    make_figure,
    make_layer_figure,
    make_summary_figure,
    read_picture,
    read_summary_picture,
)
from zygote import RUNNER

SCRIPT = REPOSITORY / "scripts/plot_neurons.py"
TOTAL = HIGH - LOW


def plot(folder: Path, record: Any, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Pipes a record (or raw text) into the script, as a user does."""
    text = record if isinstance(record, str) else json.dumps(record)
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = RUNNER.run(command, input=text.encode(), env=dict(os.environ), cwd=folder, timeout=120)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_refused(done: subprocess.CompletedProcess[str], phrase: str) -> None:
    """Exit status 2, and one line on stderr that says `phrase`."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("plot_neurons.py: "), done.stderr
    assert phrase in done.stderr


def panels_of(record: dict[str, Any]) -> list[Any]:
    return make_figure(read_picture(record)).axes


def lines_of(axes: Any) -> dict[str, Any]:
    """The named lines of a panel."""
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def texts_of(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def add_position(record: dict[str, Any], position: int) -> dict[str, Any]:
    """The record with the same found once more at another position."""
    neurons = record["neurons"]
    neurons["positions"].append(position)
    for name in ("effects", "sets", "sets_by_layer", "controls", "half"):
        if name in neurons:
            neurons[name] += [each | {"position": position} for each in neurons[name]]
    return record


def test_a_picture_of_each_format_and_of_standard_input_and_files(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text(json.dumps(make_neuron_record()))
    for suffix, signature in {"png": b"\x89PNG", "pdf": b"%PDF-", "svg": b"<?xml"}.items():
        done = plot(tmp_path, make_neuron_record(), "-o", f"a.{suffix}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert (tmp_path / f"a.{suffix}").read_bytes().startswith(signature)
    assert plot(tmp_path, "", "trace.json", "-o", "b.png").returncode == 0
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_dots_stand_at_layer_and_effect_with_their_errors() -> None:
    dots = panels_of(make_neuron_record())[0]
    (container,) = dots.containers
    points, _, (bars,) = container
    assert list(points.get_xdata()) == [5, 0]
    assert list(points.get_ydata()) == [0.5 * TOTAL, -0.1 * TOTAL]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    assert [list(end) for end in ends] == [[0.5 * TOTAL - 0.01, 0.5 * TOTAL + 0.01], [-0.1 * TOTAL - 0.01, -0.1 * TOTAL + 0.01]]  # fmt: skip
    assert texts_of(dots) == ["5:3 “trumpet”", "0:7 “trumpet”"]
    assert dots.get_title() == "Single neurons restored at “Davis*”"
    assert dots.get_xlabel() == "layer within tiny-model" and dots.get_ylabel() == "change of p(trumpet)"


def test_neurons_of_a_layer_stand_side_by_side_within_it() -> None:
    record = make_neuron_record()
    effects = record["neurons"]["effects"]
    record["neurons"]["effects"] = [effects[0] | {"neuron": number} for number in range(4)]
    points = panels_of(record)[0].containers[0][0].get_xdata()
    assert len(set(points)) == 4 and all(4.6 < place < 5.4 for place in points)


def test_curves_are_the_sets_and_their_controls_with_bands_on_a_logarithmic_axis() -> None:
    record = make_neuron_record()
    curves = panels_of(record)[1]
    assert curves.get_xscale() == "log" and curves.get_xlabel() == "neurons together, of 48"
    lines = lines_of(curves)
    assert list(lines) == ["the best by estimate", "whose values change most", "random, mean of 10 orders"]
    neurons = record["neurons"]
    best = lines["the best by estimate"]
    assert list(best.get_xdata()) == [1, 2, 4, 8, 16, 32, 48]
    assert list(best.get_ydata()) == [each["indirect_effect"] for each in neurons["sets"]]
    for order, line in zip(("change", "random"), list(lines.values())[1:]):
        wanted = [each["indirect_effect"] for each in neurons["controls"] if each["order"] == order]
        assert list(line.get_ydata()) == wanted
    edges = curves.collections[0].get_paths()[0].vertices[:, 1]
    assert min(edges) == pytest.approx(neurons["sets"][0]["indirect_effect"] - 0.01)
    assert max(edges) == pytest.approx(neurons["sets"][-1]["indirect_effect"] + 0.01)


def test_the_half_is_a_line_at_half_of_all_and_at_its_size() -> None:
    curves = panels_of(make_neuron_record())[1]
    dashed = [line for line in curves.get_lines() if line.get_color() == "#d55e00"]
    assert list(dashed[0].get_ydata()) == pytest.approx([0.4 * TOTAL] * 2)
    assert list(dashed[1].get_xdata()) == [12, 12]
    assert texts_of(curves) == ["half of all: 12 of 48"]


@pytest.mark.parametrize(
    "direction, nothing", [("denoising", "all bring nothing back"), ("noising", "all take nothing away")]
)
def test_where_all_do_nothing_there_is_no_half(direction: str, nothing: str) -> None:
    record = make_neuron_record()
    record["run"]["direction"] = direction
    record["neurons"]["half"][0]["neurons"] = None
    curves = panels_of(record)[1]
    assert texts_of(curves) == [nothing]
    assert not [line for line in curves.get_lines() if line.get_color() == "#d55e00"]


def test_noising_tells_what_is_lost() -> None:
    record = make_neuron_record()
    record["run"]["direction"] = "noising"
    dots, curves = panels_of(record)
    assert dots.get_title() == "Single neurons corrupted at “Davis*”" and dots.get_ylabel() == "p(trumpet) lost"
    assert curves.get_title() == "Sets of neurons corrupted at “Davis*”"


def test_each_position_has_a_row() -> None:
    axes = panels_of(add_position(make_neuron_record(), 3))
    assert [each.get_title() for each in axes] == [
        "Single neurons restored at “Davis*”",
        "Sets of neurons restored at “Davis*”",
        "Single neurons restored at “the”",
        "Sets of neurons restored at “the”",
    ]
    assert [len(each.containers[0][0].get_xdata()) for each in axes[::2]] == [2, 2]


def test_given_neurons_have_no_curve() -> None:
    record = make_neuron_record()
    for name in ("sets", "controls", "half"):
        del record["neurons"][name]
    assert len(panels_of(record)) == 1


def test_sets_of_each_layer_are_small_pictures_on_one_scale(tmp_path: Path) -> None:
    record = add_position(make_neuron_record(by_layer=True), 3)
    assert len(panels_of(record)) == 4  # sets of layers are not among those of all
    axes = make_layer_figure(read_picture(record)).axes
    names = [f"layer {layer}, “{token}”" for token in ("Davis*", "the") for layer in range(6)]
    assert [each.get_title() for each in axes] == names
    assert len({each.get_ylim() for each in axes}) == 1
    for each in axes:
        assert list(lines_of(each)["the best by estimate"].get_xdata()) == [1, 2, 4, 8]
        assert texts_of(each) == ["half: 2"]
    assert plot(tmp_path, record, "--by-layer", "-o", "layers.png").returncode == 0


def test_a_single_draw_has_no_errors() -> None:
    record = make_neuron_record()
    for name in ("effects", "sets", "controls"):
        for each in record["neurons"][name]:
            each["standard_error"] = None
    points, _, (bars,) = panels_of(record)[0].containers[0]
    assert all(low == high for low, high in (segment[:, 1] for segment in bars.get_segments()))


def test_how_it_was_made_stands_above() -> None:
    figure = make_figure(read_picture(with_counter(make_neuron_record())))
    assert figure.get_suptitle() == "corrupted by another prompt's tokens: “Miles Smiles plays the”"


def test_a_fact_is_chosen_from_a_batch(tmp_path: Path) -> None:
    neurons = make_neuron_record()["neurons"]
    lines = [make_header(), *(make_traced(number, grids={}, neurons=neurons) for number in (1, 2))]
    results = write_lines(tmp_path / "results.jsonl", lines)
    assert plot(tmp_path, "", results, "--record", 2, "-o", "b.png").returncode == 0
    done = plot(tmp_path, "", results, "-o", "a.png")
    assert_refused(done, "2 records, expected one; choose it with --id or --record")


@pytest.mark.parametrize(
    "record, arguments, phrase",
    [
        (make_record(), [], 'standard input, line 1 has no "neurons"; trace it with rometrace --kinds neuron'),
        (make_skipped_record(), [], "is the record of a skipped fact"),
        (make_neuron_record(), ["--by-layer"], "no sets of single layers; trace them with rometrace --sets layer"),
        (make_neuron_record() | {"tokens": ["Miles"], "token_bytes": ["4d"]}, [], "position 1, expected 0 to 0"),
        ("", [], "standard input is empty"),
        ("{}", [], 'JSON without "schema"'),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(
    tmp_path: Path, record: Any, arguments: list[str], phrase: str
) -> None:
    assert_refused(plot(tmp_path, record, *arguments, "-o", "out.png"), phrase)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["positions", "effects", "ranked_by"])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    record = make_neuron_record()
    del record["neurons"][name]
    with pytest.raises(PlotError, match=f"lacks the field '{name}'"):
        read_picture(record)


def test_a_trace_of_neurons_alone_is_pointed_here(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts/plot_trace.py"), "-o", "out.png"]
    data = json.dumps(make_neuron_record()).encode()
    done = RUNNER.run(command, input=data, env=dict(os.environ), cwd=tmp_path, timeout=120)
    assert done.returncode == 2 and done.stderr.decode().endswith("; plot_neurons.py draws neurons\n")


# --- Of a summary -----------------------------------------------------------------------------------------------


def test_a_summary_has_a_row_for_each_role_with_neurons(tmp_path: Path) -> None:
    figure = make_summary_figure(read_summary_picture(make_neuron_summary(), None, "bootstrap"))
    shared, sets, pairs = figure.axes
    assert shared.get_title() == "Last subject token: all facts (3)"
    assert [label.get_text() for label in shared.get_yticklabels()] == ["2:5 “jazz”"]
    assert [bar.get_width() for bar in shared.patches] == [pytest.approx(200 / 3)]
    assert texts_of(shared) == ["+0.1"]
    assert [bar.get_height() for bar in pairs.patches] == [25, 12.5]
    assert [label.get_text() for label in pairs.get_xticklabels()] == ["one relation", "neither"]
    assert [list(line.get_ydata()) for line in pairs.get_lines()] == [[6.25, 6.25]] * 2
    lines = lines_of(sets)
    assert list(lines["the best by estimate"].get_xdata()) == [1, 2, 4, 32]
    assert list(lines["the best by estimate"].get_ydata()) == [0.01, 0.02, 0.08, 0.4]
    assert list(lines["random, mean of 10 orders"].get_ydata()) == [0.005, 0.01, 0.04, 0.2]
    assert texts_of(sets) == ["half, median: 8"]
    edges = sets.collections[0].get_paths()[0].vertices[:, 1]
    assert min(edges) == pytest.approx(0.01 - 0.03) and max(edges) == pytest.approx(0.43)
    assert plot(tmp_path, make_neuron_summary(), "-o", "a.png").returncode == 0


def test_bands_and_groups_of_a_summary_are_chosen(tmp_path: Path) -> None:
    normal = make_summary_figure(read_summary_picture(make_neuron_summary(), None, "normal")).axes[1]
    assert max(normal.collections[0].get_paths()[0].vertices[:, 1]) == pytest.approx(0.42)
    none = make_summary_figure(read_summary_picture(make_neuron_summary(), None, "none")).axes[1]
    assert max(none.collections[0].get_paths()[0].vertices[:, 1]) == pytest.approx(0.4)
    done = plot(tmp_path, make_neuron_summary(), "--group", "relation=P30", "--band", "normal", "-o", "a.png")
    assert done.returncode == 0, done.stderr
    picture = read_summary_picture(make_neuron_summary(), "relation=P30", "bootstrap")
    assert make_summary_figure(picture).axes[0].get_title() == "Last subject token: relation=P30 (2)"


@pytest.mark.parametrize(
    "found, arguments, phrase",
    [
        (make_summary(), [], "the summary has no neurons"),
        (make_neuron_summary(), ["--record", "1"], "is a summary; --id, --record and --by-layer are for traces"),
        (make_neuron_summary(), ["--group", "relation=x"], 'no group "relation=x"'),
        (make_neuron_record(), ["--group", "relation=x"], "--group and --band are for a summary"),
    ],
)
def test_what_does_not_go_with_a_summary_is_told(tmp_path: Path, found: Any, arguments: list[str], phrase: str) -> None:
    assert_refused(plot(tmp_path, found, *arguments, "-o", "out.png"), phrase)


def test_a_summary_of_neurons_alone_is_pointed_here(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts/plot_summary.py"), "-o", "out.png"]
    data = json.dumps(make_neuron_summary()).encode()
    done = RUNNER.run(command, input=data, env=dict(os.environ), cwd=tmp_path, timeout=120)
    assert done.returncode == 2 and done.stderr.decode().endswith("; plot_neurons.py draws neurons\n"), done.stderr
