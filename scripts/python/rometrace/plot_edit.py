"""Draws an edit of a fact (arXiv 2202.05262): where the fact comes from before and after it, losses, and answers.

    rometrace edit --prompt "Miles Davis plays the" --subject "Miles Davis" --target guitar --trace --json |
        scripts/plot_edit.py -o miles.png
    rometrace edit --show miles.edit --json | scripts/plot_edit.py -o losses.pdf
    rometrace summary edits.jsonl --json | scripts/plot_edit.py -o layers.pdf

Traces, where the record has them (--trace): of the new and of the old object, the model before and after the edit, both
on one colour scale from the smaller low_score of the two, and the difference, after - before: orange is gained, violet
lost. Dotted lines enclose the edited layers. Losses: each part at each evaluation, on a logarithmic scale that ends at
a ten-thousandth of the largest; below them the length of delta in lengths of the value that it is added to, and where
it is held. Bars: p (mean by token) of both objects on the prompt, its paraphrases and the neighbours, hollow before the
edit and full after it.

Of a summary of facts that were edited in one layer after the other (--each --layers all): S, ES, PS and NS by layer
with their 95 % intervals over facts, above what tracing finds in the same facts.

Exit status: 0 drawn; 2 could not draw (one line on stderr says why). Needs matplotlib.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Sequence

from rometrace import edit_sweep, plot_trace
from rometrace.plot_trace import Panel
from rometrace.plotting import (
    PlotError,
    add_output,
    check_output,
    find_matplotlib,
    kinds_among,
    layer_ticks,
    save,
    settings,
)
from rometrace.results_file import (
    BATCH_SCHEMA,
    EDIT_SCHEMA,
    EDIT_SUMMARY_SCHEMA,
    SUMMARY_SCHEMA,
    TRACE_SCHEMA,
    Parser,
    base_name,
    check_object,
    finish,
    one_line,
    parse_json,
    positive,
    printable,
    program_name,
    shorten,
)

TRACED_KINDS = ("state", "mlp", "attn")
OBJECTS = {"new": "#D55E00", "old": "#0072B2"}
"""Colour of an object: Okabe and Ito's colour-blind safe palette. Hollow and full tell in grey."""
LOSSES: dict[str, tuple[str, str, Any, float]] = {
    "total": ("total", "#000000", "solid", 1.6),
    "nll": ("−log p(new)", "#D55E00", (0, (6, 2)), 1.2),
    "kl": ("KL divergence", "#009E73", (0, (2.5, 1.5)), 1.2),
    "decay": ("decay", "#56B4E9", (0, (1, 1.2)), 1.2),
}
"""Name, colour, dashes and width of a part's line."""
SCALE_OF_LOSSES = 1e-4
DIFFERENCES = "PuOr_r"
GROUPS = {"prompt": "prompt", "paraphrases": "paraphrases", "neighbours": "neighbours"}
MOST_PROMPTS = 12  # of a group
LONGEST_PROMPT = 44  # characters
MEASURES_WIDTH = 10.0  # inches


@dataclass(frozen=True)
class Prompt:
    """What the model says after a prompt, before and after the edit."""

    text: str
    before: dict[str, float]
    after: dict[str, float]
    """By object: the geometric mean of the probabilities of its tokens."""
    leaks: bool = False


@dataclass(frozen=True)
class Traced:
    """The traces of one object."""

    name: str
    """"new" or "old"."""
    before: plot_trace.Picture
    after: plot_trace.Picture


@dataclass(frozen=True)
class Picture:
    """What of the record is drawn."""

    title: list[str]
    """Lines: what was edited, and what became of it."""
    names: dict[str, str]
    """By object: its text."""
    layers: list[int]
    """Those that are edited."""
    losses: dict[str, list[float]]
    """By part, one of each evaluation."""
    lengths: list[float]
    """|delta| / |v0| at each evaluation."""
    clamp: float | None
    """The largest of these that is allowed, where the record tells it."""
    prompts: dict[str, list[Prompt]]
    """By group, in the order in which they are drawn; at most MOST_PROMPTS of each."""
    counts: dict[str, int]
    """How many there are of each group."""
    traces: list[Traced] = field(default_factory=list)


# --- Reading ----------------------------------------------------------------------------------------------------


def read_record(source: str) -> dict[str, Any]:
    """What the file `source`, or standard input for "-", holds: an edit's record, or a summary of edits."""
    if source == "-" and sys.stdin.isatty():
        raise PlotError("no input: give a file, or pipe rometrace edit --json into this program")
    where = "standard input" if source == "-" else source
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise PlotError(
            f"{source}: cannot be read ({error.strerror}); expected what rometrace edit --json wrote"
        ) from None
    if not data.strip():
        hint = "; did rometrace fail? Its message is above" if where == "standard input" else ""
        raise PlotError(f"{where} is empty, expected the JSON of an edit{hint}")
    if data[8:9] == b"{" and b'"rometrace"' in data[: 1 << 20]:  # safetensors: a length, then its header
        raise PlotError(f"{where} is an edit file; draw what rometrace edit --show {source} --json writes")
    lines = data.split(b"\n", 1)
    if len(lines) > 1 and lines[0].strip().endswith(b"}") and lines[1].lstrip().startswith(b"{"):
        data = lines[0]  # a results file: its first line says of which schema
    record = check_object(where, parse_json(where, data))
    if record["schema"] not in (EDIT_SCHEMA, EDIT_SUMMARY_SCHEMA):
        raise PlotError(
            f'{where} is of schema "{one_line(record["schema"])}", this program draws "{EDIT_SCHEMA}" and '
            f'"{EDIT_SUMMARY_SCHEMA}"{hint_about(str(record["schema"]))}'
        )
    return record


def hint_about(schema: str) -> str:
    """What to do with a record of another schema, where that is known."""
    others = {
        TRACE_SCHEMA: f"; {program_name('plot_trace')} draws traces",
        SUMMARY_SCHEMA: f"; {program_name('plot_summary')} draws summaries",
        BATCH_SCHEMA: "; run rometrace summary on it first",
    }
    return others.get(schema, "")


def read_picture(record: dict[str, Any], number: int | None, kinds: Sequence[str] | None, objects: str) -> Picture:
    """Takes from the record what is drawn. Raises PlotError for a field that is missing or of another shape.

    number: of the request, from 1; objects: whose traces, "new", "old" or "both".
    """
    try:
        request = choose_request(record["requests"], number)
        names = {name: object_label(request["objects"][name]) for name in OBJECTS}
        layers = sorted({int(matrix["layer"]) for matrix in record["matrices"]})
        if not layers:
            raise PlotError("the record has no matrices: nothing was edited")
        prompts, counts = read_prompts(request)
        losses = read_losses(request)
        lengths = read_part(request, "delta_norm", len(losses["total"]))
        first_length = number_in("init_norm", request["init_norm"])
        if first_length <= 0:
            raise PlotError("init_norm is 0, expected the length of the value that delta is added to")
        clamp = record["hyperparameters"].get("clamp")
        return Picture(
            title=title_of(record, request, names, layers),
            names=names,
            layers=layers,
            losses=losses,
            lengths=[length / first_length for length in lengths],
            clamp=None if clamp is None else number_in("clamp", clamp),
            prompts=prompts,
            counts=counts,
            traces=read_traces(record, kinds, objects),
        )
    except KeyError as error:
        raise PlotError(f"the record lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PlotError(f"the record has a field of another type than expected ({one_line(error)})") from None


def choose_request(requests: Any, number: int | None) -> dict[str, Any]:
    """The request of that number, or the only one."""
    if not isinstance(requests, list) or not requests:
        raise PlotError("the record has no requests; was it written by rometrace?")
    if number is None and len(requests) > 1:
        raise PlotError(f"the record holds {len(requests)} requests; choose one with --request, from 1")
    if number is not None and number > len(requests):
        raise PlotError(f"--request is {number}, and the record holds {len(requests)}")
    return requests[(number or 1) - 1]


def read_losses(request: dict[str, Any]) -> dict[str, list[float]]:
    """By part, one of each evaluation."""
    evaluations = len(request["losses"]["total"])
    if evaluations == 0:
        raise PlotError("losses holds no evaluation, expected one or more")
    return {part: read_part(request, part, evaluations) for part in LOSSES}


def read_part(request: dict[str, Any], part: str, evaluations: int) -> list[float]:
    """What the losses say under a name, one number of each evaluation."""
    values = [number_in(part, value) for value in request["losses"][part]]
    if len(values) != evaluations:
        raise PlotError(f"losses has {len(values)} numbers of {part} and {evaluations} totals, expected as many")
    return values


def number_in(name: str, value: Any) -> float:
    """A finite number of at least 0."""
    number = float(value)
    if not math.isfinite(number) or number < -1e-6:  # a divergence may be 0 but for rounding
        raise PlotError(f"{name} is {one_line(value)}, expected a number from 0")
    return max(0.0, number)


def object_label(text: str) -> str:
    """An object without its leading space, as the panels show it."""
    stripped = text[1:] if text.startswith(" ") and text.strip(" ") else text
    return shorten(printable(stripped), plot_trace.LONGEST_LABEL)


def read_prompts(request: dict[str, Any]) -> tuple[dict[str, list[Prompt]], dict[str, int]]:
    """The measured prompts by group, and how many there are of each."""
    measures = request["measures"]
    lists = {name: [measures[name]] if name == "prompt" else list(measures[name]) for name in GROUPS}
    leaks = {int(index) for index in request["verdict"]["leaks"]}
    prompts = {
        name: [read_prompt(item, name == "neighbours" and at in leaks) for at, item in enumerate(items[:MOST_PROMPTS])]
        for name, items in lists.items()
        if items
    }
    return prompts, {name: len(items) for name, items in lists.items()}


def read_prompt(measured: dict[str, Any], leaks: bool) -> Prompt:
    """One prompt's probabilities."""

    def side(name: str) -> dict[str, float]:
        return {one: probability(f"{one} {name}", measured[name][one]["mean_by_token"]) for one in OBJECTS}

    text = shorten(printable(str(measured["prompt"])), LONGEST_PROMPT)
    return Prompt(text, side("before"), side("after"), leaks)


def probability(name: str, value: Any) -> float:
    """A number from 0 to 1, but for rounding."""
    number = number_in(name, value)
    if number > 1.001:
        raise PlotError(f"mean_by_token of {name} is {number:g}, expected a probability")
    return min(1.0, number)


def title_of(
    record: dict[str, Any], request: dict[str, Any], names: dict[str, str], layers: Sequence[int]
) -> list[str]:
    """What was edited; what became of it."""
    model = shorten(base_name(record["model"]["name"]), plot_trace.LONGEST_LABEL)
    prompt = shorten(printable(str(request["prompt"])), 60)
    where = f"layer{'s' * (len(layers) > 1)} {layers_text(layers)}"
    head = f"{one_line(record['method'])} in {model}, {where}: “{prompt}” {names['new']}, not {names['old']}"
    verdict = one_line(request["verdict"]["text"], 100)
    perplexity = record.get("perplexity")
    if perplexity:
        before, after = (number_in("perplexity", perplexity[side]) for side in ("before", "after"))
        verdict += f"; perplexity {before:.4g} before, {after:.4g} after"
    return [head, verdict]


def layers_text(layers: Sequence[int]) -> str:
    """Ascending layers: 17, 13–17, or 3, 5, 8."""
    if len(layers) > 1 and layers[-1] - layers[0] == len(layers) - 1:
        return f"{layers[0]}–{layers[-1]}"
    return shorten(", ".join(map(str, layers)), 30)


# --- Traces -----------------------------------------------------------------------------------------------------


def read_traces(record: dict[str, Any], kinds: Sequence[str] | None, objects: str) -> list[Traced]:
    """The traces of the objects that are asked for; none if the record has none."""
    traces = record.get("traces")
    if traces is None:
        if kinds is not None or objects != "both":
            raise PlotError(
                "the record has no traces, which --kinds and --object are for; rometrace edit --trace adds them"
            )
        return []
    wanted = [name for name in OBJECTS if objects in (name, "both")]
    return [read_traced(name, traces["before"][name], traces["after"][name], kinds) for name in wanted]


def read_traced(name: str, before: dict[str, Any], after: dict[str, Any], kinds: Sequence[str] | None) -> Traced:
    """One object's traces, which must be of the same cells."""
    for side, trace in (("before", before), ("after", after)):
        if trace["schema"] != TRACE_SCHEMA:
            raise PlotError(
                f'traces.{side}.{name} is of schema "{one_line(trace["schema"])}", expected "{TRACE_SCHEMA}"'
            )
    present = [kind for kind in TRACED_KINDS if kind in before["grids"] and kind in after["grids"]]
    chosen = list(kinds or present)
    missing = [kind for kind in chosen if kind not in present]
    if missing or not chosen:
        known = ", ".join(present) or "none"
        raise PlotError(f"the traces have no grid of {', '.join(missing) or 'state, mlp or attn'}, only {known}")
    traced = Traced(name, *(plot_trace.read_picture(trace, chosen, False) for trace in (before, after)))
    same_tokens = before["token_ids"] == after["token_ids"]
    shapes = [[(panel.kind, panel.window, panel.positions, len(panel.values[0])) for panel in side.panels]
              for side in (traced.before, traced.after)]  # fmt: skip
    if not same_tokens or shapes[0] != shapes[1]:
        raise PlotError(f"the traces of the {name} object before and after are not of the same cells")
    return traced


def difference_of(before: Panel, after: Panel) -> Panel:
    """after - before, cell by cell."""
    pairs = zip(after.values, before.values, strict=True)
    return replace(after, values=[[a - b for a, b in zip(*rows, strict=True)] for rows in pairs])


def common_ends(before: plot_trace.Picture, after: plot_trace.Picture, panel: int) -> tuple[float, float]:
    """One colour scale for a panel of the traces before and after."""
    values = [value for side in (before, after) for row in side.panels[panel].values for value in row]
    low = min(before.low, after.low)
    return low, max(*values, low + max(before.least_span, after.least_span))


def common_reach(traced: Traced, differences: Sequence[Panel]) -> float:
    """How far the colours of differences reach to both sides."""
    largest = max(abs(value) for panel in differences for row in panel.values for value in row)
    return max(largest, traced.before.least_span, traced.after.least_span)


def draw_traces(figure: Any, picture: Picture) -> None:
    """Rows before, after and difference, for each object; kinds side by side."""
    rows = [row for traced in picture.traces for row in rows_of(traced)]
    columns = len(rows[0][1])
    grid = figure.add_gridspec(len(rows), columns)
    for number, (shown, panels, ends, name) in enumerate(rows):
        for column, panel in enumerate(panels):
            axes = figure.add_subplot(grid[number, column])
            plot_trace.draw_panel(axes, shown, panel, ends[column])
            if shown.effect:
                axes.collections[0].set_cmap(DIFFERENCES)
            kind = plot_trace.NAMES[panel.kind]
            axes.set_title(f"{kind[0].upper()}{kind[1:]} restored: {name}", fontsize=10, parse_math=False)
            _, x_label = plot_trace.describe(shown, panel)
            axes.set_xlabel(x_label.split(" within ")[0] if number + 1 == len(rows) else "", fontsize=9)
            mark_layers(axes, picture.layers)


Row = tuple[plot_trace.Picture, "list[Panel]", "list[tuple[float, float]]", str]


def rows_of(traced: Traced) -> list[Row]:
    """What is drawn of one object: each row's picture, panels, ends of their colours, and name."""
    before, after = traced.before, traced.after
    columns = range(len(before.panels))
    ends = [common_ends(before, after, column) for column in columns]
    differences = [difference_of(before.panels[column], after.panels[column]) for column in columns]
    reach = common_reach(traced, differences)
    answer = f"{traced.name} object"
    changed = replace(after, effect=True)
    return [
        (before, before.panels, ends, f"{answer}, before the edit"),
        (after, after.panels, ends, f"{answer}, after the edit"),
        (changed, differences, [(-reach, reach)] * len(differences), f"{answer}, after − before"),
    ]


def mark_layers(axes: Any, layers: Sequence[int]) -> None:
    """Dotted lines around runs of edited layers."""
    edges = {layer for layer in layers if layer - 1 not in layers}
    edges |= {layer + 1 for layer in layers if layer + 1 not in layers}
    for edge in sorted(edges):
        axes.axvline(edge, color="#222222", linewidth=0.8, linestyle=(0, (1, 1.5)))


# --- Losses and what the model says -----------------------------------------------------------------------------


def draw_losses(axes: Any, picture: Picture) -> None:
    """Each part's line over the evaluations."""
    evaluations = range(1, len(picture.lengths) + 1)
    marker = "o" if len(evaluations) == 1 else None
    for part, (name, colour, dashes, width) in LOSSES.items():
        values = [value if value > 0 else math.nan for value in picture.losses[part]]
        axes.plot(evaluations, values, color=colour, linestyle=dashes, linewidth=width, label=name, marker=marker)
    axes.set_yscale("log")
    largest = max(value for values in picture.losses.values() for value in values)
    if largest > 0:
        axes.set_ylim(SCALE_OF_LOSSES * largest, 2 * largest)
    axes.set_title("Losses", fontsize=10)
    axes.set_ylabel("nats", fontsize=9)
    axes.tick_params(labelbottom=False)
    plain(axes, evaluations)
    axes.figure.legend(
        loc="outside lower center", ncols=4, fontsize=7, handlelength=2.4, columnspacing=1.1, frameon=False
    )


def draw_lengths(axes: Any, picture: Picture) -> None:
    """|delta| over the evaluations."""
    evaluations = range(1, len(picture.lengths) + 1)
    marker = "o" if len(evaluations) == 1 else None
    if picture.clamp is not None:
        axes.axhline(picture.clamp, color="#999999", linewidth=0.8, linestyle=(0, (6, 2)))
        axes.text(0.52, picture.clamp, "held here", fontsize=7, color="#666666", va="bottom")
    axes.plot(evaluations, picture.lengths, color="#4a2c82", linewidth=1.6, marker=marker)
    axes.set_ylim(0, 1.2 * max(*picture.lengths, picture.clamp or 0.0, 1e-9))
    axes.set_ylabel("|delta| / |v0|", fontsize=9)
    axes.set_xlabel("evaluation", fontsize=9)
    plain(axes, evaluations)


def plain(axes: Any, evaluations: range) -> None:
    """Ticks at whole evaluations, no frame above and on the right."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    ticks = [1 + tick for tick in layer_ticks(len(evaluations))]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(0.5, len(evaluations) + 0.5)
    axes.tick_params(labelsize=8, length=2)


def draw_prompts(axes: Any, picture: Picture) -> None:
    """Four bars a prompt, groups under each other."""
    place = 0.0
    places, labels, leaking = [], [], []
    for group, prompts in picture.prompts.items():
        count = picture.counts[group]
        heading = group if len(prompts) == count else f"{group}, first {len(prompts)} of {count}"
        axes.text(0.0, place - 0.02, heading, fontsize=8, fontstyle="italic", va="center", color="#444444")
        place += 0.68
        for prompt in prompts:
            places.append(place)
            labels.append(prompt.text + " (leaks)" * prompt.leaks)
            leaking.append(prompt.leaks)
            draw_prompt(axes, prompt, place)
            place += 1.0
    axes.set_ylim(place - 0.45, -0.4)
    axes.set_xlim(0, 1)
    axes.set_yticks(places, labels, parse_math=False)
    for label, leaks in zip(axes.get_yticklabels(), leaking):
        label.set_color("#b00020" if leaks else "black")
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.tick_params(axis="x", labelsize=8, length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title("What the model says", fontsize=10)
    axes.set_xlabel("probability (mean by token)", fontsize=9)


def draw_prompt(axes: Any, prompt: Prompt, place: float) -> None:
    """Bars from above: new before, new after, old before, old after."""
    thick = 0.19
    offset = -1.5 * thick
    for name, colour in OBJECTS.items():
        for values, face in ((prompt.before, "none"), (prompt.after, colour)):
            axes.barh(place + offset, values[name], 0.8 * thick, facecolor=face, edgecolor=colour, linewidth=0.7)
            offset += thick


def draw_legend(figure: Any, picture: Picture) -> None:
    """What the bars are."""
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=face, edgecolor=colour, label=f"{picture.names[name]} ({name}) {side}")
        for name, colour in OBJECTS.items()
        for side, face in (("before", "none"), ("after", colour))
    ]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7.5, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


# --- The figure -------------------------------------------------------------------------------------------------


def height_of_measures(picture: Picture) -> float:
    """Of losses and bars, in inches."""
    prompts = sum(map(len, picture.prompts.values()))
    return max(3.8, 1.2 + 0.36 * prompts + 0.25 * len(picture.prompts))


def make_figure(picture: Picture) -> Any:
    """The traces, if there are any, above losses and bars."""
    from matplotlib.figure import Figure

    measures, traces, width = height_of_measures(picture), 0.0, MEASURES_WIDTH
    if picture.traces:
        first = picture.traces[0].before
        rows = 3 * len(picture.traces)
        traces = rows * (plot_trace.height_of(first.panels[0]) + 0.55) + 0.3
        longest = min(plot_trace.LONGEST_LABEL, max(map(len, first.tokens)))
        width = max(width, (4.2 + 0.06 * longest) * len(first.panels))
    figure = Figure(figsize=(width, traces + measures + 0.25 * len(picture.title)), layout="constrained")
    figure.suptitle("\n".join(picture.title), fontsize=11, parse_math=False)
    if not picture.traces:
        draw_measures(figure, picture)
        return figure
    above, below = figure.subfigures(2, 1, height_ratios=[traces, measures])
    draw_traces(above, picture)
    draw_measures(below, picture)
    return figure


def draw_measures(figure: Any, picture: Picture) -> None:
    """Losses and the length of delta on the left, bars on the right."""
    left, right = figure.subfigures(1, 2, width_ratios=[2, 3])
    losses, lengths = left.subplots(2, 1, height_ratios=[3, 2])
    draw_losses(losses, picture)
    draw_lengths(lengths, picture)
    draw_prompts(right.subplots(), picture)
    draw_legend(right, picture)


def with_texts(picture: Picture, showable: Callable[[str], str]) -> Picture:
    """The picture with every text through `showable`."""

    def of_trace(trace: plot_trace.Picture) -> plot_trace.Picture:
        tokens = [showable(token) for token in trace.tokens]
        return replace(trace, tokens=tokens, answer=showable(trace.answer), model=showable(trace.model))

    return replace(
        picture,
        title=[showable(line) for line in picture.title],
        names={name: showable(text) for name, text in picture.names.items()},
        prompts={
            group: [replace(prompt, text=showable(prompt.text)) for prompt in prompts]
            for group, prompts in picture.prompts.items()
        },
        traces=[
            replace(traced, before=of_trace(traced.before), after=of_trace(traced.after)) for traced in picture.traces
        ],
    )


def texts_of(picture: Picture) -> list[str]:
    """Every text of the picture."""
    texts: list[str] = []
    with_texts(picture, lambda text: texts.append(text) or text)
    return texts


# --- The program ------------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog=program_name(), description="Draws an edit that rometrace edit made: traces, losses, answers.")
    parser.add_argument(
        "input", nargs="?", default="-", help="JSON of rometrace edit, or a summary of edits (default: standard input)"
    )
    add_output(parser)
    parser.add_argument("--request", type=positive, metavar="N", help="of an edit of several facts: which, from 1")
    parser.add_argument(
        "--kinds",
        type=lambda text: kinds_among(text, TRACED_KINDS),
        help=f"traces to draw, some of {','.join(TRACED_KINDS)} (default: all there are)",
    )
    parser.add_argument(
        "--object",
        choices=(*OBJECTS, "both"),
        help="whose traces are drawn: of the new object, of the old one, or both (default)",
    )
    return parser.parse_args()


def draw(arguments: argparse.Namespace) -> int:
    """Draws the input; gives the exit status."""
    check_output(arguments.output)
    record = read_record(arguments.input)
    if record["schema"] == EDIT_SUMMARY_SCHEMA:
        draw_sweep(record, arguments)
        return 0
    picture = read_picture(record, arguments.request, arguments.kinds, arguments.object or "both")
    with settings(texts_of(picture)) as showable:
        save(make_figure(with_texts(picture, showable)), arguments.output, arguments.dpi)
    return 0


def draw_sweep(summary: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Draws a summary of edits by layer."""
    given = [name for name in ("request", "kinds", "object") if getattr(arguments, name) is not None]
    if given:
        raise PlotError(f"--{given[0]} is for one edit, and the input is a summary of edits")
    sweep = edit_sweep.read_sweep(summary)
    with settings([sweep.title, sweep.model, *sweep.remarks]) as showable:
        save(edit_sweep.make_figure(edit_sweep.with_texts(sweep, showable)), arguments.output, arguments.dpi)


def main() -> int:
    find_matplotlib()
    arguments = parse_arguments()
    return finish(program_name(), lambda: draw(arguments))
