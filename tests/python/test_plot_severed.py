"""The bars show what the trace or the summary says, and a bad input is told in one line."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from rometrace import plot_severed
from results_made import (
    LAYERS,
    make_header,
    make_summary,
    make_traced,
    make_untraced,
    make_whole_summary,
    write_lines,
)
from conftest import REPOSITORY
from rometrace.plot_severed import make_figure, of_summary, of_trace, role_of
from records import make_record, make_whole_record, with_counter
from zygote import RUNNER

SCRIPT = REPOSITORY / "scripts/plot_severed.py"
SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}
KINDS = ("state", "state_attn_severed", "state_mlp_severed")
DEFAULTS: dict[str, Any] = dict.fromkeys(("role", "position", "id", "record", "group", "vmin", "vmax"))
DEFAULTS |= {"band": "bootstrap", "width": 5.5}

Plot = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def plot(tmp_path: Path) -> Plot:
    """plot(value, *arguments) pipes a value as JSON (or raw text) into the script, as a user does."""

    def run(value: Any, *arguments: Any) -> subprocess.CompletedProcess[str]:
        text = value if isinstance(value, str) else json.dumps(value)
        command = [sys.executable, str(SCRIPT), *map(str, arguments)]
        return RUNNER.run(command, input=text, encoding="utf-8", env=os.environ, cwd=tmp_path, timeout=120)

    return run


def run_here(*arguments: Any) -> int:
    """The script in this process, which saves starting matplotlib."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["plot_severed.py", *map(str, arguments)])
        return plot_severed.main()


def figure_of(value: dict[str, Any], **options: Any) -> Any:
    """The figure of a trace or a summary."""
    arguments = argparse.Namespace(**(DEFAULTS | options))
    read = of_summary if value["schema"].startswith("rometrace/summary") else of_trace
    return make_figure(read(value, arguments), arguments)


def heights_of(figure: Any) -> list[list[float]]:
    """Heights of the bars, a list a kind."""
    return [[bar.get_height() for bar in bars] for bars in bars_of(figure)]


def bars_of(figure: Any) -> list[Any]:
    from matplotlib.container import BarContainer

    return [bars for bars in figure.axes[0].containers if isinstance(bars, BarContainer)]


def assert_refused(done: subprocess.CompletedProcess[str], phrase: str) -> None:
    """Exit status 2, and one line on stderr that says `phrase`."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("plot_severed.py: "), done.stderr
    assert phrase in done.stderr


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", SIGNATURES)
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "trace.json").write_text(json.dumps(make_whole_record()))
    assert run_here(tmp_path / "trace.json", "-o", tmp_path / f"out.{suffix}") == 0
    assert (tmp_path / f"out.{suffix}").read_bytes().startswith(SIGNATURES[suffix])


@pytest.mark.real_process
@pytest.mark.parametrize("value", [make_whole_record(), make_whole_summary()], ids=["trace", "summary"])
def test_a_trace_or_a_summary_is_read_from_standard_input(plot: Plot, tmp_path: Path, value: Any) -> None:
    done = plot(value, "-o", "out.png", "--dpi", "50")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert plot(json.dumps(value, indent=1), "-o", "spread.png", "--dpi", "50").returncode == 0
    assert (tmp_path / "spread.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_a_fact_has_its_effects_at_the_last_subject_token() -> None:
    record = make_whole_record()
    figure = figure_of(record)
    assert heights_of(figure) == [record["grids"][kind]["indirect_effect"][0] for kind in KINDS]
    assert "“Davis” (token 1)" in figure.axes[0].get_title() and "p(trumpet)" in figure.axes[0].get_title()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "Effect of single state",
        "Effect with Attn severed",
        "Effect with MLP severed",
    ]


@pytest.mark.parametrize("options", [{"position": 3}, {"position": "last"}, {"role": "last"}])
def test_another_position_is_chosen(options: dict[str, Any]) -> None:
    record = make_whole_record()
    assert heights_of(figure_of(record, **options))[0] == record["grids"]["state"]["indirect_effect"][1]


def test_an_average_has_its_values_and_intervals() -> None:
    summary = make_whole_summary()
    for band in ("bootstrap", "normal"):
        figure = figure_of(summary, band=band)
        roles = [summary["overall"]["kinds"][kind]["roles"]["last_subject"] for kind in KINDS]
        assert heights_of(figure) == [role["aie"] for role in roles]
        ends = [[tuple(line[:, 1]) for line in lines.get_segments()] for lines in figure.axes[0].collections]
        expected = [list(zip(role[f"{band}_low"], role[f"{band}_high"])) for role in roles]
        assert [sum(pairs, ()) for pairs in ends] == [pytest.approx(sum(pairs, ())) for pairs in expected]
        assert f"95 % over facts, {band}" in figure.axes[0].get_ylabel()
    assert not figure_of(summary, band="none").axes[0].collections


def test_a_group_and_a_role_of_a_summary_are_chosen() -> None:
    summary = make_whole_summary()
    figure = figure_of(summary, group="relation=P30", role="last")
    role = summary["by"]["relation"]["P30"]["kinds"]["state"]["roles"]["last"]
    assert heights_of(figure)[0] == role["aie"]
    assert figure.axes[0].get_title() == "Avg effect of states at the last token over 2 prompts\nrelation=P30"


def test_the_caveat_stands_in_every_picture() -> None:
    for value in (make_whole_record(), make_whole_summary()):
        told = figure_of(value).legends[0].get_title().get_text()
        assert told == "Where tracing peaks is not where editing works best (arXiv 2301.04213)."


def test_noising_and_corruption_are_told() -> None:
    noising = figure_of(make_whole_record(direction="noising"))
    assert noising.axes[0].get_ylabel() == "Probability lost"
    counter = figure_of(with_counter(make_whole_record()))
    assert counter.get_suptitle() == "corrupted by another prompt's tokens: “Miles Smiles plays the”"


def test_one_severed_kind_is_enough() -> None:
    record = make_whole_record()
    del record["grids"]["state_mlp_severed"]
    assert len(bars_of(figure_of(record))) == 2


def test_the_bars_are_where_and_what_colour_the_legend_says() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = figure_of(make_whole_record(48), width=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = canvas.buffer_rgba()
    for kind, bars in zip(KINDS, bars_of(figure)):
        bar = bars[16]  # near the peak
        x, y = figure.axes[0].transData.transform((bar.get_x() + bar.get_width() / 2, bar.get_height() / 3))
        seen = [pixels[pixels.shape[0] - 1 - int(y), int(x), colour] for colour in range(3)]
        wanted = bytes.fromhex(plot_severed.BARS[kind][1][1:])
        assert max(abs(a - b) for a, b in zip(seen, wanted)) < 40, kind


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layers", [1, 2, 12, 48])
def test_nothing_is_cut_off_or_overlaps(layers: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for value in (make_whole_record(layers, approximate=True, engine="gradient"), make_whole_summary(1000, layers)):
        for width in (3.5, 5.5):
            long_prompt = {"prompt": "The instrument that is played by the late Miles Davis is, so they say, the"}
            figure = figure_of(value | long_prompt, width=width)
            FigureCanvasAgg(figure).draw()
            axes, legend = figure.axes[0], figure.legends[0]
            texts = (axes.title, axes.xaxis.label, *axes.get_xticklabels(), legend.get_title(), *legend.get_texts())
            boxes = [text.get_window_extent() for text in texts if text.get_text()]
            assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
            assert all(box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 for box in boxes), (layers, width)


@pytest.mark.parametrize(
    ("subject", "tokens", "roles"),
    [
        ((1, 4), 7, [None, "first_subject", "middle_subject", "last_subject", "first_subsequent", "further", "last"]),
        ((0, 1), 3, ["last_subject", "first_subsequent", "last"]),
        ((1, 3), 3, [None, "first_subject", "last"]),
    ],
)
def test_a_token_has_the_role_that_the_summary_gives_it(
    subject: tuple[int, int], tokens: int, roles: list[str | None]
) -> None:
    assert [role_of(position, *subject, tokens) for position in range(tokens)] == roles


def test_a_fact_of_a_batch_is_chosen(tmp_path: Path) -> None:
    whole = make_whole_record(LAYERS)
    lines = [make_header(), make_traced(1, **{"grids": whole["grids"]}), make_untraced(2, "skipped", "other_answer")]
    lines.append(make_traced(3, "x", **{"grids": whole["grids"]}))
    results = write_lines(tmp_path / "results.jsonl", lines)
    assert run_here(results, "--id", "x", "-o", tmp_path / "a.png") == 0
    assert run_here(results, "--record", "1", "-o", tmp_path / "b.png") == 0


@pytest.mark.parametrize(
    ("value", "arguments", "phrase"),
    [
        (make_record(), (), "no severed states, only state, mlp, attn; trace it with rometrace --kinds state --sever"),
        (make_summary(), (), "the summary has no severed states, only state, mlp, attn; trace it with"),
        (make_whole_record() | {"grids": {"state_mlp_severed": {}}}, (), "no plain ones to compare them with"),
        (make_whole_record(), ("--position", "2"), "state has no row for position 2, only for 1, 3; see --position"),
        (make_whole_record(), ("--position", "9"), "--position is 9, expected 0 to 3: the prompt has 4 tokens"),
        (make_whole_record(), ("--role", "middle_subject"), "has no token in this prompt, expected one"),
        (make_whole_record(), ("--group", "relation=P30"), "traces, which have no groups"),
        (make_whole_record(), ("--role", "last", "--position", "1"), "not allowed with"),
        (make_whole_record(), ("--position", "first"), "'first' is not subject-last, last or a number from 0"),
        (make_whole_record(), ("--vmin", "2", "--vmax", "1"), "would begin at 2 and end at 1"),
        (make_whole_summary(), ("--position", "1"), "averages over facts, by role; --position is for a trace"),
        (make_whole_summary(), ("--record", "1"), "--record is for a trace"),
        (make_whole_summary(), ("--role", "middle_subject"), "no fact has a token of the role middle_subject"),
        (make_whole_summary(), ("--group", "relation=P9"), 'has no group "relation=P9"'),
        (make_untraced(1, "skipped", "other_answer"), (), "skipped fact (told why of 1)"),
        ({"schema": "rometrace/probe/1"}, (), "it holds no traces"),
        ("", (), "is empty"),
        ("nonsense", (), "is not JSON"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: Any, arguments: tuple[str, ...], phrase: str
) -> None:
    (tmp_path / "input.json").write_text(value if isinstance(value, str) else json.dumps(value))
    try:
        status = run_here(tmp_path / "input.json", "-o", tmp_path / "out.png", *arguments)
    except SystemExit as refused:
        status = refused.code
    told = capsys.readouterr().err
    assert_refused(subprocess.CompletedProcess([], status, "", told), phrase)
    assert [path.name for path in tmp_path.iterdir()] == ["input.json"]


def test_a_file_that_is_not_there_is_told_in_one_line(plot: Plot) -> None:
    assert_refused(plot("", "missing.json", "-o", "out.png"), "missing.json: cannot be read")
    assert_refused(plot("", "-o", "nowhere/out.png"), "there is no folder nowhere")
    assert_refused(plot("", "-o", "out.jpg"), 'the suffix is ".jpg"')
