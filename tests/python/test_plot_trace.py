"""The picture shows what the record says, and a bad input is told in one line."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from rometrace import plot_trace
from rometrace import results_file
from results_made import make_header, make_traced, make_untraced, write_lines
from conftest import REPOSITORY
from rometrace.plot_trace import (
    PlotError,
    Panel,
    colour_range,
    label_of,
    layer_ticks,
    make_figure,
    read_picture,
)
from records import (
    HEADS,
    HIGH,
    LOW,
    less,
    make_both_record,
    make_record,
    make_skipped_record,
    make_whole_record,
    with_counter,
)
from zygote import RUNNER

SCRIPT = REPOSITORY / "scripts/plot_trace.py"
SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}
ODD_TOKENS = [b"A", b"\n", b" ", "東".encode(), "京".encode()[:2], "京".encode()[2:], b" $x_1$", b"\x1b[31m", b" _"]

Plot = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def plot(tmp_path: Path) -> Plot:
    """plot(record, *arguments) pipes a record (or raw text) into the script, as a user does."""

    def run(record: Any, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
        text = record if isinstance(record, (str, bytes)) else json.dumps(record)
        data = text.encode() if isinstance(text, str) else text
        command = [sys.executable, str(SCRIPT), *map(str, arguments)]
        done = RUNNER.run(command, input=data, env=os.environ | environment, cwd=tmp_path, timeout=120)
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def draw_here(record: dict[str, Any], folder: Path, *arguments: str) -> int:
    """Draws a record in this process, which saves starting matplotlib; gives the exit status."""
    (folder / "trace.json").write_text(json.dumps(record))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["plot_trace.py", str(folder / "trace.json"), *arguments])
        return plot_trace.main()


def figure_of(record: dict[str, Any], effect: bool = False) -> Any:
    """The figure that would be written."""
    return make_figure(read_picture(record, None, effect), None, None)


def panels_of(figure: Any) -> list[Any]:
    """The axes with heat maps, without the colour bars."""
    return [axes for axes in figure.axes if axes.get_title()]


def assert_refused(done: subprocess.CompletedProcess[str], phrase: str) -> None:
    """Exit status 2, and one line on stderr that says `phrase`."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    assert done.stderr.startswith("plot_trace.py: ")
    assert phrase in done.stderr


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_the_suffix_chooses_the_format(plot: Plot, tmp_path: Path, suffix: str) -> None:
    done = plot(make_record(), "-o", f"trace.{suffix}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / f"trace.{suffix}").read_bytes().startswith(SIGNATURES[suffix])
    assert [path.name for path in tmp_path.iterdir()] == [f"trace.{suffix}"]


def test_a_file_is_read_like_standard_input(plot: Plot, tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text(json.dumps(make_record()))
    assert plot("", "trace.json", "-o", "a.png").returncode == 0
    assert plot(make_record(), "-o", "b.png").returncode == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_script_runs_by_its_name(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = f"printf '%s' \"$RECORD\" | '{SCRIPT}' -o miles.png"
    environment = os.environ | {"PATH": path, "RECORD": json.dumps(make_record())}
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, env=environment, timeout=120)
    assert (tmp_path / "miles.png").exists()


def test_dpi_sets_the_size_of_a_png(tmp_path: Path) -> None:
    for dpi in (50, 100):
        assert draw_here(make_record(), tmp_path, "-o", f"{tmp_path}/{dpi}.png", "--dpi", str(dpi)) == 0
    widths = [int.from_bytes((tmp_path / f"{dpi}.png").read_bytes()[16:20], "big") for dpi in (50, 100)]
    assert abs(widths[1] - 2 * widths[0]) <= 1


def test_corrupted_tokens_are_starred_and_go_down() -> None:
    for axes in panels_of(figure_of(make_record())):
        assert [label.get_text() for label in axes.get_yticklabels()] == ["Miles*", "Davis*", "plays", "the"]
        assert axes.yaxis_inverted()


def test_titles_and_labels_are_the_papers() -> None:
    axes = panels_of(figure_of(make_record()))
    assert [one.get_title() for one in axes] == [
        "Impact of restoring state after corrupted input",
        "Impact of restoring MLP after corrupted input",
        "Impact of restoring attention after corrupted input",
    ]
    assert [one.get_xlabel() for one in axes] == [
        "single restored layer within tiny-model",
        "center of interval of 10 restored MLP layers within tiny-model",
        "center of interval of 10 restored attention layers within tiny-model",
    ]
    assert [one.collections[0].get_cmap().name for one in axes] == ["Purples", "Greens", "Reds"]


def test_colours_run_from_low_score_to_the_largest_score() -> None:
    for axes in panels_of(figure_of(make_record())):
        assert axes.collections[0].get_clim() == (LOW, HIGH)
    for axes in panels_of(figure_of(make_record(), effect=True)):
        assert axes.collections[0].get_clim() == (0, HIGH - LOW)


def test_the_colour_bar_names_the_answer() -> None:
    bars = [axes.get_ylabel() for axes in figure_of(make_record()).axes if axes.get_ylabel()]
    assert bars == ["p(trumpet)"] * 3


def test_every_cell_has_the_records_value() -> None:
    record = make_record()
    for axes, grid in zip(panels_of(figure_of(record)), record["grids"].values()):
        assert axes.collections[0].get_array().tolist() == grid["scores"]


def test_kinds_chooses_the_panels() -> None:
    picture = read_picture(make_record(), ["mlp"], effect=False)
    assert [panel.kind for panel in picture.panels] == ["mlp"]


def test_a_record_of_one_kind_gives_one_panel() -> None:
    record = make_record()
    record["grids"] = {"attn": record["grids"]["attn"]}
    assert len(panels_of(figure_of(record))) == 1


def test_a_grid_without_effects_has_a_scale_that_does_not_show_rounding() -> None:
    picture = read_picture(make_record(), None, effect=False)
    low, high = colour_range(picture, Panel("state", 1, [[LOW + 1e-8]]), None, None)
    assert high - low == pytest.approx(0.01 * LOW)


@pytest.mark.parametrize(("tokens", "layers"), [(1, 1), (5, 48), (30, 48), (150, 12)])
def test_any_size_of_grid_is_drawn(tmp_path: Path, tokens: int, layers: int) -> None:
    record = make_record([b" token"] * tokens, layers)
    assert draw_here(record, tmp_path, "-o", f"{tmp_path}/trace.png", "--dpi", "30") == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", SIGNATURES)
def test_odd_tokens_are_drawn_without_a_warning(tmp_path: Path, suffix: str) -> None:
    record = make_record(ODD_TOKENS, answer=b"\n")
    record["model"]["name"] = "../a $ model"
    assert draw_here(record, tmp_path, "-o", f"{tmp_path}/odd.{suffix}") == 0


@pytest.mark.parametrize(
    ("token", "label"),
    [
        (b" Miles", "Miles"),
        (b"\n", "\\n"),
        (b"\n\n", "\\n\\n"),
        (b"\t", "\\t"),
        (b"\x1b", "U+001B"),
        (b" ", "␣"),
        (b"  ", "␣␣"),
        (b"", ""),
        ("東".encode(), "東"),
        ("東".encode()[:2], "\\xe6\\x9d"),
        ("\ufffd".encode(), "\ufffd"),
        ("\u202e".encode(), "U+202E"),
        ("\u3000".encode(), "U+3000"),
        (b" $x$", "$x$"),
        (b"x" * 40, "x" * 23 + "…"),
    ],
)
def test_each_token_is_readable(token: bytes, label: str) -> None:
    assert label_of(token.decode(errors="replace"), token.hex()) == label


@pytest.mark.parametrize("layers", [1, 4, 12, 13, 14, 24, 48, 96, 1000, 20000])
def test_layers_are_numbered_from_zero_without_crowding(layers: int) -> None:
    ticks = list(layer_ticks(layers))
    assert ticks[0] == 0 and ticks[-1] < layers and len(ticks) <= 13


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "is empty, expected a JSON record; did rometrace fail?"),
        (" \n", "is empty"),
        ("rometrace: no such model", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"schema": ', "is not JSON"),
        ("[]", 'without "schema"'),
        ("{}", 'without "schema"'),
        ('{"schema": "rometrace/trace/2"}', 'schema "rometrace/trace/2", this program draws "rometrace/trace/1"'),
        ('{"schema": "rometrace/trace/1", "status": "traced"}', 'has no "grids"'),
        (json.dumps(make_skipped_record()), "skipped fact"),
        (json.dumps(make_record()) + "\n" + json.dumps(make_record()), "holds 2 records, expected one"),
    ],
)
def test_what_is_no_traced_record_is_told_in_one_line(plot: Plot, text: str | bytes, phrase: str) -> None:
    assert_refused(plot(text, "-o", "trace.png"), phrase)


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"grids": {}}, 'has no "grids"'),
        ({"grids": {"severed": {}}}, "no grid of a known kind, only severed"),
        ({"grids": make_whole_record()["grids"], "tokens": ["a"], "token_bytes": ["61"]}, "has a row for position 1"),
        ({"knockout": {"window": 9, "groups": {}}, "grids": {}}, "knockout has none of the groups before, subject"),
        ({"tokens": None}, "another type"),
        ({"token_bytes": ["xyz"] * 4}, "another type"),
        ({"token_bytes": ["61"]}, "another type"),
        ({"tokens": [], "token_bytes": []}, "is not 0 tokens"),
        ({"model": {"name": "tiny", "layers": 0}}, "is not 4 tokens by 0 layers"),
        ({"subject_range": [0]}, "another type"),
        ({"low_score": None}, "another type"),
        ({"model": {"name": "tiny"}}, "lacks the field 'layers'"),
        ({"model": {"name": "tiny", "layers": 7}}, "is not 4 tokens by 7 layers"),
        ({"grids": {"state": {"window": 1, "scores": [[float("nan")] * 6] * 4}}}, "no probability"),
        ({"grids": {"state": {"window": 1, "scores": [[None] * 6] * 4}}}, "another type"),
        ({"grids": {"state": {"window": 1}}}, "lacks the field 'scores'"),
    ],
)
def test_a_damaged_record_is_told_in_one_line(plot: Plot, change: dict[str, Any], phrase: str) -> None:
    assert_refused(plot(make_record() | change, "-o", "trace.png"), phrase)


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ((), "required: -o"),
        (("-o", "trace.jpg"), 'the suffix is ".jpg", expected one of .png, .pdf, .svg'),
        (("-o", "trace"), "suffix"),
        (("-o", "nowhere/trace.png"), "there is no folder nowhere"),
        (("-o", "trace.png", "missing.json"), "missing.json: cannot be read"),
        (("-o", "trace.png", "--kinds", "mlp,layer"), "'layer' is not a kind"),
        (("-o", "trace.png", "--dpi", "0"), "from 20 to 600"),
        (("-o", "trace.png", "--vmin", "0.5", "--vmax", "0.5"), "--vmax"),
        (("-o", "trace.png", "--vmax", "0.01"), "begin at 0.125 and end at 0.01"),
        (("-o", "trace.png", "--vmin", "nan"), "--vmin"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(plot: Plot, arguments: tuple[str, ...], phrase: str) -> None:
    assert_refused(plot(make_record(), *arguments), phrase)


def test_a_kind_that_the_record_lacks_is_told_in_one_line(plot: Plot) -> None:
    record = make_record()
    del record["grids"]["attn"]
    assert_refused(plot(record, "-o", "trace.png", "--kinds", "attn"), "no grid of attn, only state, mlp")


def test_a_failed_drawing_leaves_the_old_picture(plot: Plot, tmp_path: Path) -> None:
    (tmp_path / "trace.png").write_bytes(b"old")
    assert_refused(plot("{}", "-o", "trace.png"), "schema")
    assert (tmp_path / "trace.png").read_bytes() == b"old"


def test_missing_matplotlib_is_told_in_one_line(plot: Plot, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    done = plot(make_record(), "-o", "trace.png", PYTHONPATH=str(tmp_path))
    assert_refused(done, "matplotlib is not installed")


def test_no_display_is_needed(plot: Plot) -> None:
    done = plot(make_record(), "-o", "trace.png", DISPLAY="", MPLBACKEND="TkAgg")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_scale_that_cannot_be_is_refused() -> None:
    picture = read_picture(make_record(), None, effect=False)
    with pytest.raises(PlotError):
        colour_range(picture, picture.panels[0], 0.5, 0.25)


def test_what_rometrace_writes_is_drawn(traced: Callable[..., dict[str, Any]], shared: Path, plot: Plot) -> None:
    prompt = ("--prompt", "We are never ever getting back", "--subject", "never ever", "--noise", "0.5")
    done = plot(traced("--model", shared / "models/gpt2-lyrics", *prompt), "-o", "trace.png")
    assert (done.returncode, done.stderr) == (0, "")


# --- Many facts -------------------------------------------------------------------------------------------------

BATCH = [
    make_header(),
    make_traced(1, "plays/miles-davis"),
    make_untraced(2, "skipped", "other_answer"),
    make_traced(3, 16, relation="P31", low_score=0.0625),
    make_untraced(4, "failed", "record"),
    make_traced(5, 'C:\\..\\"\n../evil'),
]


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """A results file in the folder that `plot` works in."""
    return write_lines(tmp_path / "results.jsonl", BATCH)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[plot_trace.Picture]:
    """The pictures drawn in this process, in their order."""
    pictures: list[plot_trace.Picture] = []
    real = plot_trace.make_figure
    monkeypatch.setattr(
        plot_trace, "make_figure", lambda picture, *rest: (pictures.append(picture), real(picture, *rest))[1]
    )
    return pictures


def run_here(*arguments: Any) -> int:
    """The script in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["plot_trace.py", *map(str, arguments)])
        return plot_trace.main()


@pytest.mark.parametrize(
    ("choice", "record"),
    [(("--id", "plays/miles-davis"), 1), (("--record", "1"), 1), (("--id", "16"), 3), (("--record", "5"), 5)],
)
def test_an_id_or_a_number_chooses_a_fact(
    batch: Path, drawn: list[Any], tmp_path: Path, choice: tuple[str, str], record: int
) -> None:
    assert run_here(batch, *choice, "-o", tmp_path / "out.png", "--dpi", "30") == 0
    assert [picture.caption.split()[1] for picture in drawn] == [str(record)]


def test_the_only_traced_fact_of_a_batch_needs_no_choice(tmp_path: Path, drawn: list[Any]) -> None:
    lines = [line for line in BATCH if line.get("fact", {}).get("record") not in (1, 5)]
    assert run_here(write_lines(tmp_path / "one.jsonl", lines), "-o", tmp_path / "out.png", "--dpi", "30") == 0
    assert [picture.low for picture in drawn] == [0.0625]


def test_lines_without_a_fact_are_counted_from_one(tmp_path: Path, drawn: list[Any]) -> None:
    lines = [make_record(), make_record() | {"low_score": 0.25}]
    assert run_here(write_lines(tmp_path / "runs.jsonl", lines), "--record", "2", "-o", tmp_path / "out.png") == 0
    assert [picture.low for picture in drawn] == [0.25]


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ((), "holds 5 records, expected one; choose it with --id or --record, or draw each with --each FOLDER"),
        (("--id", "nobody"), "has no --id nobody among its 5 records"),
        (("--record", "2"), "line 3 is the record of a skipped fact (told why of 2)"),
        (("--record", "4"), "line 5 is the record of a failed fact (told why of 4)"),
        (("--record", "0"), "not a whole number from 1"),
        (("--record", "1", "--id", "16"), "not allowed with"),
        (("--limit", "3"), "--limit needs --each"),
        (("--same-scale",), "--same-scale needs --each"),
        (("--each", "pictures"), "give one of them"),
    ],
)
def test_a_choice_that_cannot_be_is_told_in_one_line(
    plot: Plot, batch: Path, arguments: tuple[str, ...], phrase: str
) -> None:
    assert_refused(plot("", batch, "-o", "out.png", *arguments), phrase)


def test_an_id_of_several_traces_asks_for_the_record(plot: Plot, tmp_path: Path) -> None:
    twice = write_lines(tmp_path / "twice.jsonl", [make_traced(7, "x"), make_traced(8, "x")])
    assert_refused(
        plot("", twice, "-o", "out.png", "--id", "x"), "holds 2 traces of --id x; choose one with --record, such as 7"
    )


def test_each_draws_the_traced_facts_into_safe_names(
    batch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(batch, "--each", tmp_path / "pictures", "--format", "svg") == 0
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["00001-plays-miles-davis.svg", "00003-16.svg", "00005-C-..-..-evil.svg"]
    assert capsys.readouterr().err == f"plot_trace.py: drew 3 facts into {tmp_path}/pictures\n"


@pytest.mark.parametrize("fact_id", ["", ".", "..", "../../etc/passwd", "CON", "a" * 500, "東京", "-rf", "\0"])
def test_any_id_gives_a_safe_name(fact_id: str) -> None:
    name = plot_trace.file_name_of(7, fact_id)
    assert name.startswith("00007") and len(name) < 100 and name.isascii() and "/" not in name and "\0" not in name


def test_relation_and_limit_choose_what_each_draws(batch: Path, tmp_path: Path, drawn: list[Any]) -> None:
    assert run_here(batch, "--each", tmp_path / "a", "--relation", "P31", "--dpi", "30") == 0
    assert [picture.low for picture in drawn] == [0.0625]
    assert run_here(batch, "--each", tmp_path / "b", "--limit", "2", "--dpi", "30") == 0
    assert len(list((tmp_path / "b").iterdir())) == 2
    assert run_here(batch, "--each", tmp_path / "c", "--relation", "P99") == 2
    assert not (tmp_path / "c").exists()


def test_each_draws_pages_of_one_pdf(batch: Path, tmp_path: Path) -> None:
    assert run_here(batch, "--each", tmp_path / "pages.pdf", "--kinds", "mlp") == 0
    data = (tmp_path / "pages.pdf").read_bytes()
    assert data.startswith(b"%PDF-") and b"/Count 3" in data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pages.pdf", "results.jsonl"]


def test_same_scale_gives_every_picture_the_same_colours(
    batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Any] = []
    real = plot_trace.make_figure

    def watch(*arguments: Any) -> Any:
        figure = real(*arguments)
        ends.extend(axes.collections[0].get_clim() for axes in panels_of(figure))
        return figure

    monkeypatch.setattr(plot_trace, "make_figure", watch)
    assert run_here(batch, "--each", tmp_path / "a", "--same-scale", "--dpi", "30") == 0
    assert len(ends) == 9 and set(ends) == {(0.0625, HIGH)}


def test_a_damaged_fact_does_not_stop_each(plot: Plot, tmp_path: Path) -> None:
    damaged = make_traced(1)
    del damaged["tokens"]
    write_lines(tmp_path / "results.jsonl", [make_header(), damaged, make_traced(2)])
    done = plot("", "results.jsonl", "--each", "pictures", "--dpi", "30")
    assert done.returncode == 1
    assert "results.jsonl, line 2: the record lacks the field 'tokens'" in done.stderr
    assert "drew 1 fact into pictures; 1 could not be drawn" in done.stderr


def test_each_reads_standard_input_too(plot: Plot, tmp_path: Path) -> None:
    text = "".join(json.dumps(line) + "\n" for line in BATCH)
    assert plot(text, "--each", "pictures", "--dpi", "30").returncode == 0
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert_refused(plot(text, "--each", "pictures", "--same-scale"), "give a file")


def test_a_torn_last_line_is_left_out_and_told(plot: Plot, tmp_path: Path) -> None:
    torn = json.dumps(make_traced(1)) + "\n" + json.dumps(make_traced(2))[:500]
    (tmp_path / "torn.jsonl").write_text(torn)
    done = plot("", "torn.jsonl", "-o", "out.png", "--dpi", "30")
    assert done.returncode == 0
    assert done.stderr == "plot_trace.py: torn.jsonl, line 2 is not complete and is left out; was the run stopped?\n"


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        (json.dumps(make_header()), "holds no records, only a header"),
        (json.dumps(make_traced(1)) + "\nnonsense\n" + json.dumps(make_traced(2)) + "\n", "line 2 is not JSON"),
        (json.dumps(make_header()) + '\n{"schema": "rometrace/probe/1"}\n', "it holds no traces"),
        ('{"schema": "rometrace/summary/1"}', "plot_summary.py draws summaries"),
    ],
)
def test_another_file_is_told_in_one_line(plot: Plot, text: str, phrase: str) -> None:
    assert_refused(plot(text, "-o", "out.png"), phrase)


def test_a_record_over_several_lines_is_drawn(plot: Plot) -> None:
    done = plot(json.dumps(make_record(), indent=1), "-o", "out.png", "--dpi", "30")
    assert (done.returncode, done.stderr) == (0, "")


def test_choosing_parses_only_the_chosen_line(batch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    real = results_file.parse_json
    monkeypatch.setattr(results_file, "parse_json", lambda where, data: (parsed.append(where), real(where, data))[1])
    arguments = argparse.Namespace(input=str(batch), id="16", record=None)
    assert plot_trace.choose(arguments).value["fact"]["record"] == 3
    assert parsed == [f"{batch}, line 4"]


def test_text_that_looks_like_keys_does_not_mislead() -> None:
    record = {
        "schema": "rometrace/trace/1",
        "prompt": '"status": "failed", "fact": {"id": 9}',
        "status": "traced",
        "fact": {"id": 7, "record": 2},
    }
    line = results_file.Line("here", 1, json.dumps(record).encode())
    assert (line.status, line.id, line.record) == ("traced", "7", 2)


# --- The whole method -------------------------------------------------------------------------------------------


def whole_figure(record: dict[str, Any] | None = None, **options: Any) -> Any:
    """The figure of a record with every kind, or of what `options` choose."""
    chosen = {"kinds": None, "effect": False} | options
    return make_figure(read_picture(record or make_whole_record(), **chosen), None, None)


def titles_of(figure: Any) -> list[str]:
    return [axes.get_title().replace("\n", " ") for axes in panels_of(figure)]


def labels_of(figure: Any) -> set[str]:
    """Labels of the colour bars."""
    return {axes.get_ylabel().replace("\n", " ").replace("\xa0", " ") for axes in figure.axes if not axes.get_title()}


def shade_at(figure: Any, axes: Any, row: int, layer: int) -> int:
    """Sum of red, green and blue where the drawn picture has a cell."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    x, y = axes.transData.transform((layer + 0.5, row + 0.5))
    pixels = canvas.buffer_rgba()
    return sum(pixels[pixels.shape[0] - 1 - int(y), int(x), colour] for colour in range(3))


def test_every_kind_has_a_panel_with_its_title() -> None:
    assert titles_of(whole_figure()) == [
        "Impact of restoring state after corrupted input",
        "Impact of restoring MLP after corrupted input",
        "Impact of restoring attention after corrupted input",
        "Impact of restoring state, MLP severed, after corrupted input",
        "Impact of restoring state, attention severed, after corrupted input",
        "Attention to the last position cut",
        "Impact of restoring single heads at “Davis*” after corrupted input",
        "Impact of restoring single heads at “the” after corrupted input",
    ]


def test_rows_are_the_positions_that_the_grid_lists() -> None:
    axes = panels_of(whole_figure(kinds=["state", "state_mlp_severed"]))
    assert [[label.get_text() for label in one.get_yticklabels()] for one in axes] == [["Davis*", "the"]] * 2


def test_severed_cells_have_the_records_values() -> None:
    record = make_whole_record()
    kinds = ["state_mlp_severed", "state_attn_severed"]
    for kind, axes in zip(kinds, panels_of(whole_figure(record, kinds=kinds))):
        assert axes.collections[0].get_array().tolist() == record["grids"][kind]["scores"]


def test_heads_go_down_and_layers_across_and_the_peak_is_the_darkest_pixel() -> None:
    figure = whole_figure(kinds=["head"])
    axes = panels_of(figure)[0]
    assert (axes.get_ylabel(), [label.get_text() for label in axes.get_yticklabels()]) == ("head", ["0", "1"])
    assert axes.collections[0].get_array().shape == (HEADS, 6)
    shades = {(head, layer): shade_at(figure, axes, head, layer) for head in range(HEADS) for layer in range(6)}
    assert min(shades, key=lambda cell: shades[cell]) == (1, 2)
    assert shades[1, 2] < 300 < 600 < min(shade for cell, shade in shades.items() if cell != (1, 2))


@pytest.mark.parametrize(
    ("positions", "heads_at", "drawn_at"),
    [
        ((1, 3), None, [1, 3]),
        ((0, 1, 2, 3), None, [0]),  # of many the one with the largest effect
        ((0, 1, 2, 3), ["all"], [0, 1, 2, 3]),
        ((0, 1, 2, 3), ["subject-last", "last"], [1, 3]),
        ((0, 1, 2, 3), [2], [2]),
    ],
)
def test_the_positions_of_heads_are_chosen(
    positions: tuple[int, ...], heads_at: list[int | str] | None, drawn_at: list[int]
) -> None:
    picture = read_picture(make_whole_record(positions=positions), ["head"], False, None, heads_at)
    assert [panel.positions for panel in picture.panels] == [[position] for position in drawn_at]


def test_knockout_lines_have_the_records_changes_in_percent() -> None:
    record = make_whole_record()
    (axes,) = panels_of(whole_figure(record, kinds=["knockout"]))
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata()) == 6}
    changes = {name: group["relative_change"] for name, group in record["knockout"]["groups"].items()}
    names = {"subject": "from: subject (2 tokens)", "after": "from: after the subject", "last": "from: last"}
    assert drawn == {names[name]: [100 * change for change in changes[name]] for name in changes}
    assert axes.get_ylabel() == "change of p(trumpet), %"
    figure = whole_figure(record)
    figure.draw_without_rendering()
    (axes,) = [axes for axes in panels_of(figure) if axes.get_legend()]
    legend = axes.get_legend().get_window_extent()
    assert legend.y1 < axes.xaxis.label.get_window_extent().y0 and legend.x1 < figure.bbox.x1  # covers no line
    figure = whole_figure(record, kinds=["knockout"])
    (axes,) = panels_of(figure)
    assert axes.get_xlabel() == "center of interval of 9 layers within tiny-model"


def test_a_record_of_knockout_alone_is_drawn() -> None:
    assert titles_of(whole_figure(make_whole_record() | {"grids": {}})) == ["Attention to the last position cut"]


def test_noising_shows_the_probability_lost() -> None:
    record = make_whole_record(direction="noising")
    figure = whole_figure(record, kinds=["state", "state_attn_severed", "head"], heads_at=["last"])
    assert titles_of(figure) == [
        "Probability lost when state is corrupted",
        "Probability lost when state, attention severed, is corrupted",
        "Probability lost when single heads at “the” are corrupted",
    ]
    assert labels_of(figure) == {"p(trumpet) lost"}
    cells = panels_of(figure)[0].collections[0]
    assert cells.get_array().tolist() == record["grids"]["state"]["indirect_effect"] and cells.get_clim()[0] == 0
    assert panels_of(figure)[0].get_xlabel() == "single corrupted layer within tiny-model"


@pytest.mark.parametrize(
    ("run", "remarks"),
    [
        ({}, []),
        ({"engine": "gradient", "approximate": True}, ["approximation (attribution patching)"]),
        ({"corruption": {"method": "zero"}, "noise": None}, ["corrupted by embeddings of zero"]),
        (
            {"corruption": {"method": "mean", "text": {"name": "f.json", "sha256": "0" * 64, "tokens": 3}}},
            ["corrupted by the mean embedding of f.json"],
        ),
    ],
)
def test_what_a_reader_must_know_stands_above(run: dict[str, Any], remarks: list[str]) -> None:
    assert whole_figure(make_whole_record(**run)).get_suptitle() == "\n".join(remarks)


def test_a_counter_prompt_is_named_and_stars_stand_where_it_differs() -> None:
    figure = whole_figure(with_counter(make_whole_record(positions=(0, 1, 2, 3))), kinds=["mlp"])
    assert figure.get_suptitle() == "corrupted by another prompt's tokens: “Miles Smiles plays the”"
    (axes,) = panels_of(figure)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Miles", "Davis*", "plays", "the"]


def test_scores_of_an_approximation_may_leave_the_range_of_probabilities() -> None:
    record = make_whole_record(engine="gradient", approximate=True)
    record["grids"]["state"]["scores"][0][0] = 1.5
    assert panels_of(whole_figure(record))[0].collections[0].get_clim() == (LOW, 1.5)
    with pytest.raises(results_file.UserError, match="no probability"):
        record["run"]["approximate"] = False
        read_picture(record, None, False)


def test_an_answer_of_several_tokens_is_named_whole() -> None:
    answer = {"answer": " New York City", "answer_bytes": b" New York City".hex(), "answer_ids": [1, 2, 3]}
    assert labels_of(whole_figure(make_whole_record() | answer, kinds=["mlp"])) == {"p(New York City)"}


@pytest.mark.parametrize(
    ("measure", "label", "ends", "rising"),
    [
        ("log_probability", "ln p(trumpet)", None, True),
        ("logit", "logit of trumpet", (1.0, 6.0), True),
        ("logit_difference", "logit of trumpet − logit of piano", (-1.5, 4.0), True),
        ("rank", "rank of trumpet (1 = first)", (1.0, 12.5), False),
        ("kl", "KL divergence from the clean run, nats", (0.0, 2.0), False),
        ("normalised", "normalised logit difference (0 = corrupted, 1 = clean)", (0.0, 1.0), True),
    ],
)
def test_a_measure_is_drawn_from_corrupted_to_clean(
    measure: str, label: str, ends: tuple[float, float] | None, rising: bool
) -> None:
    record = make_whole_record()
    figure = whole_figure(record, kinds=["head"], measure=measure, heads_at=[1])
    assert labels_of(figure) == {label}
    (axes,) = panels_of(figure)
    cells = axes.collections[0]
    values = record["measures"][measure]["grids"]["head"]["values"][0]
    assert cells.get_array().T.tolist() == values
    if ends:
        assert cells.get_clim() == pytest.approx(ends)
    assert shade_at(figure, axes, 1, 2) < 300, "the clean run's value is the darkest"
    assert (cells.get_cmap().name == "Oranges") == rising


def test_a_measure_that_is_no_number_is_a_grey_cell() -> None:
    record = make_whole_record()
    record["measures"]["kl"]["grids"]["mlp"]["values"][0][0] = None
    figure = whole_figure(record, kinds=["mlp"], measure="kl")
    assert shade_at(figure, panels_of(figure)[0], 0, 0) == 3 * 0xD0


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (("--measure", "beauty"), "invalid choice: 'beauty'"),
        (("--measure", "kl", "--kinds", "knockout"), "no grid of knockout, only state, mlp"),
        (("--heads-at", "first"), "'first' is not all, or a list of subject-last, last and numbers from 0"),
        (("--heads-at", "2"), "no heads at position 2, only at 1, 3; see --heads-at"),
    ],
)
def test_a_choice_of_the_whole_method_that_cannot_be_is_told_in_one_line(
    plot: Plot, arguments: tuple[str, ...], phrase: str
) -> None:
    assert_refused(plot(make_whole_record(), "-o", "out.png", *arguments), phrase)


def test_a_measure_that_the_record_lacks_says_how_to_get_it(plot: Plot) -> None:
    assert_refused(plot(make_record(), "-o", "out.png", "--measure", "kl"), "rometrace --measures kl adds it")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layers", [1, 12, 48])
def test_every_kind_is_drawn_at_any_size_without_overlap(layers: int) -> None:
    record = make_whole_record(layers, engine="gradient", approximate=True)
    record["model"]["name"] = "openai-community/gpt2-xl"
    assert_no_overlap(whole_figure(record))


def assert_no_overlap(figure: Any) -> None:
    """Titles and labels of x axes stand clear of each other and within the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for axes in panels_of(figure) for text in (axes.title, axes.xaxis.label, *axes.get_xticklabels())]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_same_scale_skips_what_has_no_map(tmp_path: Path, drawn: list[Any]) -> None:
    lines = [make_traced(1), make_traced(2, grids={}, knockout=make_whole_record()["knockout"])]
    results = write_lines(tmp_path / "results.jsonl", lines)
    assert run_here(results, "--each", tmp_path / "a", "--same-scale", "--dpi", "30") == 0
    assert [len(picture.panels) for picture in drawn] == [3, 0]


# --- Both directions --------------------------------------------------------------------------------------------

BOTH = ["state", "mlp"]


def cells_of(figure: Any) -> list[list[list[float]]]:
    """The values of each heat map, in the order of the panels."""
    return [axes.collections[0].get_array().tolist() for axes in panels_of(figure) if axes.collections]


def test_both_directions_stand_below_each_other_with_their_interaction() -> None:
    record = make_both_record()
    figure = whole_figure(record, kinds=BOTH)
    assert titles_of(figure) == [
        "Impact of restoring state after corrupted input",
        "Impact of restoring MLP after corrupted input",
        "Probability lost when state is corrupted",
        "Probability lost when MLP is corrupted",
        "Interaction of state: lost less brought back",
        "Interaction of MLP: lost less brought back",
    ]
    noising = record["noising"]["grids"]
    fields = [(record["grids"], "indirect_effect"), (noising, "indirect_effect"), (noising, "interaction")]
    assert cells_of(figure) == [grids[kind][name] for grids, name in fields for kind in BOTH]
    places = [axes.get_subplotspec() for axes in panels_of(figure)]
    cells = [(row, column) for row in range(3) for column in range(2)]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == cells
    assert labels_of(figure) == {"change of p(trumpet)", "p(trumpet) lost", "interaction in p(trumpet)"}
    assert panels_of(figure)[5].get_xlabel() == "center of interval of 10 patched MLP layers within tiny-model"


def test_what_is_restored_and_corrupted_share_a_scale_and_the_interactions_is_white_at_zero() -> None:
    record = make_both_record()
    record["noising"]["grids"]["mlp"]["interaction"][0][0] = -0.75
    figure = whole_figure(record, kinds=BOTH)
    ends = [axes.collections[0].get_clim() for axes in panels_of(figure)]
    assert ends[0] == ends[2] and ends[1] == ends[3] and ends[0] != ends[1]
    assert ends[2][1] == max(results_file.flat(record["noising"]["grids"]["state"]["indirect_effect"]))
    assert ends[5] == (-0.75, 0.75)
    axes = panels_of(figure)[4]
    cells = record["noising"]["grids"]["state"]["interaction"][0]
    assert cells[2] == 0 and cells[0] < 0 < cells[5]
    assert shade_at(figure, axes, 0, 2) > 720, "no interaction is white"
    red, blue = axes.collections[0].to_rgba([cells[5], cells[0]])
    assert red[0] > red[2] and blue[2] > blue[0]


@pytest.mark.parametrize("direction", ["denoising", "noising", "interaction"])
def test_one_direction_of_both_is_drawn_as_if_it_were_alone(direction: str) -> None:
    record = make_both_record()
    figure = whole_figure(record, direction=direction)
    alone = make_whole_record()
    if direction == "noising":
        alone["run"]["direction"] = "noising"
        alone["grids"] = record["noising"]["grids"]
    if direction == "interaction":
        assert titles_of(figure)[-1] == "Interaction of single heads at “the”: lost less brought back"
        assert cells_of(figure)[:5] == [grid["interaction"] for grid in list(record["noising"]["grids"].values())[:5]]
        assert "Attention to the last position cut" not in titles_of(figure)
        return
    expected = whole_figure(alone)
    assert titles_of(figure) == titles_of(expected) and cells_of(figure) == cells_of(expected)
    assert labels_of(figure) == labels_of(expected)
    assert [axes.get_xlabel() for axes in figure.axes] == [axes.get_xlabel() for axes in expected.axes]


@pytest.mark.parametrize("measure", plot_trace.MEASURES)
def test_a_measure_of_both_directions_has_its_interaction(measure: str) -> None:
    record = make_both_record()
    figure = whole_figure(record, kinds=["mlp"], measure=measure)
    ends = record["measures"][measure]
    restored, corrupted = (of["measures"][measure]["grids"]["mlp"]["values"] for of in (record, record["noising"]))
    brought_back = [[value - ends["low"] for value in row] for row in restored]
    taken_away = [[ends["high"] - value for value in row] for row in corrupted]
    drawn = cells_of(figure)
    assert [list(results_file.flat(cells)) for cells in drawn] == [
        pytest.approx(list(results_file.flat(cells)), abs=1e-12)
        for cells in (brought_back, taken_away, less(taken_away, brought_back))
    ]
    colours = [axes.collections[0].get_cmap().name for axes in panels_of(figure)]
    rising = ends["high"] > ends["low"]
    assert colours == (["Greens", "Greens", "RdBu_r"] if rising else ["Greens_r", "Greens_r", "RdBu"])
    (alone,) = cells_of(whole_figure(record, kinds=["mlp"], measure=measure, direction="interaction"))
    assert alone == drawn[2]


def test_heads_of_both_directions_are_those_of_one_position_and_knockout_stands_once() -> None:
    record = make_both_record(positions=(0, 1, 2, 3))
    head = record["noising"]["grids"]["head"]
    head["indirect_effect"][2][0][0] = HIGH  # the largest when noising; when denoising it is in row 0
    picture = read_picture(record, ["head", "knockout"], False)
    assert [part.panels[0].positions for part in (picture, *picture.below[:2])] == [[0]] * 3
    assert titles_of(make_figure(picture, None, None)) == [
        "Impact of restoring single heads at “Miles*” after corrupted input",
        "Probability lost when single heads at “Miles*” are corrupted",
        "Interaction of single heads at “Miles*”: lost less brought back",
        "Attention to the last position cut",
    ]
    noised = read_picture(record, ["head"], False, direction="noising")
    assert [panel.positions for panel in noised.panels] == [[2]]
    assert titles_of(whole_figure(record, kinds=["knockout"])) == ["Attention to the last position cut"]


def test_vmax_is_the_end_of_an_interaction_alone_on_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[Any] = []
    real = plot_trace.make_figure

    def watch(*arguments: Any) -> Any:
        figure = real(*arguments)
        ends.append([axes.collections[0].get_clim() for axes in panels_of(figure)])
        return figure

    monkeypatch.setattr(plot_trace, "make_figure", watch)
    record, name = make_both_record(), str(tmp_path / "out.png")
    assert draw_here(record, tmp_path, "-o", name, "--kinds", "mlp", "--direction", "interaction", "--vmax", "0.5") == 0
    assert draw_here(record, tmp_path, "-o", name, "--kinds", "mlp", "--vmin", "0", "--vmax", "0.5") == 0
    assert ends[0] == [(-0.5, 0.5)]
    assert ends[1][:2] == [(0, 0.5)] * 2 and ends[1][2][0] == -ends[1][2][1] != -0.5
    ends.clear()
    weaker = make_both_record()
    weaker["noising"]["grids"]["mlp"]["interaction"][0][5] = 0.875
    lines = [make_traced(n) | {k: of[k] for k in ("grids", "noising", "run")} for n, of in ((1, record), (2, weaker))]
    results = write_lines(tmp_path / "results.jsonl", lines)
    assert run_here(results, "--each", tmp_path / "a", "--same-scale", "--kinds", "mlp,state", "--dpi", "30") == 0
    assert ends[0] == ends[1] and ends[0][4:] == [(-0.875, 0.875)] * 2 and len(set(ends[0][:4])) == 1


@pytest.mark.parametrize(
    ("record", "arguments", "phrase"),
    [
        (make_record(), ("--direction", "noising"), "has no noising, only denoising; rometrace --direction both"),
        (make_whole_record(direction="noising"), ("--direction", "interaction"), "has no interaction, only noising"),
        (make_record(), ("--direction", "up"), "invalid choice: 'up'"),
        (make_both_record(), ("--direction", "interaction", "--vmin", "0"), "0 in its middle; give --vmax"),
        (make_both_record(), ("--direction", "interaction", "--effect"), "is a difference of effects"),
        (make_both_record(), ("--direction", "interaction", "--vmax", "-1"), "would end at -1, expected above 0"),
        (make_both_record(), ("--direction", "interaction", "--kinds", "knockout"), "no grid of knockout, only state"),
        (make_both_record() | {"noising": {}}, (), "lacks the field 'grids'"),
        (make_both_record() | {"noising": []}, (), "another type"),
        (make_both_record() | {"noising": {"grids": {"mlp": {}}}, "measures": {}}, (), "has no grid of state"),
    ],
)
def test_a_direction_that_cannot_be_drawn_is_told_in_one_line(
    plot: Plot, record: dict[str, Any], arguments: tuple[str, ...], phrase: str
) -> None:
    assert_refused(plot(record, "-o", "out.png", *arguments), phrase)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layers", [1, 12, 48])
def test_every_direction_is_drawn_at_any_size_without_overlap(layers: int) -> None:
    assert_no_overlap(whole_figure(make_both_record(layers) | {"model": make_gpt2_xl(layers)}))
    assert_no_overlap(whole_figure(make_both_record(layers) | {"model": make_gpt2_xl(layers)}, kinds=BOTH))


def make_gpt2_xl(layers: int) -> dict[str, Any]:
    return make_record(layers=layers)["model"] | {"name": "openai-community/gpt2-xl"}


def test_what_rometrace_writes_of_both_directions_is_drawn(traced: Callable[..., dict[str, Any]], plot: Plot) -> None:
    prompt = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--samples", "2")
    options = ("--kinds", "state,head,knockout", "--measures", "kl,normalised", "--direction", "both")
    record = traced(*prompt, *options)
    assert len(read_picture(record, None, False).below) == 3
    for more in ((), ("--measure", "kl"), ("--measure", "normalised", "--direction", "interaction")):
        done = plot(record, "-o", "trace.png", "--dpi", "30", *more)
        assert (done.returncode, done.stderr) == (0, "")
