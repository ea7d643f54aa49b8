#!/usr/bin/env python3
"""Draws a summary's averages as in the paper (arXiv 2202.05262, figures 2 and 3) from what `rometrace summary` wrote.

    rometrace summary results.jsonl --json | scripts/plot_summary.py -o roll-up.pdf
    scripts/plot_summary.py summary.json --figure lines -o lines.pdf
    scripts/plot_summary.py summary.json --group "relation=P30" -o p30.png

heatmap: average indirect effect (AIE), token roles down, layers across, a panel a kind, one colour scale for all.
lines: the same by layer, a line a role, with its 95 % interval over facts as a band.

Exit status: 0 drawn; 2 could not draw (one line on stderr says why). Needs matplotlib.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

from plotting import (
    COLOURS,
    PlotError,
    check_output,
    dpi_of,
    find_matplotlib,
    kinds_of,
    layer_ticks,
    number_of,
    save,
    settings,
)
from results_file import (
    SUMMARY_SCHEMA,
    TRACE_SCHEMA,
    Parser,
    UserError,
    base_name,
    check_object,
    one_line,
    parse_json,
    printable,
    shorten,
)

PROGRAM = "plot_summary.py"
PAPER_WIDTH = 5.5  # inches, the text's width in the paper
ONE_COLUMN = 4.5  # inches; below this the panels stand under each other
BANDS = ("bootstrap", "normal", "none")

ROLES = {
    "first_subject": "First subject token",
    "middle_subject": "Middle subject tokens",
    "last_subject": "Last subject token",
    "first_subsequent": "First subsequent token",
    "further": "Further tokens",
    "last": "Last token",
}
"""In the paper's order and words."""

NAMES = {"state": "$h_i^{(l)}$", "mlp": "MLP", "attn": "Attn"}

LINES: dict[str, tuple[str, Any, float]] = {
    "first_subject": ("#56B4E9", (0, (1, 1.2)), 1.1),
    "middle_subject": ("#009E73", (0, (5, 1.5, 1, 1.5)), 1.1),
    "last_subject": ("#D55E00", "solid", 1.8),
    "first_subsequent": ("#CC79A7", (0, (2.5, 1.5)), 1.1),
    "further": ("#E69F00", (0, (5, 1.2, 1, 1.2, 1, 1.2)), 1.1),
    "last": ("#000000", (0, (6, 2)), 1.4),
}
"""Colour, dashes and width of a role's line: Okabe and Ito's colour-blind safe palette; the dashes tell in grey."""


@dataclass(frozen=True)
class Role:
    """A role's averages in one kind."""

    facts: int
    aie: list[float] | None
    """[L], average indirect effect; None where no fact has a token of the role."""
    low: list[float] | None
    high: list[float] | None
    """[L], ends of the interval; None without one."""


@dataclass(frozen=True)
class Panel:
    """One kind."""

    kind: str
    window: int
    roles: dict[str, Role]


@dataclass(frozen=True)
class Picture:
    """What of the summary is drawn."""

    facts: int
    layers: int
    model: str
    group: str
    """Empty for all facts."""
    panels: list[Panel]


# --- Reading ----------------------------------------------------------------------------------------------------


def read_summary(source: str) -> dict[str, Any]:
    """The summary in the file `source`, or in standard input for "-"."""
    if source == "-" and sys.stdin.isatty():
        raise PlotError("no input: give a file, or pipe rometrace summary into this program")
    where = "standard input" if source == "-" else source
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise PlotError(f"{source}: cannot be read ({error.strerror}); expected a file of rometrace summary") from None
    if not data.strip():
        hint = "; did rometrace fail? Its message is above" if source == "-" else ""
        raise PlotError(f"{where} is empty, expected a JSON summary{hint}")
    lines = data.split(b"\n", 1)
    if len(lines) > 1 and lines[0].strip().endswith(b"}") and lines[1].lstrip().startswith(b"{"):
        data = lines[0]  # a results file: its first line says of which schema
    summary = check_object(where, parse_json(where, data))
    if summary["schema"] != SUMMARY_SCHEMA:
        results = str(summary["schema"]).startswith("rometrace/batch/") or summary["schema"] == TRACE_SCHEMA
        hint = "; run rometrace summary on it first" if results else ""
        raise PlotError(
            f'{where} is of schema "{one_line(summary["schema"])}", this program draws "{SUMMARY_SCHEMA}"{hint}'
        )
    return summary


def find_group(summary: dict[str, Any], name: str | None) -> dict[str, Any]:
    """The averages over all facts, or over those of the group `name`, such as relation=P30."""
    if name is None:
        return summary["overall"]
    groups = {
        f"{by}={value}": group for by, values in (summary.get("by") or {}).items() for value, group in values.items()
    }
    if not groups:
        raise PlotError("the summary has no groups; make it with rometrace summary --by relation")
    if name not in groups:
        known = ", ".join(one_line(known, 40) for known in list(groups)[:5]) + (", …" if len(groups) > 5 else "")
        raise PlotError(f'the summary has no group "{one_line(name)}", only {known}')
    return groups[name]


def read_picture(summary: dict[str, Any], kinds: Sequence[str] | None, group: str | None, band: str) -> Picture:
    """Takes from a summary what is drawn. Raises PlotError for a field that is missing or of another shape."""
    try:
        averages = find_group(summary, group)
        facts = int(averages["facts"])
        if facts == 0:
            raise PlotError('no fact was traced, so that there is nothing to draw; see "causes" in the summary')
        present = averages["kinds"]
        chosen = [kind for kind in COLOURS if kind in (kinds or present)]
        missing = [kind for kind in chosen if kind not in present]
        if missing or not chosen:
            raise PlotError(
                f"the summary has no {', '.join(missing) or 'known kind'}, only {', '.join(map(one_line, present))}"
            )
        layers = int(summary["model"]["layers"])
        panels = [
            Panel(
                kind,
                int(present[kind]["window"]),
                {role: read_role(f"{kind} {role}", present[kind]["roles"][role], layers, band) for role in ROLES},
            )
            for kind in chosen
        ]
        if all(role.aie is None for panel in panels for role in panel.roles.values()):
            raise PlotError("no role has a token, so that there is nothing to draw")
        model = shorten(base_name(summary["model"]["name"]), 24)
        return Picture(facts, layers, model, shorten(printable(group or ""), 60), panels)
    except KeyError as error:
        raise PlotError(f"the summary lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PlotError(f"the summary has a field of another type than expected ({one_line(error)})") from None


def read_role(name: str, role: dict[str, Any], layers: int, band: str) -> Role:
    """A role's averages with the ends of its band."""
    facts = int(role["facts"])
    if facts == 0:
        return Role(0, None, None, None)
    ends = None if band == "none" else [role[f"{band}_{end}"] for end in ("low", "high")]
    if ends is None or None in ends or any(value is None for values in ends for value in values):  # of a single fact
        ends = [None, None]
    low, high = (None if values is None else read_layers(name, values, layers) for values in ends)
    return Role(facts, read_layers(name, role["aie"], layers), low, high)


def read_layers(name: str, values: Any, layers: int) -> list[float]:
    """[L] finite numbers."""
    numbers = [float(value) for value in values]
    if layers < 1 or len(numbers) != layers:
        raise PlotError(f"{name} is not {layers} layers long")
    if not all(map(math.isfinite, numbers)):
        raise PlotError(f"{name} holds what is no number")
    return numbers


# --- Drawing ----------------------------------------------------------------------------------------------------


def title_of(panel: Panel, picture: Picture) -> str:
    """In the paper's words, on two lines."""
    return f"Avg Indirect Effect of\n{NAMES[panel.kind]} over {picture.facts} prompt{'s' if picture.facts > 1 else ''}"


def x_label_of(panel: Panel, picture: Picture) -> str:
    if panel.kind == "state":
        return f"Layer number in\n{picture.model}"
    return f"Center of interval of {panel.window}\npatched {panel.kind} layers"


def label_of(role: str, picture: Picture) -> str:
    """The role's name; with the number of its facts where not every fact has it."""
    facts = picture.panels[0].roles[role].facts
    return ROLES[role] if facts in (0, picture.facts) else f"{ROLES[role]}\n(n = {facts})"


def colour_range(picture: Picture, vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """Ends of the one colour scale."""
    values = [value for panel in picture.panels for role in panel.roles.values() for value in role.aie or []]
    low = min(values) if vmin is None else vmin
    high = max(values) if vmax is None else vmax
    if vmin is None and vmax is None:
        high = max(high, low + 1e-9)
    if low >= high:
        raise PlotError(f"the colour scale would begin at {low:.4g} and end at {high:.4g}; see --vmin and --vmax")
    return low, high


def new_figure(picture: Picture, width: float, heights: tuple[float, float]) -> tuple[Any, list[Any], bool]:
    """A figure with an axes for each panel, beside each other or, where there is no room, under each other.

    `heights`: inches of a panel, and of what a panel needs besides when they are stacked.
    """
    from matplotlib.figure import Figure

    stacked = width < ONE_COLUMN
    count = len(picture.panels)
    height = heights[0] + 1.0 if not stacked else count * (heights[0] + heights[1]) + 0.2
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.02, hspace=0.04)
    rows, columns = (count, 1) if stacked else (1, count)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=not stacked)
    if picture.group:
        figure.suptitle(picture.group, fontsize=7.5, parse_math=False)
    return figure, list(axes.flat), stacked


def make_heatmap(picture: Picture, ends: tuple[float, float], width: float) -> Any:
    """Roll-up heat maps: roles down, layers across."""
    figure, all_axes, stacked = new_figure(picture, width, (1.5, 0.75))
    for number, (axes, panel) in enumerate(zip(all_axes, picture.panels)):
        nothing = [math.nan] * picture.layers
        values = [panel.roles[role].aie or nothing for role in ROLES]
        axes.pcolormesh(values, cmap=COLOURS[panel.kind], vmin=ends[0], vmax=ends[1])
        for row, role in enumerate(ROLES):
            if panel.roles[role].aie is None:
                hatch(axes, row, picture.layers)
        axes.set_ylim(len(ROLES), 0)
        if stacked or number == 0:
            axes.set_yticks([row + 0.5 for row in range(len(ROLES))], [label_of(role, picture) for role in ROLES])
        axes.tick_params(axis="y", labelsize=6.5, length=2 if stacked or number == 0 else 0)
        draw_layer_axis(axes, picture, panel, 0.5)
    add_colour_bar(figure, all_axes, picture, ends, stacked)
    return figure


def hatch(axes: Any, row: int, layers: int) -> None:
    """A role that no token has."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((0, row), layers, 1, facecolor="#f2f2f2", edgecolor="#b0b0b0", hatch="////", linewidth=0))
    box = {"facecolor": "#f2f2f2", "edgecolor": "none", "pad": 1}
    axes.text(layers / 2, row + 0.5, "no such token", fontsize=5.5, ha="center", va="center", bbox=box)


def draw_layer_axis(axes: Any, picture: Picture, panel: Panel, middle: float) -> None:
    """Title, numbers of layers, x label. `middle`: where in a unit of x a layer's number stands."""
    ticks = layer_ticks(picture.layers, most=8)
    axes.set_xticks([layer + middle for layer in ticks], [str(layer) for layer in ticks])
    axes.tick_params(axis="x", labelsize=6.5, length=2)
    axes.set_title(title_of(panel, picture), fontsize=7)
    axes.set_xlabel(x_label_of(panel, picture), fontsize=7, parse_math=False)


def add_colour_bar(
    figure: Any, all_axes: list[Any], picture: Picture, ends: tuple[float, float], stacked: bool
) -> None:
    """One scale with the colours of every panel side by side."""
    from matplotlib.cm import ScalarMappable

    aspect = (40 if stacked else 27) / len(all_axes)
    bar = figure.colorbar(ScalarMappable(), ax=all_axes, aspect=aspect, fraction=0.07, pad=0.01).ax
    bar.clear()
    steps = 64
    edges = [ends[0] + (ends[1] - ends[0]) * step / steps for step in range(steps + 1)]
    middles = [[(a + b) / 2] for a, b in zip(edges, edges[1:])]
    for number, panel in enumerate(picture.panels):
        cells = bar.pcolormesh(
            [number, number + 1], edges, middles, cmap=COLOURS[panel.kind], vmin=ends[0], vmax=ends[1]
        )
        cells.set_edgecolor("face")  # else some viewers show seams
    bar.set_xlim(0, len(picture.panels))
    bar.set_ylim(*ends)
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.yaxis.set_label_position("right")
    bar.yaxis.set_major_formatter("{x:.3g}")
    bar.tick_params(axis="y", labelsize=6.5, length=2)
    largest = max(value for panel in picture.panels for role in panel.roles.values() for value in role.aie or [])
    clipped = largest > ends[1] + 0.005 * (ends[1] - ends[0])
    bar.set_ylabel(f"AIE (darkest: up to {largest:.3g})" if clipped else "AIE", fontsize=7)


def make_lines(picture: Picture, limits: tuple[float | None, float | None], width: float, band: str) -> Any:
    """AIE by layer, a line a role, panels with one y axis."""
    figure, all_axes, stacked = new_figure(picture, width, (1.6, 0.75))
    labels: dict[str, Any] = {}
    for number, (axes, panel) in enumerate(zip(all_axes, picture.panels)):
        axes.axhline(0, color="#999999", linewidth=0.5, zorder=0)
        for role, averages in panel.roles.items():
            if averages.aie is not None:
                draw_role(axes, role, averages)
                labels.setdefault(legend_of(role, averages), axes.get_lines()[-1])
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", labelsize=6.5, length=2)
        draw_layer_axis(axes, picture, panel, 0)
        if stacked or number == 0:
            axes.set_ylabel(f"AIE{interval_of(picture, band)}", fontsize=7)
    low, high = zip(*(axes.get_ylim() for axes in all_axes))
    ends = min(low) if limits[0] is None else limits[0], max(high) if limits[1] is None else limits[1]
    if ends[0] >= ends[1]:
        raise PlotError(f"the axis would begin at {ends[0]:.4g} and end at {ends[1]:.4g}; see --vmin and --vmax")
    for axes in all_axes:
        axes.set_ylim(*ends)
    for role in ROLES:
        if all(panel.roles[role].aie is None for panel in picture.panels):
            labels[f"{ROLES[role]} (none)"] = blank_line()
    columns = 1 if width < 3.6 else 2 if stacked else 3
    figure.legend(
        labels.values(), labels.keys(), loc="outside lower center", ncols=columns, fontsize=6,
        frameon=False, handlelength=3, columnspacing=1, borderaxespad=0.2,
    )  # fmt: skip
    figure.set_figheight(figure.get_figheight() + 0.15 * len(ROLES) / columns)
    return figure


def draw_role(axes: Any, role: str, averages: Role) -> None:
    """A line with its band; a point where there is a single layer."""
    colour, dashes, line_width = LINES[role]
    layers = range(len(averages.aie or []))
    if averages.low is not None and averages.high is not None:
        axes.fill_between(layers, averages.low, averages.high, color=colour, alpha=0.16, linewidth=0)
    marker = "o" if len(layers) == 1 else None
    axes.plot(layers, averages.aie, color=colour, linestyle=dashes, linewidth=line_width, marker=marker, markersize=3)


def legend_of(role: str, averages: Role) -> str:
    return f"{ROLES[role]} (n = {averages.facts})"


def interval_of(picture: Picture, band: str) -> str:
    """What the bands are, if there are any."""
    any_band = any(role.low is not None for panel in picture.panels for role in panel.roles.values())
    return "\n(bands: 95 % over facts" + (", normal)" if band == "normal" else ")") if any_band else ""


def blank_line() -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none")


def make_figure(picture: Picture, arguments: argparse.Namespace) -> Any:
    if arguments.figure == "heatmap":
        return make_heatmap(picture, colour_range(picture, arguments.vmin, arguments.vmax), arguments.width)
    return make_lines(picture, (arguments.vmin, arguments.vmax), arguments.width, arguments.band)


# --- The program ------------------------------------------------------------------------------------------------


def width_of(text: str) -> float:
    """`--width`, within what can be read."""
    width = number_of(text)
    if not 2.5 <= width <= 20:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 2.5 to 20 inches")
    return width


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog=PROGRAM, description="Draws the averages that rometrace summary wrote, as in the paper.")
    parser.add_argument("input", nargs="?", default="-", help="the summary (default: standard input)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write: .png, .pdf or .svg")
    parser.add_argument("--figure", choices=("heatmap", "lines"), default="heatmap", help="default: %(default)s")
    parser.add_argument("--kinds", type=kinds_of, help="panels to draw, such as state,mlp (default: all there are)")
    parser.add_argument("--group", metavar="BY=NAME", help='a group of the break-down, such as "relation=P30"')
    parser.add_argument("--band", choices=BANDS, default="bootstrap", help="of the lines (default: %(default)s)")
    parser.add_argument("--vmin", type=number_of, help="start of the scale (default: the smallest AIE)")
    parser.add_argument("--vmax", type=number_of, help="end of the scale (default: the largest AIE)")
    parser.add_argument(
        "--width",
        type=width_of,
        default=PAPER_WIDTH,
        help="inches (default: %(default)s); below 4.5 the panels are stacked",
    )
    parser.add_argument("--dpi", type=dpi_of, default=200, help="dots per inch of a PNG (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    find_matplotlib()
    arguments = parse_arguments()
    try:
        check_output(arguments.output)
        picture = read_picture(read_summary(arguments.input), arguments.kinds, arguments.group, arguments.band)
        with settings([picture.model, picture.group]) as showable:
            picture = Picture(
                picture.facts, picture.layers, showable(picture.model), showable(picture.group), picture.panels
            )
            save(make_figure(picture, arguments), arguments.output, arguments.dpi)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
