"""Draws neurons of traces, and of their summary: effects by layer, and how few of them bring the answer back.

    rometrace --prompt "Miles Davis plays the" --subject "Miles Davis" --kinds neuron |
        scripts/plot_neurons.py -o miles.png
    scripts/plot_neurons.py results.jsonl --id plays_instrument/miles-davis -o miles.pdf
    scripts/plot_neurons.py results.jsonl --record 3 --by-layer -o layers.png
    rometrace summary results.jsonl --by relation -o summary.json
    scripts/plot_neurons.py summary.json --group relation=made_by -o made.png

A row for each position. Left: the neurons that were run alone, at their layers, with a standard error to either side;
the best have their name, layer:neuron, and the first token that they promote. Right: the effect of the k best neurons
patched together, against k on a logarithmic axis, with a band of one standard error; grey: sets chosen otherwise, by
the change of the values and at random; dashed: half the effect of all, and the least k that reaches it. --by-layer
draws the sets of each layer apart, which --sets layer has traced.

Of a summary a row for each token role: the neurons that most facts tell of, at their layers; the mean curves of sets
with their 95 % intervals; what two facts share of their neurons, beside what chance gives.

Exit status: 0 drawn; 2 could not draw (one line on stderr says why). Needs matplotlib.
"""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Iterable, Iterator, Sequence

from rometrace.plotting import (
    PlotError,
    add_output,
    check_output,
    find_matplotlib,
    layer_ticks,
    save,
    settings,
)
from rometrace.results_file import (
    Line,
    Parser,
    UserError,
    choose,
    corrupted_positions,
    finish,
    is_noising,
    lines_of,
    model_name,
    neuron_record,
    positive,
    printable,
    program_name,
    remarks_on,
    run_of,
    shorten,
    token_text,
)
from rometrace.summary_file import (
    BANDS,
    ROLES,
    find_group,
    is_summary,
    parse_summary,
    read_layers,
    remarks_on_summary,
)

LONGEST_LABEL = 24  # characters
NAMED = 5  # neurons with a label
LAYERS_IN_A_ROW = 4
BARS = 12  # neurons of a summary
DOTS = "#1b7837"
CURVES = {
    "best": ("the best by estimate", "#1b7837", "solid", 1.8),
    "change": ("whose values change most", "#4d4d4d", (0, (6, 2)), 1.3),
    "random": ("random, mean of 10 orders", "#8c8c8c", (0, (1, 1.2)), 1.3),
}
"""Name, colour, dashes and width of a curve's line; the dashes tell in grey."""
PAIRS = {"same_relation": "one relation", "same_subject": "one subject", "neither": "neither"}
"""What two facts have in common."""


@dataclass(frozen=True)
class Dot:
    """A neuron that was run alone."""

    layer: int
    neuron: int
    effect: float
    error: float
    promotes: str
    """The first token; empty where there is none."""


@dataclass(frozen=True)
class Curve:
    """Effects of sets of one order."""

    order: str
    """One of CURVES."""
    sizes: list[int]
    effects: list[float]
    low: list[float]
    high: list[float]
    """Ends of the band; the effects themselves without errors."""


@dataclass(frozen=True)
class Sets:
    """How few carry it, at one place."""

    curves: list[Curve]
    candidates: int
    half: int | None
    """The least k with half the effect of all."""


@dataclass(frozen=True)
class Place:
    """What was found at one position."""

    token: str
    """With its star."""
    dots: list[Dot]
    sets: Sets | None
    """Of all layers together; None where neurons were given."""
    by_layer: dict[int, Sets]


@dataclass(frozen=True)
class Picture:
    """What is drawn."""

    answer: str
    model: str
    layers: int
    """Of the model."""
    noising: bool
    ranked_by: str
    places: list[Place]
    remarks: list[str] = field(default_factory=list)


# --- Reading ----------------------------------------------------------------------------------------------------


def read_picture(record: dict[str, Any]) -> Picture:
    """Takes from a record what is drawn. Raises PlotError for a field that is missing or of another shape."""
    try:
        neurons = record["neurons"]
        tokens = [label_of(*token) for token in zip(record["tokens"], record["token_bytes"], strict=True)]
        run = run_of(record)
        outside = [place for place in neurons["positions"] if not 0 <= int(place) < len(tokens)]
        if outside:
            raise PlotError(f"the record has neurons at position {outside[0]}, expected 0 to {len(tokens) - 1}")
        starred = corrupted_positions(record)
        return Picture(
            answer=label_of(record["answer"], record["answer_bytes"]),
            model=model_name(record["model"], LONGEST_LABEL),
            layers=int(record["model"]["layers"]),
            noising=is_noising(run),
            ranked_by=str(neurons["ranked_by"]),
            places=[
                read_place(neurons, position, f"{tokens[position]}{'*' * (position in starred)}")
                for position in map(int, neurons["positions"])
            ],
            remarks=remarks_on(run, record.get("counter"), record["model"]),
        )
    except KeyError as error:
        raise PlotError(f"the record lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PlotError(f"the record has a field of another type than expected ({error})") from None


def read_place(neurons: dict[str, Any], position: int, token: str) -> Place:
    """What a record has of one position."""
    names = ("sets", "sets_by_layer", "controls", "half")
    lists = {"effects": neurons["effects"]} | {name: neurons.get(name, []) for name in names}
    here = {name: [each for each in found if each["position"] == position] for name, found in lists.items()}
    layers = sorted({int(each["layer"]) for each in here["sets_by_layer"]})
    return Place(
        token=token,
        dots=[read_dot(effect) for effect in here["effects"]],
        sets=read_sets(here, None) if here["sets"] else None,
        by_layer={layer: read_sets(here, layer) for layer in layers},
    )


def read_dot(effect: dict[str, Any]) -> Dot:
    first = effect["promotes"][0] if effect["promotes"] else None
    return Dot(
        layer=int(effect["layer"]),
        neuron=int(effect["neuron"]),
        effect=float(effect["indirect_effect"]),
        error=error_of(effect),
        promotes=label_of(first["token"], first["token_bytes"]) if first else "",
    )


def read_sets(here: dict[str, list[dict[str, Any]]], layer: int | None) -> Sets:
    """The sets of one layer, or of all together."""
    half = next(each for each in here["half"] if each.get("layer") == layer)
    runs = {"best": here["sets"] if layer is None else here["sets_by_layer"]}
    runs |= {order: [each for each in here["controls"] if each["order"] == order] for order in ("change", "random")}
    mine = {order: [each for each in found if each.get("layer") == layer] for order, found in runs.items()}
    return Sets(
        curves=[read_curve(order, found) for order, found in mine.items() if found],
        candidates=int(half["candidates"]),
        half=None if half["neurons"] is None else int(half["neurons"]),
    )


def read_curve(order: str, sets: Iterable[dict[str, Any]]) -> Curve:
    found = sorted(sets, key=lambda each: each["neurons"])
    effects, errors = [float(each["indirect_effect"]) for each in found], [error_of(each) for each in found]
    return Curve(
        order=order,
        sizes=[int(each["neurons"]) for each in found],
        effects=effects,
        low=[effect - error for effect, error in zip(effects, errors)],
        high=[effect + error for effect, error in zip(effects, errors)],
    )


def error_of(run: dict[str, Any]) -> float:
    """The standard error; none of a single draw."""
    error = run["standard_error"]
    return 0.0 if error is None else float(error)


def label_of(text: str, token_bytes: str) -> str:
    """A token as the picture shows it."""
    return shorten(token_text(text, token_bytes), LONGEST_LABEL)


# --- Of a summary -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """A neuron that several facts tell of."""

    name: str
    """With the first token that it promotes."""
    share: float
    """Of the facts."""
    effect: float
    """Mean over these."""


@dataclass(frozen=True)
class RoleOfNeurons:
    """What facts' neurons at tokens of a role have in common."""

    name: str
    facts: int
    best: list[Shared]
    sets: Sets | None
    """half is the median, in neurons."""
    overlaps: dict[str, tuple[float, float]]
    """By what pairs have in common (PAIRS): what they share, and what they would by chance."""


@dataclass(frozen=True)
class SummaryPicture:
    """What is drawn of a summary."""

    group: str
    model: str
    noising: bool
    roles: list[RoleOfNeurons]
    remarks: list[str]


def read_summary_picture(summary: dict[str, Any], name: str | None, band: str) -> SummaryPicture:
    """Takes from a summary what is drawn."""
    try:
        group = find_group(summary, name)
        if "neurons" not in group:
            raise PlotError("the summary has no neurons; it is of facts that were traced without --kinds neuron")
        neurons = group["neurons"]
        roles = [
            read_summary_role(text, neurons["roles"][role], int(neurons["candidates"]), band)
            for role, text in ROLES.items()
            if neurons["roles"][role]["facts"]
        ]
        if not roles:
            raise PlotError("the summary has neurons of no fact; there is nothing to draw")
        return SummaryPicture(
            group="all facts" if name is None else printable(name),
            model=model_name(summary["model"], LONGEST_LABEL),
            noising=is_noising(run_of(summary)),
            roles=roles,
            remarks=remarks_on_summary(summary),
        )
    except KeyError as error:
        raise PlotError(f"the summary lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PlotError(f"the summary has a field of another type than expected ({error})") from None


def read_summary_role(name: str, role: dict[str, Any], candidates: int, band: str) -> RoleOfNeurons:
    best = [
        Shared(named(each), float(each["share"]), float(each["indirect_effect"]["mean"])) for each in role["best"]
    ]
    sets = None
    if role.get("neurons"):
        sizes = [int(size) for size in role["neurons"]]
        runs = {"best": role["sets"], "change": role["controls"]["change"], "random": role["controls"]["random"]}
        median = role["half"]["median"]
        sets = Sets(
            curves=[read_mean_curve(order, run, sizes, band) for order, run in runs.items()],
            candidates=candidates,
            half=None if median is None else max(1, round(float(median) * candidates)),
        )
    found = {pairs: (role.get("overlap") or {}).get(pairs) or {} for pairs in PAIRS}
    overlaps = {
        pairs: (float(overlap["share"]), float(overlap["chance"]))
        for pairs, overlap in found.items()
        if overlap.get("share") is not None
    }
    return RoleOfNeurons(name, int(role["facts"]), best, sets, overlaps)


def named(neuron: dict[str, Any]) -> str:
    """ "3:117 “jazz”"."""
    text = str(neuron["promotes"])
    token = f" “{shorten(printable(text.strip() or text), 12)}”" if text else ""
    return f"{neuron['layer']}:{neuron['neuron']}{token}"


def read_mean_curve(order: str, run: dict[str, Any], sizes: list[int], band: str) -> Curve:
    """Of one order of sets, with the ends of its band."""
    effects = read_layers(f"the curve {order}", run["effect"], len(sizes))
    low, high = (None if band == "none" else run[f"{band}_{end}"] for end in ("low", "high"))
    if low is None or high is None:
        low = high = effects
    return Curve(order, sizes, effects, list(map(float, low)), list(map(float, high)))


# --- Drawing ----------------------------------------------------------------------------------------------------


def effect_label(picture: Picture) -> str:
    """What the y axes are."""
    return f"p({picture.answer}) lost" if picture.noising else f"change of p({picture.answer})"


def draw_dots(axes: Any, picture: Picture, place: Place) -> None:
    """Neurons run alone, at their layers."""
    places = spread(place.dots)
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axes.errorbar(
        places, [dot.effect for dot in place.dots], yerr=[dot.error for dot in place.dots], fmt="o", color=DOTS,
        ecolor="#9ecba7", elinewidth=0.9, markersize=3.5, zorder=2,
    )  # fmt: skip
    axes.set_xlim(-0.6, picture.layers - 0.4)
    axes.set_xticks(list(layer_ticks(picture.layers)), [str(layer) for layer in layer_ticks(picture.layers)])
    axes.margins(y=0.12)
    axes.yaxis.set_major_formatter("{x:.4g}")
    done = "corrupted" if picture.noising else "restored"
    axes.set_title(f"Single neurons {done} at “{place.token}”", fontsize=10, parse_math=False)
    axes.set_xlabel(f"layer within {picture.model}", fontsize=9, parse_math=False)
    axes.set_ylabel(effect_label(picture), fontsize=9, parse_math=False)
    name_best(axes, picture, place.dots, places)


def spread(dots: Sequence[Dot]) -> list[float]:
    """Where dots stand: those of a layer side by side about it."""
    by_layer: dict[int, list[int]] = {}
    for i, dot in enumerate(dots):
        by_layer.setdefault(dot.layer, []).append(i)
    places = [0.0] * len(dots)
    for layer, mine in by_layer.items():
        for rank, i in enumerate(mine):
            places[i] = layer + (0.6 * (rank + 0.5) / len(mine) - 0.3)
    return places


def name_best(axes: Any, picture: Picture, dots: Sequence[Dot], places: Sequence[float]) -> None:
    """Names of the best, one under the other at the side with more room."""
    best = sorted(range(min(NAMED, len(dots))), key=lambda i: -dots[i].effect)  # dots come with the largest first
    if not best:
        return
    right = sum(places[i] for i in best) / len(best) < (picture.layers - 1) / 2
    for rank, i in enumerate(best):
        dot = dots[i]
        token = f" “{shorten(dot.promotes, 12)}”" if dot.promotes else ""
        axes.annotate(
            f"{dot.layer}:{dot.neuron}{token}", (places[i], dot.effect), parse_math=False,
            xytext=(0.985 if right else 0.015, 0.95 - 0.085 * rank), textcoords="axes fraction",
            ha="right" if right else "left", va="center", fontsize=7, zorder=3,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
            arrowprops={"arrowstyle": "-", "color": "#b0b0b0", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3},
        )  # fmt: skip


def draw_sets(axes: Any, sets: Sets, noising: bool, small: bool = False) -> None:
    """Curves of sets with the half."""
    draw_curves(axes, sets, small)
    draw_half(axes, sets, noising, small)


def draw_curves(axes: Any, sets: Sets, small: bool = False) -> None:
    """Effects by size, on a logarithmic axis."""
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    for curve in sets.curves:
        name, colour, dashes, width = CURVES[curve.order]
        marker = "o" if len(curve.sizes) == 1 else None
        axes.fill_between(curve.sizes, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
        look = {"color": colour, "linestyle": dashes, "linewidth": width, "marker": marker, "markersize": 3}
        axes.plot(curve.sizes, curve.effects, label=name, **look)
    axes.yaxis.set_major_formatter("{x:.4g}")
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.9, 1.1 * max(2, sets.candidates))
    sizes = [size for size in sets.curves[0].sizes if size & (size - 1) == 0]
    step = -(-len(sizes) // (5 if small else 8))
    axes.set_xticks(sizes[::step], [str(size) for size in sizes[::step]])
    axes.minorticks_off()


def draw_half(axes: Any, sets: Sets, noising: bool, small: bool) -> None:
    """The line of half and its k, or that there is none."""
    size = 6.5 if small else 8
    if sets.half is None:
        nothing = "all take nothing away" if noising else "all bring nothing back"
        axes.text(0.03, 0.95, nothing, transform=axes.transAxes, fontsize=size, va="top")
        return
    half = sets.curves[0].effects[-1] / 2
    axes.axhline(half, color="#d55e00", linewidth=0.9, linestyle=(0, (3, 2)))
    axes.axvline(sets.half, color="#d55e00", linewidth=0.9, linestyle=(0, (3, 2)))
    text = f"half: {sets.half}" if small else f"half of all: {sets.half} of {sets.candidates}"
    left = sets.half > sets.candidates**0.5
    axes.annotate(
        text, (sets.half, 0.97), xycoords=("data", "axes fraction"), xytext=(-4 if left else 4, 0), va="top",
        ha="right" if left else "left", textcoords="offset points", fontsize=size, color="#a34700",
    )  # fmt: skip


def draw_place_sets(axes: Any, picture: Picture, place: Place) -> None:
    """The sets of all layers together, with title and legend."""
    if place.sets is None:
        axes.set_axis_off()
        return
    draw_sets(axes, place.sets, picture.noising)
    done = "corrupted" if picture.noising else "restored"
    axes.set_title(f"Sets of neurons {done} at “{place.token}”", fontsize=10, parse_math=False)
    axes.set_xlabel(f"neurons together, of {place.sets.candidates}", fontsize=9)
    axes.set_ylabel(effect_label(picture), fontsize=9, parse_math=False)


def add_legend(figure: Any, axes: Any, picture: Picture) -> None:
    """The names of the curves of `axes`, below the figure."""
    handles, names = axes.get_legend_handles_labels()
    names = [f"{name} ({picture.ranked_by})" if name == CURVES["best"][0] else name for name in names]
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=7.5, handlelength=3, frameon=False)


def make_figure(picture: Picture) -> Any:
    """A row for each position: neurons alone, and sets where there are any."""
    from matplotlib.figure import Figure

    rows = picture.places
    columns = 2 if any(place.sets for place in rows) else 1
    height = 3.0 * len(rows) + 0.2 * (columns - 1) + 0.18 * len(picture.remarks)
    figure = Figure(figsize=(4.8 * columns, height), layout="constrained")
    for number, place in enumerate(rows):
        axes = [figure.add_subplot(len(rows), columns, columns * number + column + 1) for column in range(columns)]
        draw_dots(axes[0], picture, place)
        if columns == 2:
            draw_place_sets(axes[1], picture, place)
        for each in axes:
            tidy(each)
        if columns == 2 and number == 0:
            add_legend(figure, axes[1], picture)
    head(figure, picture)
    return figure


def make_layer_figure(picture: Picture) -> Any:
    """Small pictures of the sets of each layer, all on one scale, rows of them for each position."""
    from matplotlib.figure import Figure

    layers = max(len(place.by_layer) for place in picture.places)
    columns = min(layers, LAYERS_IN_A_ROW * (1 + (layers > 16)))
    rows = [-(-len(place.by_layer) // columns) for place in picture.places]
    height = 1.75 * sum(rows) + 0.5 + 0.18 * len(picture.remarks)
    figure = Figure(figsize=(2.4 * columns, height), layout="constrained")
    grid = figure.add_gridspec(sum(rows), columns)
    first = None
    row = 0
    for place, count in zip(picture.places, rows):
        for number, (layer, sets) in enumerate(place.by_layer.items()):
            axes = figure.add_subplot(grid[row + number // columns, number % columns], sharey=first)
            first = first or axes
            draw_sets(axes, sets, picture.noising, small=True)
            axes.set_title(f"layer {layer}, “{shorten(place.token, 14)}”", fontsize=8, parse_math=False)
            tidy(axes)
            axes.tick_params(labelsize=7, labelleft=number % columns == 0)
        row += count
    width = next(iter(picture.places[0].by_layer.values())).candidates
    x_label = f"neurons together, of {width} in a layer of {picture.model}"
    figure.supxlabel(x_label, fontsize=9, parse_math=False)
    figure.supylabel(effect_label(picture), fontsize=9, parse_math=False)
    add_legend(figure, first, picture)
    head(figure, picture)
    return figure


def tidy(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, length=2)


def head(figure: Any, picture: Picture) -> None:
    """What a reader must know of how it was made."""
    if picture.remarks:
        figure.suptitle("\n".join(picture.remarks), fontsize=9, parse_math=False)


def make_summary_figure(picture: SummaryPicture) -> Any:
    """A row for each role: which neurons, how few, and what facts share."""
    from matplotlib.figure import Figure

    rows = picture.roles
    columns = 3 if any(role.sets for role in rows) else 1
    height = 3.0 * len(rows) + 0.2 * (columns > 1) + 0.18 * len(picture.remarks)
    figure = Figure(figsize=(4.8 + 4.0 * (columns - 1), height), layout="constrained")
    grid = figure.add_gridspec(len(rows), columns, width_ratios=(4.8, 4.8, 2.4)[:columns])
    for number, role in enumerate(rows):
        axes = [figure.add_subplot(grid[number, column]) for column in range(columns)]
        draw_shared(axes[0], picture, role)
        if columns == 3:
            draw_mean_sets(axes[1], picture, role)
            draw_overlaps(axes[2], role)
            if number == 0:
                handles, names = axes[1].get_legend_handles_labels()
                where = {"loc": "outside lower center", "ncols": 3, "frameon": False}
                figure.legend(handles, names, fontsize=7.5, handlelength=3, **where)
        for each in axes:
            tidy(each)
    if picture.remarks:
        figure.suptitle("\n".join(picture.remarks), fontsize=9, parse_math=False)
    return figure


def draw_shared(axes: Any, picture: SummaryPicture, role: RoleOfNeurons) -> None:
    """The neurons that most facts tell of, a bar each, with their mean effect in these facts."""
    best = role.best[:BARS]
    axes.barh(range(len(best)), [100 * each.share for each in best], height=0.7, color=DOTS)
    for place, each in enumerate(best):
        axes.annotate(
            f"{each.effect:+.2g}", (100 * each.share, place), xytext=(3, 0), textcoords="offset points", fontsize=7,
            va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(best)), [each.name for each in best], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 115 * max((each.share for each in best), default=1))
    axes.set_title(f"{role.name}: {picture.group} ({role.facts})", fontsize=10, parse_math=False)
    axes.set_xlabel(f"% of facts tell of it (mean effect in them), {picture.model}", fontsize=9, parse_math=False)


def draw_mean_sets(axes: Any, picture: SummaryPicture, role: RoleOfNeurons) -> None:
    """Mean curves, and the median of the facts' halves."""
    if role.sets is None:
        axes.set_axis_off()
        return
    draw_curves(axes, role.sets)
    if role.sets.half is not None:
        axes.axvline(role.sets.half, color="#d55e00", linewidth=0.9, linestyle=(0, (3, 2)))
        left = role.sets.half > role.sets.candidates**0.5
        axes.annotate(
            f"half, median: {role.sets.half}", (role.sets.half, 0.97), xycoords=("data", "axes fraction"), va="top",
            xytext=(-4 if left else 4, 0), ha="right" if left else "left", textcoords="offset points", fontsize=8,
            color="#a34700",
        )  # fmt: skip
    done = "corrupted" if picture.noising else "restored"
    axes.set_title(f"Sets of neurons {done}, mean over facts", fontsize=10)
    axes.set_xlabel(f"neurons together, of {role.sets.candidates}", fontsize=9)
    axes.set_ylabel("probability lost" if picture.noising else "change of the probability", fontsize=9)


def draw_overlaps(axes: Any, role: RoleOfNeurons) -> None:
    """What two facts share, a bar each, and a line where chance would be."""
    if not role.overlaps:
        axes.set_axis_off()
        return
    for place, (share, chance) in enumerate(role.overlaps.values()):
        axes.bar(place, 100 * share, width=0.6, color=DOTS)
        axes.plot([place - 0.4, place + 0.4], [100 * chance] * 2, color="#d55e00", linewidth=1.2)
    axes.set_xticks(range(len(role.overlaps)), [PAIRS[pairs] for pairs in role.overlaps], rotation=20)
    axes.set_title("Shared by two facts of", fontsize=10)
    axes.set_ylabel("of their neurons, % (line: chance)", fontsize=9)


# --- The program ------------------------------------------------------------------------------------------------


def texts_of(picture: Picture) -> list[str]:
    """All that is written from the record."""
    tokens = [text for place in picture.places for text in (place.token, *(dot.promotes for dot in place.dots))]
    return [picture.answer, picture.model, picture.ranked_by, *picture.remarks, *tokens]


def shown(picture: Picture, showable: Any) -> Picture:
    """The picture with characters escaped that no font has."""
    return replace(
        picture,
        answer=showable(picture.answer),
        model=showable(picture.model),
        remarks=[showable(remark) for remark in picture.remarks],
        places=[
            replace(
                place,
                token=showable(place.token),
                dots=[replace(dot, promotes=showable(dot.promotes)) for dot in place.dots],
            )
            for place in picture.places
        ],
    )


def note(message: str) -> None:
    """A message on stderr."""
    print(f"{program_name()}: {message}", file=sys.stderr)


def draw_input(arguments: argparse.Namespace) -> None:
    """Draws what the input holds: a summary, or the chosen trace."""
    source: str = arguments.input
    if source == "-" and sys.stdin.isatty():
        raise PlotError("no input: give a file, or pipe rometrace into this program")
    where = "standard input" if source == "-" else source
    try:
        with io.BytesIO(sys.stdin.buffer.read()) if source == "-" else open(source, "rb") as stream:
            if is_summary(stream):
                draw_summary(parse_summary(where, stream.read()), where, arguments)
            else:
                draw_trace(stream, where, arguments)
    except OSError as error:
        raise PlotError(
            f"{source}: cannot be read ({error.strerror}); expected what rometrace or rometrace summary wrote"
        ) from None


def draw_trace(stream: BinaryIO, where: str, arguments: argparse.Namespace) -> None:
    """Draws the record that --id or --record names, or the only one."""
    if arguments.group is not None or arguments.band is not None:
        raise PlotError(f"{where} holds traces; --group and --band are for a summary")

    def records() -> Iterator[Line]:
        return (line for line in lines_of(where, stream, note, lambda data: None) if line.place)

    otherwise = ", or draw what they share: pipe rometrace summary into this program"
    line = choose(records(), where, arguments.id, arguments.record, otherwise)
    picture = read_picture(neuron_record(line))
    if arguments.by_layer and not any(place.by_layer for place in picture.places):
        raise UserError(f"{line.where} has no sets of single layers; trace them with rometrace --sets layer")
    with settings(texts_of(picture)) as showable:
        make = make_layer_figure if arguments.by_layer else make_figure
        save(make(shown(picture, showable)), arguments.output, arguments.dpi)


def draw_summary(summary: dict[str, Any], where: str, arguments: argparse.Namespace) -> None:
    """Draws what facts have in common."""
    if arguments.id is not None or arguments.record is not None or arguments.by_layer:
        raise PlotError(f"{where} is a summary; --id, --record and --by-layer are for traces")
    picture = read_summary_picture(summary, arguments.group, arguments.band or BANDS[0])
    names = [each.name for role in picture.roles for each in role.best]
    with settings([picture.group, picture.model, *picture.remarks, *names]) as showable:
        picture = replace(
            picture,
            group=showable(picture.group),
            model=showable(picture.model),
            remarks=[showable(remark) for remark in picture.remarks],
            roles=[
                replace(role, best=[replace(each, name=showable(each.name)) for each in role.best])
                for role in picture.roles
            ],
        )
        save(make_summary_figure(picture), arguments.output, arguments.dpi)


def parse_arguments() -> argparse.Namespace:
    about = "Draws the neurons of traces, or of a summary, that rometrace wrote."
    parser = Parser(prog=program_name(), description=about)
    parser.add_argument(
        "input", nargs="?", default="-", help="one record, a batch's results, or a summary (default: standard input)"
    )
    add_output(parser)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--id", help="draw the fact of this id")
    choice.add_argument(
        "--record",
        type=positive,
        help="draw the fact of this number in its facts file (its place in the input if it has none)",
    )
    parser.add_argument("--by-layer", action="store_true", help="draw the sets of each layer (of --sets layer)")
    parser.add_argument("--group", metavar="BY=VALUE", help="of a summary: draw a group, such as relation=made_by")
    parser.add_argument("--band", choices=BANDS, help="of a summary: the intervals that are drawn (default: bootstrap)")
    return parser.parse_args()


def draw(arguments: argparse.Namespace) -> int:
    """Draws what is asked for; gives the exit status."""
    check_output(arguments.output)
    draw_input(arguments)
    return 0


def main() -> int:
    find_matplotlib()
    arguments = parse_arguments()
    return finish(program_name(), lambda: draw(arguments))
