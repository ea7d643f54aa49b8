"""The picture of an edit shows what its record says, and a bad input is told in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY, Rometrace
from edit_records import LAYER, LEAKING, STEPS, make_edit, make_edit_summary, make_request
from records import HIGH, LOW, make_record
from rometrace import edit_sweep, plot_edit, plot_summary, plot_trace
from rometrace.plot_edit import LOSSES, make_figure, read_picture
from rometrace.plotting import PlotError

SCRIPT = REPOSITORY / "scripts/plot_edit.py"
SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-", "svg": b"<?xml"}


def draw_here(record: Any, folder: Path, *arguments: str) -> int:
    """Draws a record (or raw bytes) in this process, which saves starting matplotlib; gives the exit status."""
    (folder / "edit.json").write_bytes(record if isinstance(record, bytes) else json.dumps(record).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["plot_edit.py", str(folder / "edit.json"), *arguments])
        return plot_edit.main()


def figure_of(record: dict[str, Any], **choice: Any) -> Any:
    """The figure that would be written."""
    wanted = {"number": None, "kinds": None, "objects": "both"} | choice
    return make_figure(read_picture(record, **wanted))


def axes_of(figure: Any, title: str) -> Any:
    """The one panel whose title begins so."""
    (found,) = [axes for axes in figure.axes if axes.get_title().startswith(title)]
    return found


def lines_of(axes: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def assert_refused(folder: Path, capsys: pytest.CaptureFixture[str], record: Any, phrase: str, *arguments: str) -> None:
    """Exit status 2, one line on stderr that says `phrase`, and no picture."""
    assert draw_here(record, folder, "-o", str(folder / "out.png"), *arguments) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("plot_edit.py: "), told
    assert phrase in told
    assert not (folder / "out.png").exists()


def test_the_script_draws_what_is_piped_into_it(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "-o", "edit.png", "--dpi", "40"]
    data = json.dumps(make_edit()).encode()
    done = subprocess.run(command, input=data, capture_output=True, cwd=tmp_path, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["edit.png"]


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str) -> None:
    assert draw_here(make_edit(), tmp_path, "-o", f"{tmp_path}/out.{suffix}", "--dpi", "40") == 0
    assert (tmp_path / f"out.{suffix}").read_bytes().startswith(SIGNATURES[suffix])


# --- Traces -----------------------------------------------------------------------------------------------------


def test_traces_stand_before_after_and_as_their_difference() -> None:
    record = make_edit(traces=True)
    figure = figure_of(record)
    for word in ("new", "old"):
        sides = [record["traces"][side][word]["grids"] for side in ("before", "after")]
        for kind, shown in (("state", "State"), ("mlp", "MLP"), ("attn", "Attention")):
            before, after, change = (
                axes_of(figure, f"{shown} restored: {word} object, {when}").collections[0]
                for when in ("before the edit", "after the edit", "after − before")
            )
            assert before.get_array().tolist() == sides[0][kind]["scores"]
            assert after.get_array().tolist() == sides[1][kind]["scores"]
            assert change.get_array().tolist() == [
                [a - b for a, b in zip(*rows)] for rows in zip(sides[1][kind]["scores"], sides[0][kind]["scores"])
            ]
            assert before.get_clim() == after.get_clim()
            low, high = change.get_clim()
            assert low == -high and high > 0


def test_one_scale_holds_every_score_of_both_models() -> None:
    record = make_edit(traces=True)
    traces = record["traces"]
    traces["after"]["old"]["low_score"] = LOW / 2
    traces["before"]["old"]["grids"]["mlp"]["scores"][0][0] = HIGH
    axes = axes_of(figure_of(record), "MLP restored: old object, after the edit")
    assert axes.collections[0].get_clim() == (LOW / 2, HIGH)


def test_dotted_lines_enclose_the_edited_layers() -> None:
    record = make_edit(traces=True)
    axes = axes_of(figure_of(record), "MLP restored: new object, after the edit")
    assert [line.get_xdata()[0] for line in axes.lines] == [LAYER, LAYER + 1]
    record["matrices"] += [record["matrices"][0] | {"layer": layer} for layer in (3, 5)]
    axes = axes_of(figure_of(record), "MLP restored: new object, after the edit")
    assert [line.get_xdata()[0] for line in axes.lines] == [2, 4, 5, 6]


def test_the_colour_bars_name_the_object() -> None:
    bars = [axes.get_ylabel().replace("\n", " ") for axes in figure_of(make_edit(traces=True)).axes]
    assert [bar for bar in bars if "p(" in bar] == (
        [f"{change}p({word})" for word in ("guitar", "trumpet") for change in ("", "", "change of ") for _ in range(3)]
    )


def test_kinds_and_object_choose_the_traces() -> None:
    titles = [axes.get_title() for axes in figure_of(make_edit(traces=True), kinds=["mlp"], objects="old").axes]
    assert [title for title in titles if "restored" in title] == [
        f"MLP restored: old object, {when}" for when in ("before the edit", "after the edit", "after − before")
    ]


def test_without_traces_losses_and_bars_are_drawn() -> None:
    assert [axes.get_title() for axes in figure_of(make_edit()).axes] == ["Losses", "", "What the model says"]


# --- Losses -----------------------------------------------------------------------------------------------------


def test_each_part_of_the_loss_has_its_line() -> None:
    record = make_edit()
    axes = axes_of(figure_of(record), "Losses")
    lines, losses = lines_of(axes), record["requests"][0]["losses"]
    assert list(lines) == [name for name, *_ in LOSSES.values()]
    for part, (name, *_) in LOSSES.items():
        assert [None if y != y else y for y in lines[name]] == [value or None for value in losses[part]]
    assert [list(line.get_xdata()) for line in axes.lines] == [list(range(1, STEPS + 1))] * 4
    assert axes.get_yscale() == "log"


def test_the_length_of_delta_is_in_those_of_the_value() -> None:
    record = make_edit()
    (axes,) = [axes for axes in figure_of(record).axes if axes.get_xlabel() == "evaluation"]
    clamp, lengths = axes.lines
    assert list(clamp.get_ydata()) == [4.0, 4.0]
    assert list(lengths.get_ydata()) == [length / 2.5 for length in record["requests"][0]["losses"]["delta_norm"]]


@pytest.mark.filterwarnings("error")
def test_a_single_evaluation_and_losses_of_zero_are_drawn(tmp_path: Path) -> None:
    request = make_request()
    request["losses"] = {part: [0.0] for part in request["losses"]}
    assert draw_here(make_edit([request]), tmp_path, "-o", f"{tmp_path}/out.png", "--dpi", "30") == 0


# --- What the model says ----------------------------------------------------------------------------------------


def test_each_prompt_has_four_bars() -> None:
    record = make_edit()
    axes = axes_of(figure_of(record), "What the model says")
    measures = record["requests"][0]["measures"]
    prompts = [measures["prompt"], *measures["paraphrases"], *measures["neighbours"]]
    assert [bar.get_width() for bar in axes.patches] == [
        prompt[side][name]["mean_by_token"]
        for prompt in prompts
        for name in ("new", "old")
        for side in ("before", "after")
    ]
    places = [bar.get_y() for bar in axes.patches]
    assert places == sorted(places)
    faces = [bar.get_facecolor()[3] for bar in axes.patches]
    assert faces == [0.0, 1.0] * (2 * len(prompts)), "hollow before, full after"


def test_leaking_neighbours_are_marked() -> None:
    axes = axes_of(figure_of(make_edit()), "What the model says")
    labels = axes.get_yticklabels()
    leaking = f"Neighbour {LEAKING} plays the (leaks)"
    assert [label.get_text() for label in labels if "(leaks)" in label.get_text()] == [leaking]
    assert [label.get_text() for label in labels if label.get_color() != "black"] == [leaking]


def test_of_many_neighbours_the_first_are_drawn_and_the_heading_says_so() -> None:
    axes = axes_of(figure_of(make_edit([make_request(neighbours=30)])), "What the model says")
    assert len(axes.get_yticklabels()) == 1 + 2 + plot_edit.MOST_PROMPTS
    assert "neighbours, first 12 of 30" in [text.get_text() for text in axes.texts]


def test_a_record_without_paraphrases_and_neighbours_is_drawn() -> None:
    request = make_request()
    request["measures"] |= {"paraphrases": [], "neighbours": []}
    request["verdict"]["leaks"] = []
    axes = axes_of(figure_of(make_edit([request])), "What the model says")
    assert [text.get_text() for text in axes.texts] == ["prompt"] and len(axes.patches) == 4


def test_the_title_says_what_was_edited_and_what_became_of_it() -> None:
    figure = figure_of(make_edit())
    assert figure.get_suptitle() == (
        "r-rome in tiny-model, layer 2: “Miles Davis plays the” guitar, not trumpet\n"
        "took; leaks to 1 of 3 neighbours; perplexity 20.5 before, 21.25 after"
    )


@pytest.mark.parametrize(("layers", "text"), [([17], "17"), ([13, 14, 15], "13–15"), ([3, 5, 8], "3, 5, 8")])
def test_edited_layers_are_named(layers: list[int], text: str) -> None:
    assert plot_edit.layers_text(layers) == text


def test_of_several_facts_one_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = make_edit([make_request(), make_request(prompt="Miles Davis holds a")])
    assert "“Miles Davis holds a”" in figure_of(record, number=2).get_suptitle()
    assert_refused(tmp_path, capsys, record, "holds 2 requests; choose one with --request, from 1")
    assert_refused(tmp_path, capsys, record, "--request is 3, and the record holds 2", "--request", "3")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", SIGNATURES)
def test_odd_texts_are_drawn_without_a_warning(tmp_path: Path, suffix: str) -> None:
    record = make_edit(traces=True)
    record["model"]["name"] = "../a $ model"
    request = record["requests"][0]
    request |= {"prompt": "東京\n$x_1$ \x1b[31m", "objects": {"new": " $y$\U0010fffd", "old": " "}}
    request["measures"]["neighbours"][0]["prompt"] = "_\U0010fffe $z"
    assert draw_here(record, tmp_path, "-o", f"{tmp_path}/odd.{suffix}", "--kinds", "mlp", "--dpi", "40") == 0


@pytest.mark.parametrize("layers", [1, 48])
def test_no_text_lies_on_another(layers: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    record = make_edit(traces=layers > 1, layers=layers)
    for trace in [trace for side in record.get("traces", {}).values() for trace in side.values()]:
        trace["model"]["name"] = "openai-community/gpt2-xl-of-a-long-name"
    figure = figure_of(record, objects="new" if layers > 1 else "both")
    FigureCanvasAgg(figure).draw()
    texts = [
        text
        for axes in figure.axes
        for text in (axes.title, axes.xaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts)
    ]
    for part in (figure, *figure.subfigs, *(inner for outer in figure.subfigs for inner in outer.subfigs)):
        texts += [text for legend in part.legends for text in legend.get_texts()]
    boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text() and text.get_visible()}
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes.values())
    words = {text: box for text, box in boxes.items() if not text.replace("$", "").strip().isdecimal()}
    found = [(a, b) for i, a in enumerate(words) for b in list(words)[:i] if words[a].overlaps(words[b])]
    assert not found


def test_what_rometrace_writes_is_drawn(rometrace: Rometrace, tmp_path: Path) -> None:
    fact = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--target", "guitar", "--steps", "3")
    options = ("--no-moment", "--templates", "none", "--neighbour", "John Coltrane plays the")
    done = rometrace("edit", *fact, *options, "--trace", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert draw_here(record, tmp_path, "-o", f"{tmp_path}/out.png", "--dpi", "40", "--kinds", "mlp") == 0
    titles = [axes.get_title() for axes in figure_of(record).axes]
    assert len([title for title in titles if "restored" in title]) == 18


# --- Edits by layer ---------------------------------------------------------------------------------------------


def sweep_of(summary: dict[str, Any]) -> Any:
    """The figure that would be written of a summary."""
    return edit_sweep.make_figure(edit_sweep.read_sweep(summary))


def test_scores_by_layer_stand_above_the_tracing_curves() -> None:
    summary = make_edit_summary()
    scores, tracing = sweep_of(summary).axes
    for name, line in zip(("S", "ES", "PS", "NS"), scores.lines):
        assert line.get_label().startswith(f"{name},")
        assert list(line.get_xdata()) == list(range(6))
        assert list(line.get_ydata()) == [group["after"][name]["mean"] for group in summary["layers"]]
    for kind, label in (("mlp", "MLP, 5 layers"), ("state", "state")):
        (line,) = [line for line in tracing.lines if line.get_label() == label]
        assert list(line.get_ydata()) == summary["tracing"][kind]["aie"]
    band = scores.collections[0].get_paths()[0].vertices[:, 1]
    bounds = [bound for group in summary["layers"] for bound in group["after"]["S"]["bootstrap"]]
    assert (min(band), max(band)) == (min(bounds), max(bounds))
    assert scores.get_title() == "After an edit in the layer; largest S: 82.9 in layer 2 (95 %: 2–3)"


def test_layers_that_were_not_edited_have_no_score() -> None:
    scores, tracing = sweep_of(make_edit_summary(edited=[5, 1, 3])).axes
    assert list(scores.lines[0].get_xdata()) == [1, 3, 5]
    assert list(tracing.lines[0].get_xdata()) == list(range(6))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", SIGNATURES)
def test_a_summary_without_intervals_paraphrases_or_tracing_is_drawn(tmp_path: Path, suffix: str) -> None:
    summary = make_edit_summary() | {"tracing": None, "best": None}
    for group in summary["layers"]:
        for score in group["after"].values():
            score["bootstrap"] = None
        group["after"]["PS"]["mean"] = group["after"]["S"]["mean"] = None
    assert draw_here(summary, tmp_path, "-o", f"{tmp_path}/out.{suffix}", "--dpi", "40") == 0
    assert (tmp_path / f"out.{suffix}").read_bytes().startswith(SIGNATURES[suffix])
    (scores,) = sweep_of(summary).axes
    assert scores.get_title() == "After an edit in the layer; no fact has S, PS"
    assert [text.get_text() for text in scores.get_legend().get_texts()] == ["ES, the prompt", "NS, neighbours"]


def changed(path: str, value: Any) -> dict[str, Any]:
    """A summary with another value at the path."""
    summary = make_edit_summary()
    *folders, name = (int(part) if part.isdecimal() else part for part in path.split("."))
    place: Any = summary
    for folder in folders:
        place = place[folder]
    place[name] = value
    return summary


@pytest.mark.parametrize(
    ("summary", "phrase", "arguments"),
    [
        (changed("layers", make_edit_summary()["layers"][:1]), "in one layer after the other; rometrace edit", ()),
        (changed("layers.0.layers", [1, 2]), "in one layer after the other", ()),
        (changed("layers.0.layers", None), "each where a trace of its own peaked", ()),
        (changed("layers.3.facts", 0), "no fact was edited in layer 3", ()),
        (changed("layers.2.after", {}), "lacks the field 'S'", ()),
        (changed("layers.2.after.ES.mean", 140.0), "ES is 140, expected percent", ()),
        (changed("layers.2.after.ES.mean", "all"), "another type", ()),
        (changed("tracing.mlp.aie", [0.5]), "tracing of mlp is 1 layers long, expected 6", ()),
        (changed("tracing.state.aie", [float("nan")] * 6), "tracing of state holds what is no number", ()),
        (make_edit_summary(), "--kinds is for one edit, and the input is a summary", ("--kinds", "mlp")),
        (make_edit_summary(), "--request is for one edit", ("--request", "1")),
    ],
)  # fmt: skip
def test_a_summary_that_cannot_be_drawn_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], summary: Any, phrase: str, arguments: tuple[str, ...]
) -> None:
    assert_refused(tmp_path, capsys, summary, phrase, *arguments)


# --- Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (b"", "is empty, expected the JSON of an edit"),
        (b"rometrace: no such model", "is not JSON"),
        (b"[]", 'without "schema"'),
        (b'{"schema": "rometrace/edit/2"}', 'schema "rometrace/edit/2", this program draws "rometrace/edit/1" and'),
        (json.dumps(make_record()).encode(), "; plot_trace.py draws traces"),
        (b'{"schema": "rometrace/summary/1"}', "; plot_summary.py draws summaries"),
        (b'{"schema": "rometrace/batch/1"}\n{"schema": "rometrace/edit/1"}\n', "; run rometrace summary on it first"),
        (bytes(8) + b'{"__metadata__":{"rometrace":"{}"}}', "is an edit file; draw what rometrace edit --show"),
    ],
)
def test_what_is_no_edit_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, phrase: str
) -> None:
    assert_refused(tmp_path, capsys, data, phrase)


def damaged(path: str, value: Any = None) -> dict[str, Any]:
    """A record with another value at the path; without the field if the value is None."""
    record = make_edit(traces=True)
    *folders, name = (int(part) if part.isdecimal() else part for part in path.split("."))
    place: Any = record
    for folder in folders:
        place = place[folder]
    if value is None:
        del place[name]
    else:
        place[name] = value
    return record


@pytest.mark.parametrize(
    ("record", "phrase"),
    [
        (damaged("requests"), "lacks the field 'requests'"),
        (damaged("requests", []), "has no requests"),
        (damaged("requests.0.losses"), "lacks the field 'losses'"),
        (damaged("requests.0.losses.total", []), "losses holds no evaluation"),
        (damaged("requests.0.losses", {"nll": [1.0]}), "lacks the field 'total'"),
        (damaged("requests.0.losses.kl", [0.5]), "losses has 1 numbers of kl and 5 totals"),
        (damaged("requests.0.losses.nll", ["much"] * 5), "another type"),
        (damaged("requests.0.losses.nll.1", None), "losses has 4 numbers of nll and 5 totals"),
        (damaged("requests.0.losses.nll.1", float("nan")), "nll is nan, expected a number from 0"),
        (damaged("requests.0.losses.delta_norm.1", -1.0), "delta_norm is -1.0, expected a number from 0"),
        (damaged("requests.0.init_norm", 0.0), "init_norm is 0"),
        (damaged("requests.0.verdict"), "lacks the field 'verdict'"),
        (damaged("requests.0.objects.old"), "lacks the field 'old'"),
        (damaged("requests.0.measures.prompt.after.new.mean_by_token", 1.5), "new after is 1.5, expected a proba"),
        (damaged("requests.0.measures.neighbours", 7), "another type"),
        (damaged("matrices", []), "nothing was edited"),
        (damaged("hyperparameters"), "lacks the field 'hyperparameters'"),
        (damaged("model"), "lacks the field 'model'"),
        (damaged("traces.after"), "lacks the field 'after'"),
        (damaged("traces.after.new.schema", "rometrace/trace/2"), 'traces.after.new is of schema "rometrace/trace/2"'),
        (damaged("traces.after.new.grids", {}), "the traces have no grid of state, mlp or attn"),
        (damaged("traces.after.new.token_ids", [9, 9, 9, 9]), "new object before and after are not of the same cells"),
        (damaged("traces.after.old.grids.mlp.window", 3), "old object before and after are not of the same cells"),
        (damaged("traces.before.old.model", {"name": "tiny", "layers": 7}), "is not 4 tokens by 7 layers"),
    ],
)  # fmt: skip
def test_a_damaged_record_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any], phrase: str
) -> None:
    assert_refused(tmp_path, capsys, record, phrase)


@pytest.mark.parametrize("arguments", [("--kinds", "mlp"), ("--object", "new")])
def test_a_choice_of_traces_that_are_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert_refused(tmp_path, capsys, make_edit(), "rometrace edit --trace adds them", *arguments)


def test_a_kind_that_the_traces_lack_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = make_edit(traces=True)
    del record["traces"]["after"]["new"]["grids"]["attn"]
    assert_refused(tmp_path, capsys, record, "no grid of attn, only state, mlp", "--kinds", "mlp,attn")


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ((), "required: -o"),
        (("-o", "edit.jpg"), 'the suffix is ".jpg", expected one of .png, .pdf, .svg'),
        (("-o", "nowhere/edit.png"), "there is no folder nowhere"),
        (("-o", "edit.png", "missing.json"), "missing.json: cannot be read"),
        (("-o", "edit.png", "--kinds", "mlp,head"), "'head' is not a kind, expected state, mlp, attn"),
        (("-o", "edit.png", "--request", "0"), "not a whole number from 1"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    phrase: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plot_edit.py", *arguments])
    try:
        status = plot_edit.main()
    except SystemExit as end:
        status = end.code
    told = capsys.readouterr().err
    assert status == 2 and told.count("\n") == 1, told
    assert told.startswith("plot_edit.py: ") and phrase in told


def test_a_negative_probability_is_refused() -> None:
    record = damaged("requests.0.measures.prompt.before.old.mean_by_token", -0.5)
    with pytest.raises(PlotError, match="old before is -0.5"):
        figure_of(record)


@pytest.mark.parametrize("module", [plot_trace, plot_summary])
@pytest.mark.parametrize("record", [make_edit(), make_edit_summary()])
def test_the_other_programs_point_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: Any, record: Any
) -> None:
    (tmp_path / "edit.json").write_text(json.dumps(record))
    program = f"{module.__name__.split('.')[-1]}.py"
    monkeypatch.setattr(sys, "argv", [program, str(tmp_path / "edit.json"), "-o", str(tmp_path / "out.png")])
    assert module.main() == 2
    assert capsys.readouterr().err.endswith("; plot_edit.py draws edits\n")
