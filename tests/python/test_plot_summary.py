"""The figures show what the summary says, and a bad input is told in one line."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from rometrace import plot_summary
from results_made import LAYERS, ROLES, make_both_summary, make_header, make_summary, make_traced, make_whole_summary, write_lines
from conftest import REPOSITORY
from rometrace.plot_summary import LINES, Picture, make_heads, make_heatmap, make_lines, read_picture
from rometrace.plotting import PlotError
from zygote import RUNNER

SCRIPT = REPOSITORY / "scripts/plot_summary.py"
SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}
KINDS = ("state", "mlp", "attn")
PAPERS_ROLES = [
    "First subject token",
    "Middle subject tokens",
    "Last subject token",
    "First subsequent token",
    "Further tokens",
    "Last token",
]

Plot = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def plot(tmp_path: Path) -> Plot:
    """plot(summary, *arguments) pipes a summary (or raw text) into the script, as a user does."""

    def run(summary: Any, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
        text = summary if isinstance(summary, str) else json.dumps(summary)
        command = [sys.executable, str(SCRIPT), *map(str, arguments)]
        environment = os.environ | environment
        return RUNNER.run(command, input=text, encoding="utf-8", env=environment, cwd=tmp_path, timeout=120)

    return run


def draw_here(summary: dict[str, Any], folder: Path, *arguments: str) -> int:
    """Draws in this process, which saves starting matplotlib; gives the exit status."""
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["plot_summary.py", str(folder / "summary.json"), *arguments])
        return plot_summary.main()


def picture_of(summary: dict[str, Any] | None = None, group: str | None = None, band: str = "bootstrap") -> Picture:
    return read_picture(summary or make_summary(), None, group, band)


def heatmap_of(picture: Picture, width: float = 5.5) -> Any:
    return make_heatmap(picture, (None, None), width)


def lines_of(picture: Picture, band: str = "bootstrap", width: float = 5.5) -> Any:
    return make_lines(picture, (None, None), width, band)


def panels_of(figure: Any) -> list[Any]:
    return [axes for axes in figure.axes if axes.get_title()]


def assert_refused(done: subprocess.CompletedProcess[str], phrase: str) -> None:
    """Exit status 2, and one line on stderr that says `phrase`."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    assert done.stderr.startswith("plot_summary.py: ")
    assert phrase in done.stderr


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("figure", ["heatmap", "lines"])
@pytest.mark.parametrize("suffix", SIGNATURES)
def test_the_suffix_chooses_the_format(tmp_path: Path, figure: str, suffix: str) -> None:
    assert draw_here(make_summary(), tmp_path, "-o", f"{tmp_path}/out.{suffix}", "--figure", figure) == 0
    assert (tmp_path / f"out.{suffix}").read_bytes().startswith(SIGNATURES[suffix])


@pytest.mark.real_process
def test_a_piped_summary_is_drawn_silently(plot: Plot, tmp_path: Path) -> None:
    done = plot(make_summary(), "-o", "roll-up.png", "--dpi", "50")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["roll-up.png"]


def test_titles_and_labels_are_the_papers() -> None:
    axes = panels_of(heatmap_of(picture_of()))
    assert [one.get_title() for one in axes] == [
        "Avg Indirect Effect of\n$h_i^{(l)}$ over 3 prompts",
        "Avg Indirect Effect of\nMLP over 3 prompts",
        "Avg Indirect Effect of\nAttn over 3 prompts",
    ]
    assert [one.get_xlabel() for one in axes] == [
        "Layer number in\ntiny-model",
        "Center of interval of 10\npatched mlp layers",
        "Center of interval of 10\npatched attn layers",
    ]
    assert [label.get_text().split("\n")[0] for label in axes[0].get_yticklabels()] == PAPERS_ROLES
    assert [one.collections[0].get_cmap().name for one in axes] == ["Purples", "Greens", "Reds"]


def test_a_role_that_fewer_facts_have_says_how_many() -> None:
    labels = [label.get_text() for label in panels_of(heatmap_of(picture_of()))[0].get_yticklabels()]
    assert [label for label in labels if "n =" in label] == ["First subsequent token\n(n = 2)"]


def test_one_colour_scale_holds_for_all_panels() -> None:
    summary = make_summary()
    every = [
        value
        for kind in KINDS
        for role in summary["overall"]["kinds"][kind]["roles"].values()
        for value in role["aie"] or []
    ]
    limits = {axes.collections[0].get_clim() for axes in panels_of(heatmap_of(picture_of(summary)))}
    assert limits == {(min(every), max(every))}
    bars = [axes for axes in heatmap_of(picture_of(summary)).axes if "AIE" in axes.get_ylabel()]
    assert len(bars) == 1 and bars[0].get_ylim() == (min(every), max(every))


def test_a_scale_that_ends_early_says_so() -> None:
    picture = picture_of()
    figure = make_heatmap(picture, (0.0, 0.05), 5.5)
    assert [axes.get_ylabel() for axes in figure.axes if "AIE" in axes.get_ylabel()] == ["AIE (darkest: up to 0.18)"]
    assert {axes.collections[0].get_clim() for axes in panels_of(figure)} == {(0.0, 0.05)}


def test_every_cell_has_the_summarys_value() -> None:
    summary = make_summary()
    for kind, axes in zip(KINDS, panels_of(heatmap_of(picture_of(summary)))):
        cells = axes.collections[0].get_array()
        for row, role in enumerate(ROLES):
            expected = summary["overall"]["kinds"][kind]["roles"][role]["aie"]
            assert cells.mask[row].all() if expected is None else cells[row].tolist() == expected


def test_a_role_without_tokens_is_hatched_and_named() -> None:
    for axes in panels_of(heatmap_of(picture_of())):
        assert [patch.get_hatch() for patch in axes.patches] == ["////"]
        assert [patch.get_y() for patch in axes.patches] == [ROLES.index("middle_subject")]
        assert [text.get_text() for text in axes.texts] == ["no such token traced"]


def test_lines_have_the_summarys_values_and_bands() -> None:
    summary = make_summary()
    for kind, axes in zip(KINDS, panels_of(lines_of(picture_of(summary)))):
        roles = [role for role in summary["overall"]["kinds"][kind]["roles"].values() if role["aie"]]
        drawn = [line for line in axes.get_lines() if len(line.get_ydata()) == LAYERS]
        assert [list(line.get_ydata()) for line in drawn] == [role["aie"] for role in roles]
        ends = [(box.y0, box.y1) for box in (band.get_datalim(axes.transData) for band in axes.collections)]
        expected = [(min(role["bootstrap_low"]), max(role["bootstrap_high"])) for role in roles]
        assert ends == [pytest.approx(pair) for pair in expected]


def test_the_normal_band_is_the_narrower_one_here() -> None:
    axes = panels_of(lines_of(picture_of(band="normal"), "normal"))[0]
    box = axes.collections[-1].get_datalim(axes.transData)
    last = make_summary()["overall"]["kinds"]["state"]["roles"]["last"]
    assert (box.y0, box.y1) == pytest.approx((min(last["normal_low"]), max(last["normal_high"])))
    assert "normal" in axes.get_ylabel()


def test_no_band_is_drawn_where_there_is_none() -> None:
    one_fact = make_summary()
    for kind in KINDS:
        for role in one_fact["overall"]["kinds"][kind]["roles"].values():
            role.update(bootstrap_low=None, bootstrap_high=[None] * LAYERS)
    for picture, band in ((picture_of(band="none"), "none"), (picture_of(one_fact), "bootstrap")):
        axes = panels_of(lines_of(picture, band))[0]
        assert not axes.collections and axes.get_ylabel() == "AIE"


def test_the_legend_says_n_of_each_role() -> None:
    legend = lines_of(picture_of()).legends[0]
    assert {text.get_text() for text in legend.get_texts()} == {
        "First subject token (n = 3)",
        "Last subject token (n = 3)",
        "First subsequent token (n = 2)",
        "Further tokens (n = 3)",
        "Last token (n = 3)",
        "Middle subject tokens (none)",
    }


def test_the_legend_of_a_single_role_names_no_other() -> None:
    summary = make_summary()
    empty = summary["overall"]["kinds"]["state"]["roles"]["middle_subject"]
    for kind in KINDS:
        roles = summary["overall"]["kinds"][kind]["roles"]
        roles.update({name: empty for name in ROLES if name != "last_subject"})
    legend = lines_of(picture_of(summary)).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["Last subject token (n = 3)"]


def test_panels_share_the_y_axis_and_lines_differ_without_colour() -> None:
    axes = panels_of(lines_of(picture_of()))
    assert len({one.get_ylim() for one in axes}) == 1
    assert len({str(dashes) for _, dashes, _ in LINES.values()}) == len(ROLES)


def luminance(colour: str) -> float:
    return sum(w * int(colour[i : i + 2], 16) for w, i in ((0.2126, 1), (0.7152, 3), (0.0722, 5)))


def test_the_two_lines_of_the_papers_finding_differ_most_in_grey() -> None:
    assert abs(luminance(LINES["last_subject"][0]) - luminance(LINES["last"][0])) > 80


@pytest.mark.parametrize("figure", [heatmap_of, lines_of])
def test_nothing_is_cut_off_or_overlaps_at_the_papers_width(figure: Callable[..., Any]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    summary = make_summary(traced=1000, layers=48)
    summary["model"]["name"] = "openai-community/gpt2-xl"
    for width in (3.3, 5.5):
        drawn = figure(read_picture(summary, None, "relation=P30" if width < 4 else None, "bootstrap"), width=width)
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        box = drawn.bbox
        inside = drawn.get_tightbbox(canvas.get_renderer()).transformed(drawn.dpi_scale_trans)
        assert inside.x0 >= box.x0 - 1 and inside.y0 >= box.y0 - 1, (width, inside, box)
        assert inside.x1 <= box.x1 + 1 and inside.y1 <= box.y1 + 1, (width, inside, box)
        texts = [text for axes in panels_of(drawn) for text in (axes.title, axes.xaxis.label, *axes.get_xticklabels())]
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_group_of_the_break_down_is_drawn() -> None:
    summary = make_summary()
    picture = picture_of(summary, "relation=P30")
    assert picture.facts == 2
    assert (
        picture.panels[0].roles["last"].aie
        == summary["by"]["relation"]["P30"]["kinds"]["state"]["roles"]["last"]["aie"]
    )
    assert heatmap_of(picture).get_suptitle() == "relation=P30"


def test_kinds_chooses_the_panels() -> None:
    assert [panel.kind for panel in read_picture(make_summary(), ["attn", "state"], None, "none").panels] == [
        "state",
        "attn",
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layers", [1, 2, 12, 96])
@pytest.mark.parametrize("figure", ["heatmap", "lines"])
def test_any_number_of_layers_is_drawn(tmp_path: Path, layers: int, figure: str) -> None:
    summary = make_summary(layers=layers)
    assert (
        draw_here(summary, tmp_path, "-o", f"{tmp_path}/out.png", "--dpi", "30", "--figure", figure, "--width", "3.3")
        == 0
    )


def test_an_average_of_nothing_but_zeros_is_drawn(tmp_path: Path) -> None:
    summary = make_summary()
    for kind in KINDS:
        for role in summary["overall"]["kinds"][kind]["roles"].values():
            role["aie"] = role["aie"] and [0.0] * LAYERS
    assert draw_here(summary, tmp_path, "-o", f"{tmp_path}/out.png", "--dpi", "30") == 0


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "is empty, expected a JSON summary; did rometrace fail?"),
        ("rometrace: no", "is not JSON"),
        ("[]", 'without "schema"'),
        ('{"schema": "rometrace/summary/2"}', 'this program draws "rometrace/summary/1"'),
        ('{"schema": "rometrace/trace/1"}', "run rometrace summary on it first"),
        ('{"schema": "rometrace/batch/1"}\n{"schema": "rometrace/trace/1"}\n', "run rometrace summary on it first"),
        ('{"schema": "rometrace/summary/1"}', "lacks the field 'overall'"),
    ],
)
def test_what_is_no_summary_is_told_in_one_line(plot: Plot, text: str, phrase: str) -> None:
    assert_refused(plot(text, "-o", "out.png"), phrase)


def change_role(summary: dict[str, Any], **changes: Any) -> dict[str, Any]:
    summary["overall"]["kinds"]["state"]["roles"]["last"].update(changes)
    return summary


@pytest.mark.parametrize(
    ("summary", "phrase"),
    [
        (change_role(make_summary(), aie=[0.1]), "state last is not 6 layers long"),
        (change_role(make_summary(), aie=[float("nan")] * LAYERS), "holds what is no number"),
        (change_role(make_summary(), aie=None), "another type"),
        (make_summary() | {"overall": {"facts": 0}}, "no fact was traced"),
        (make_summary() | {"overall": {"facts": 2, "kinds": {}}}, "no known kind"),
    ],
)
def test_a_damaged_summary_is_told_in_one_line(plot: Plot, summary: dict[str, Any], phrase: str) -> None:
    assert_refused(plot(summary, "-o", "out.png"), phrase)


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ((), "required: -o"),
        (("-o", "out.jpg"), 'the suffix is ".jpg"'),
        (("-o", "nowhere/out.png"), "there is no folder nowhere"),
        (("missing.json", "-o", "out.png"), "missing.json: cannot be read"),
        (("-o", "out.png", "--kinds", "layer"), "'layer' is not a kind"),
        (("-o", "out.png", "--group", "relation=P9"), 'has no group "relation=P9", only relation=P30, relation=<b>'),
        (("-o", "out.png", "--width", "1"), "not from 2.5 to 20 inches"),
        (("-o", "out.png", "--vmin", "0.5"), "--vmax"),
        (("-o", "out.png", "--vmin", "0.2", "--vmax", "0.1"), "begin at 0.2 and end at 0.1"),
        (("-o", "out.png", "--vmin", "0.2", "--vmax", "0.1", "--figure", "lines"), "begin at 0.2 and end at 0.1"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(plot: Plot, arguments: tuple[str, ...], phrase: str) -> None:
    assert_refused(plot(make_summary(), *arguments), phrase)


def test_a_group_of_a_summary_without_groups_says_how_to_make_them(plot: Plot) -> None:
    summary = make_summary()
    del summary["by"]
    assert_refused(plot(summary, "-o", "out.png", "--group", "relation=P30"), "rometrace summary --by relation")


def test_a_failed_drawing_leaves_the_old_picture(plot: Plot, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(b"old")
    assert_refused(plot("{}", "-o", "out.png"), "schema")
    assert (tmp_path / "out.png").read_bytes() == b"old"


def test_missing_matplotlib_is_told_in_one_line(plot: Plot, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    assert_refused(plot(make_summary(), "-o", "out.png", PYTHONPATH=str(tmp_path)), "matplotlib is not installed")


def test_what_rometrace_summarises_is_drawn(rometrace: Callable[..., Any], plot: Plot, tmp_path: Path) -> None:
    if "summary" not in rometrace("--help").stdout:
        pytest.skip("this rometrace has no summary command")
    results = write_lines(tmp_path / "results.jsonl", [make_header(), *(make_traced(number) for number in (1, 2, 3))])
    done = rometrace("summary", results, "--by", "relation", "-o", tmp_path / "summary.json")
    assert done.returncode == 0, done.stderr
    for figure in ("heatmap", "lines"):
        drawn = plot("", "summary.json", "-o", f"{figure}.svg", "--figure", figure, "--group", "relation=P30")
        assert (drawn.returncode, drawn.stderr) == (0, "")


# --- The whole method -------------------------------------------------------------------------------------------


def whole_picture(figure: str, group: str | None = None, role: str = "last_subject", **run: Any) -> Picture:
    return read_picture(make_whole_summary(**run), None, group, "bootstrap", figure, role)


def titles_of(figure: Any) -> list[str]:
    return [axes.get_title().replace("\n", " ") for axes in panels_of(figure)]


def test_severed_states_are_panels_of_their_own() -> None:
    figure = heatmap_of(whole_picture("heatmap"))
    assert titles_of(figure)[3:] == [
        "Avg Indirect Effect of $h_i^{(l)}$, MLP severed, over 3 prompts",
        "Avg Indirect Effect of $h_i^{(l)}$, Attn severed, over 3 prompts",
    ]
    roles = make_whole_summary()["overall"]["kinds"]["state_mlp_severed"]["roles"]
    cells = panels_of(figure)[3].collections[0].get_array()
    assert cells[ROLES.index("last_subject")].tolist() == roles["last_subject"]["aie"]
    assert [axes.get_xlabel() for axes in panels_of(figure)[3:]] == ["Layer number in\ntiny-model"] * 2


@pytest.mark.parametrize("role", ["last_subject", "last"])
def test_heads_of_a_role_are_heads_by_layers(role: str) -> None:
    summary = make_whole_summary()
    figure = make_heads(whole_picture("heads", role=role), (None, None), 5.5)
    (axes,) = panels_of(figure)
    drawn = axes.collections[0].get_array()
    assert drawn.T.tolist() == summary["overall"]["kinds"]["head"]["roles"][role]["aie"]
    assert divmod(int(drawn.argmax()), LAYERS) == (1, 2)
    assert plot_summary.ROLES[role].lower() in axes.get_title() and axes.get_ylabel() == "Head"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]


def test_gaps_have_their_lines_bands_and_the_caveat() -> None:
    figure = lines_of(whole_picture("gaps"))
    assert titles_of(figure) == [
        "Avg Indirect Effect of $h_i^{(l)}$ lost by severing MLP, over 3 prompts",
        "Avg Indirect Effect of $h_i^{(l)}$ lost by severing Attn, over 3 prompts",
    ]
    gaps = make_whole_summary()["overall"]["gaps"]
    for severed, axes in zip(("mlp", "attn"), panels_of(figure)):
        drawn = [list(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata()) == LAYERS]
        assert drawn == [role["aie"] for role in gaps[severed]["roles"].values() if role["aie"]]
        assert len(axes.collections) == len(drawn)
    assert "arXiv 2301.04213" in figure.legends[0].get_title().get_text()
    assert panels_of(figure)[0].get_ylabel() == "AIE lost by severing\n(bands: 95 % over facts)"


def test_knockout_has_a_line_and_a_band_a_group_in_percent() -> None:
    figure = lines_of(whole_picture("knockout"))
    (axes,) = panels_of(figure)
    groups = make_whole_summary()["overall"]["knockout"]["groups"]
    order = ("before", "subject", "after", "last")
    drawn = [list(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata()) == LAYERS]
    assert drawn == [[100 * value for value in groups[name]["relative_change"]] for name in order]
    box = axes.collections[1].get_datalim(axes.transData)
    subject = groups["subject"]
    ends = min(subject["bootstrap_low"]), max(subject["bootstrap_high"])
    assert (box.y0, box.y1) == pytest.approx((100 * ends[0], 100 * ends[1]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "Cut from: before the subject (n = 2)",
        "Cut from: subject (n = 3)",
        "Cut from: after the subject (n = 3)",
        "Cut from: last (n = 3)",
    ]
    assert axes.get_ylabel().startswith("Change of probability, %")


@pytest.mark.parametrize("figure", ["heatmap", "lines", "heads", "gaps", "knockout"])
def test_how_the_facts_were_traced_stands_above(figure: str) -> None:
    picture = whole_picture(figure, approximate=True, direction="noising")
    arguments = argparse.Namespace(figure=figure, vmin=None, vmax=None, width=5.5, band="bootstrap")
    told = plot_summary.make_figure(picture, arguments).get_suptitle()
    assert told == "approximation (attribution patching)\nnoising: effects are the probability lost when corrupted"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layers", [1, 48])
@pytest.mark.parametrize("figure", ["heatmap", "lines", "heads", "gaps", "knockout"])
def test_every_figure_is_drawn_without_overlap(figure: str, layers: int) -> None:
    assert_no_overlap(make_whole_summary(1000, layers, 25), figure)


def assert_no_overlap(summary: dict[str, Any], figure: str) -> None:
    """Titles and labels of x axes stand clear of each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    summary["model"]["name"] = "openai-community/gpt2-xl"
    for width in (3.3, 5.5):
        picture = read_picture(summary, None, None, "bootstrap", figure)
        arguments = argparse.Namespace(figure=figure, vmin=None, vmax=None, width=width, band="bootstrap")
        drawn = plot_summary.make_figure(picture, arguments)
        FigureCanvasAgg(drawn).draw()
        texts = [text for axes in panels_of(drawn) for text in (axes.title, axes.xaxis.label, *axes.get_xticklabels())]
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (("--figure", "heads", "--role", "middle_subject"), "no fact has heads at a token of the role middle_subject"),
        (("--figure", "heads", "--role", "middle"), "invalid choice: 'middle'"),
        (("--role", "last"), "--role is for --figure heads"),
        (("--figure", "gaps", "--kinds", "mlp"), "--kinds is for --figure heatmap and lines"),
        (("--kinds", "head"), "--figure heads draws them"),
    ],
)
def test_a_figure_that_cannot_be_is_told_in_one_line(plot: Plot, arguments: tuple[str, ...], phrase: str) -> None:
    assert_refused(plot(make_whole_summary(), "-o", "out.png", *arguments), phrase)


@pytest.mark.parametrize(
    ("figure", "phrase"),
    [("heads", "--kinds head"), ("gaps", "--sever mlp,attn"), ("knockout", "--kinds knockout")],
)
def test_what_the_summary_lacks_says_how_to_make_it(figure: str, phrase: str) -> None:
    with pytest.raises(PlotError, match=phrase):
        read_picture(make_summary(), None, None, "bootstrap", figure)


# --- Both directions --------------------------------------------------------------------------------------------


def both_figure(figure: str, kinds: list[str] | None = None, direction: str | None = None, **limits: float) -> Any:
    """What is drawn of make_both_summary()."""
    picture = read_picture(make_both_summary(), kinds, None, "bootstrap", figure, direction=direction)
    settings = {"figure": figure, "vmin": None, "vmax": None, "width": 5.5, "band": "bootstrap"} | limits
    return plot_summary.make_figure(picture, argparse.Namespace(**settings))


def test_roll_ups_of_both_directions_stand_below_each_other_with_their_interaction() -> None:
    figure = both_figure("heatmap", ["state", "mlp"])
    assert titles_of(figure) == [
        "Avg Effect of Restoring $h_i^{(l)}$ over 3 prompts",
        "Avg Effect of Restoring MLP over 3 prompts",
        "Avg Effect of Corrupting $h_i^{(l)}$ over 3 prompts",
        "Avg Effect of Corrupting MLP over 3 prompts",
        "Avg Interaction of $h_i^{(l)}$ over 3 prompts",
        "Avg Interaction of MLP over 3 prompts",
    ]
    overall = make_both_summary()["overall"]
    parts = [(overall["kinds"], "aie"), (overall["noising"], "aie"), (overall["interactions"], "interaction")]
    wanted = [(means[kind]["roles"], name) for means, name in parts for kind in ("state", "mlp")]
    axes = panels_of(figure)
    for (roles, name), one in zip(wanted, axes, strict=True):
        cells = one.collections[0].get_array()
        for row, role in enumerate(ROLES):
            expected = roles[role][name]
            assert cells.mask[row].all() if expected is None else cells[row].tolist() == expected
    effects = [value for roles, name in wanted[:4] for role in roles.values() for value in role[name] or []]
    assert {one.collections[0].get_clim() for one in axes[:4]} == {(min(effects), max(effects))}
    assert {one.collections[0].get_clim() for one in axes[4:]} == {(-0.05, 0.05)}
    assert {one.collections[0].get_cmap().name for one in axes[4:]} == {"RdBu_r"}
    places = [one.get_subplotspec() for one in axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [(r, c) for r in range(3) for c in (0, 1)]
    bars = [one.get_ylabel() for one in figure.axes if one not in axes]
    assert bars == ["AIE", "Avg interaction"]


def test_lines_of_both_directions_have_their_bands_and_interactions_an_axis_of_their_own() -> None:
    figure = both_figure("lines", ["mlp"])
    axes = panels_of(figure)
    interactions = make_both_summary()["overall"]["interactions"]["mlp"]["roles"].values()
    drawn = [list(line.get_ydata()) for line in axes[2].get_lines() if len(line.get_ydata()) == LAYERS]
    assert drawn == [role["interaction"] for role in interactions if role["interaction"]]
    box = axes[2].collections[0].get_datalim(axes[2].transData)
    assert (box.y0, box.y1) == pytest.approx((-0.08, 0.08))
    assert axes[0].get_ylim() == axes[1].get_ylim() != axes[2].get_ylim()
    assert axes[2].get_ylabel() == "Avg interaction\n(bands: 95 % over facts)"
    limited = panels_of(both_figure("lines", ["mlp"], vmin=-1.0, vmax=1.0))
    assert [one.get_ylim() == (-1, 1) for one in limited] == [True, True, False]
    (alone,) = panels_of(both_figure("lines", ["mlp"], "interaction", vmin=-1.0, vmax=2.0))
    assert alone.get_ylim() == (-1, 2)


def test_heads_of_both_directions_are_three_maps() -> None:
    figure = both_figure("heads")
    axes = panels_of(figure)
    overall = make_both_summary()["overall"]
    parts = [(overall["kinds"], "aie"), (overall["noising"], "aie"), (overall["interactions"], "interaction")]
    for (means, name), one in zip(parts, axes, strict=True):
        assert one.collections[0].get_array().T.tolist() == means["head"]["roles"]["last_subject"][name]
    assert axes[0].collections[0].get_clim() == axes[1].collections[0].get_clim()
    assert axes[2].collections[0].get_clim() == (-0.05, 0.05)
    assert titles_of(figure)[2] == "Avg Interaction of single heads last subject token, over 3 prompts"
    (alone,) = panels_of(both_figure("heads", direction="interaction", vmax=0.5))
    assert alone.collections[0].get_clim() == (-0.5, 0.5)


@pytest.mark.parametrize("figure", ["heatmap", "lines", "heads", "gaps", "knockout"])
def test_one_direction_of_a_summary_is_drawn_as_if_it_were_alone(figure: str) -> None:
    settings = argparse.Namespace(figure=figure, vmin=None, vmax=None, width=5.5, band="bootstrap")
    for direction in ("denoising", "noising"):
        if figure in ("gaps", "knockout") and direction == "noising":
            continue
        alone = make_whole_summary(direction=direction)
        if direction == "noising":
            alone["overall"]["kinds"] = make_both_summary()["overall"]["noising"]
        expected = plot_summary.make_figure(read_picture(alone, None, None, "bootstrap", figure), settings)
        found = both_figure(figure, direction=direction if figure in plot_summary.OF_DIRECTIONS else None)
        assert titles_of(found) == titles_of(expected) and found.get_suptitle() == expected.get_suptitle()
        for one, other in zip(found.axes, expected.axes, strict=True):
            assert [list(line.get_ydata()) for line in one.get_lines()] == [list(l.get_ydata()) for l in other.get_lines()]
            for cells, same in zip(one.collections, other.collections, strict=True):
                assert str(cells.get_array()) == str(same.get_array()) and cells.get_clim() == same.get_clim()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layers", [1, 48])
@pytest.mark.parametrize("figure", ["heatmap", "lines", "heads"])
def test_every_figure_of_both_directions_is_drawn_without_overlap(figure: str, layers: int) -> None:
    assert_no_overlap(make_both_summary(1000, layers, 25), figure)


@pytest.mark.parametrize(
    ("summary", "arguments", "phrase"),
    [
        (make_summary(), ("--direction", "noising"), "has no noising, only denoising; trace with rometrace --direction both"),
        (make_both_summary(), ("--direction", "up"), "invalid choice: 'up'"),
        (make_both_summary(), ("--direction", "noising", "--figure", "gaps"), "gaps and knockout have none"),
        (make_both_summary(), ("--direction", "interaction", "--vmin", "0"), "0 in its middle; give --vmax"),
        (make_both_summary(), ("--direction", "interaction", "--vmax", "-1"), "would end at -1, expected above 0"),
        (make_whole_summary(direction="both"), (), 'has no "noising", though its run is of both directions'),
    ],
)
def test_a_direction_of_a_summary_that_cannot_be_is_told_in_one_line(
    plot: Plot, summary: dict[str, Any], arguments: tuple[str, ...], phrase: str
) -> None:
    assert_refused(plot(summary, "-o", "out.png", *arguments), phrase)


def test_what_rometrace_summarises_of_both_directions_is_drawn(
    rometrace: Callable[..., Any], plot: Plot, tmp_path: Path
) -> None:
    facts = REPOSITORY / "share/rometrace/facts.json"
    traced = rometrace(
        "--facts", facts, "--limit", "3", "--samples", "2", "--kinds", "state,head", "--direction", "both", "-q",
        "-o", tmp_path / "both.jsonl",
    )  # fmt: skip
    assert traced.returncode == 0, traced.stderr
    summary = rometrace("summary", tmp_path / "both.jsonl", "-q")
    for arguments in ((), ("--figure", "heads"), ("--figure", "lines", "--direction", "interaction")):
        done = plot(json.loads(summary.stdout), "-o", "out.png", "--dpi", "30", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
