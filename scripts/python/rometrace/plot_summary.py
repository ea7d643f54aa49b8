"""Draws a summary's averages as in the paper (arXiv 2202.05262, figures 2 and 3) from what `rometrace summary` wrote.

    rometrace summary results.jsonl --json | scripts/plot_summary.py -o roll-up.pdf
    scripts/plot_summary.py summary.json --figure lines -o lines.pdf
    scripts/plot_summary.py summary.json --group "relation=P30" -o p30.png
    scripts/plot_summary.py summary.json --figure heads --role last -o heads.png
    scripts/plot_summary.py both.json --direction interaction --figure lines -o interaction.png

heatmap: average indirect effect (AIE), token roles down, layers across, a panel a kind, one colour scale for all.
lines: the same by layer, a line a role, with its 95 % interval over facts as a band.
heads: AIE of single attention heads at the tokens of one role, heads down, layers across.
gaps: what severing the MLP or the attention takes from a state's AIE, by layer as in lines.
knockout: relative change of the answer's probability by layer with attention cut, a line a group of positions.

Of a summary of both directions heatmap, lines and heads have three rows: the AIE of restoring and that of corrupting,
on one scale, and their interaction, the second less the first, fact by fact. --direction draws one of the three.

Exit status: 0 drawn; 2 could not draw (one line on stderr says why). Needs matplotlib.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, field, replace
from typing import Any, Sequence

from rometrace.plotting import (
    COLOURS,
    DIVERGING,
    KNOCKOUT_LINES,
    KNOCKOUT_NAMES,
    PlotError,
    add_output,
    check_output,
    find_matplotlib,
    kinds_of,
    layer_ticks,
    number_of,
    save,
    settings,
    width_of,
)
from rometrace.results_file import (
    DIRECTIONS,
    Parser,
    directions_of,
    finish,
    model_name,
    one_line,
    printable,
    program_name,
    run_of,
    shorten,
)
from rometrace.summary_file import (
    BANDS,
    CAVEAT,
    ROLES,
    Role,
    find_group,
    read_layers,
    read_role,
    read_summary,
    remarks_on_summary,
)

PAPER_WIDTH = 5.5  # inches, the text's width in the paper
ONE_COLUMN = 4.5  # inches; below this the panels stand under each other
HEADS_WIDTH = 5.5  # inches at most of the one panel of heads
PANELS_IN_A_ROW = 3

FIGURES = ("heatmap", "lines", "heads", "gaps", "knockout")
NAMES = {
    "state": "$h_i^{(l)}$",
    "mlp": "MLP",
    "attn": "Attn",
    "state_mlp_severed": "$h_i^{(l)}$, MLP severed,",
    "state_attn_severed": "$h_i^{(l)}$, Attn severed,",
}
GAPS = {"mlp": "MLP", "attn": "Attn"}
OF_DIRECTIONS = ("heatmap", "lines", "heads")
"""The figures that differ between directions."""
MEANS = {"denoising": "kinds", "noising": "noising", "interaction": "interactions"}
"""Where a summary has the averages of a direction."""
EFFECTS = {
    "": "Avg Indirect Effect of",
    "denoising": "Avg Effect of Restoring",
    "noising": "Avg Effect of Corrupting",
    "interaction": "Avg Interaction of",
}
"""How titles begin; of one direction alone in the paper's words."""

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
class Panel:
    """One kind."""

    kind: str
    window: int
    roles: dict[str, Role]
    """By token role; of knockout by group of positions."""
    heads: list[list[float]] = field(default_factory=list)
    """[H][L] of the figure heads, whose role alone is in `roles`."""
    gap: bool = False
    """Differences of a state's AIE and that of `kind`, which is severed."""
    direction: str = ""
    """One of DIRECTIONS where several are drawn, and of interactions; their means are in the place of AIE."""

    @property
    def interaction(self) -> bool:
        return self.direction == "interaction"

    @property
    def colours(self) -> str:
        return DIVERGING if self.interaction else COLOURS[self.kind]


@dataclass(frozen=True)
class Picture:
    """What of the summary is drawn."""

    facts: int
    layers: int
    model: str
    group: str
    """Empty for all facts."""
    panels: list[Panel]
    remarks: list[str] = field(default_factory=list)
    """How the facts were traced, where it must be known."""

    @property
    def by_direction(self) -> list[list[Panel]]:
        """The panels, those of each direction apart; the same kinds in each."""
        return [
            [panel for panel in self.panels if panel.direction == direction]
            for direction in dict.fromkeys(panel.direction for panel in self.panels)
        ]

    @property
    def by_scale(self) -> list[list[Panel]]:
        """The panels, those of one scale together: effects in either direction, then interactions."""
        parts = [[panel for panel in self.panels if panel.interaction == apart] for apart in (False, True)]
        return [part for part in parts if part]


# --- Reading ----------------------------------------------------------------------------------------------------


def read_picture(
    summary: dict[str, Any],
    kinds: Sequence[str] | None,
    group: str | None,
    band: str,
    figure: str = "heatmap",
    role: str = "last_subject",
    direction: str | None = None,
) -> Picture:
    """Takes from a summary what is drawn. Raises PlotError for a field that is missing or of another shape.

    role: the one whose heads are drawn; direction: one of DIRECTIONS, by default all that the summary has.
    """
    try:
        known = directions_of(summary)
        if direction not in (None, *known):
            hint = "trace with rometrace --direction both, then summarise"
            raise PlotError(f"the summary has no {direction}, only {known[0]}; {hint}")
        averages = find_group(summary, group)
        facts = int(averages["facts"])
        if facts == 0:
            raise PlotError('no fact was traced, so that there is nothing to draw; see "causes" in the summary')
        layers = int(summary["model"]["layers"])
        drawn = known if direction is None and figure in OF_DIRECTIONS else (direction or known[0],)
        panels = []
        for each in drawn:
            means = averages
            if len(known) > 1:
                if MEANS[each] not in averages:
                    raise PlotError(f'the summary has no "{MEANS[each]}", though its run is of both directions')
                means = averages | {"kinds": averages[MEANS[each]]}
            name = each if len(drawn) > 1 or each == "interaction" else ""
            found = read_panels(means, kinds, layers, band, figure, role, name)
            panels += [replace(panel, direction=name) for panel in found]
        if len(drawn) == 1:
            summary = summary | {"run": run_of(summary) | {"direction": drawn[0]}}
        if all(role.aie is None for panel in panels for role in panel.roles.values()):
            raise PlotError("no role has a token, so that there is nothing to draw")
        model = model_name(summary["model"], 24)
        remarks = [shorten(remark, 90) for remark in remarks_on_summary(summary)]
        return Picture(facts, layers, model, shorten(printable(group or ""), 60), panels, remarks)
    except KeyError as error:
        raise PlotError(f"the summary lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PlotError(f"the summary has a field of another type than expected ({one_line(error)})") from None


def read_panels(
    averages: dict[str, Any],
    kinds: Sequence[str] | None,
    layers: int,
    band: str,
    figure: str,
    role: str,
    direction: str = "",
) -> list[Panel]:
    """The figure's panels of a direction."""
    mean = "interaction" if direction == "interaction" else "aie"
    if figure == "heads":
        return [read_heads(averages, layers, role, mean)]
    if figure == "knockout":
        return [read_knockout(averages, layers, band)]
    if figure == "gaps":
        return read_gaps(averages, layers, band)
    present = averages["kinds"]
    chosen = [kind for kind in NAMES if kind in (kinds or present)]
    missing = [kind for kind in chosen if kind not in present]
    if "head" in (kinds or ()) or (not chosen and "head" in present):
        raise PlotError("heads have no place in this figure; --figure heads draws them")
    if not present and "neurons" in averages:
        hint = f"{program_name('plot_neurons')} draws neurons"
        raise PlotError(f"the summary is of neurons alone, expected at least one of {', '.join(NAMES)}; {hint}")
    if missing or not chosen:
        raise PlotError(
            f"the summary has no {', '.join(missing) or 'known kind'}, only {', '.join(map(one_line, present))}"
        )
    return [read_panel(kind, present[kind], layers, band, mean=mean) for kind in chosen]


def read_panel(
    kind: str, averages: dict[str, Any], layers: int, band: str, gap: bool = False, mean: str = "aie"
) -> Panel:
    """A kind's averages by token role."""
    roles = averages["roles"]
    found = {role: read_role(f"{kind} {role}", roles[role], layers, band, mean) for role in ROLES}
    return Panel(kind, int(averages.get("window", 1)), found, gap=gap)


def read_gaps(averages: dict[str, Any], layers: int, band: str) -> list[Panel]:
    """What severing takes from a state's effect."""
    gaps = averages.get("gaps") or {}
    if not any(severed in gaps for severed in GAPS):
        raise PlotError(
            "the summary has no gaps; trace states plain and severed (--kinds state --sever mlp,attn), then summarise"
        )
    return [read_panel(severed, gaps[severed], layers, band, gap=True) for severed in GAPS if severed in gaps]


def read_heads(averages: dict[str, Any], layers: int, role: str, mean: str) -> Panel:
    """The heads' averages at the tokens of one role."""
    if "head" not in averages["kinds"]:
        raise PlotError("the summary has no heads; trace them with rometrace --kinds head, then summarise")
    kind = averages["kinds"]["head"]
    found = kind["roles"][role]
    if not int(found["facts"]):
        raise PlotError(f"no fact has heads at a token of the role {role}; choose another with --role")
    heads = [read_layers(f"head {role}", by_layer, layers) for by_layer in zip(*found[mean], strict=True)]
    if len(heads) != int(kind["heads"]):
        raise PlotError(f"head {role} has {len(heads)} heads, expected {kind['heads']}")
    largest = [max(by_head) for by_head in zip(*heads)]
    return Panel("head", int(kind["window"]), {role: Role(int(found["facts"]), largest, None, None)}, heads)


def read_knockout(averages: dict[str, Any], layers: int, band: str) -> Panel:
    """Relative changes with attention cut, in percent."""
    knockout = averages.get("knockout") or {}
    groups = knockout.get("groups") or {}
    found = {
        name: in_percent(read_role(f"knockout of {name}", groups[name], layers, band, "relative_change"))
        for name in KNOCKOUT_LINES
        if name in groups
    }
    if not found:
        raise PlotError("the summary has no knockout; trace it with rometrace --kinds knockout, then summarise")
    return Panel("knockout", int(knockout["window"]), found)


def in_percent(role: Role) -> Role:
    def percent(values: list[float] | None) -> list[float] | None:
        return None if values is None else [100 * value for value in values]

    return Role(role.facts, percent(role.aie), percent(role.low), percent(role.high))


# --- Drawing ----------------------------------------------------------------------------------------------------


def title_of(panel: Panel, picture: Picture) -> str:
    """In the paper's words, on two or three lines."""
    prompts = f"over {picture.facts} prompt{'s' if picture.facts > 1 else ''}"
    if panel.gap:
        return f"Avg Indirect Effect of $h_i^{{(l)}}$ lost by\nsevering {GAPS[panel.kind]}, {prompts}"
    if panel.kind == "head":
        ((role, averages),) = panel.roles.items()
        over = f"over {averages.facts} prompt{'s' * (averages.facts != 1)}"
        return f"{EFFECTS[panel.direction]} single heads\n{ROLES[role].lower()}, {over}"
    if panel.kind == "knockout":
        return f"Attention to the last position cut,\n{prompts}"
    name, *severed = NAMES[panel.kind].split(" ", 1)
    if severed:
        name += f" {severed[0]}"
    space = "\n" if len(picture.by_direction[0]) > PANELS_IN_A_ROW else " "
    return f"{EFFECTS[panel.direction]}\n{name}{space}{prompts}"


def x_label_of(panel: Panel, picture: Picture) -> str:
    if panel.kind == "knockout":
        return f"Center of interval of {panel.window}\nlayers cut in {picture.model}"
    if panel.kind == "head" and panel.window > 1:
        return f"Center of interval of {panel.window}\npatched layers of {picture.model}"
    if panel.gap or panel.kind not in ("mlp", "attn"):
        return f"Layer number in\n{picture.model}"
    return f"Center of interval of {panel.window}\npatched {panel.kind} layers"


def label_of(role: str, picture: Picture) -> str:
    """The role's name; with the number of its facts where not every fact has it."""
    facts = picture.panels[0].roles[role].facts
    return ROLES[role] if facts in (0, picture.facts) else f"{ROLES[role]}\n(n = {facts})"


def mean_name(panel: Panel) -> str:
    return "Avg interaction" if panel.interaction else "AIE"


def diverging_range(values: Sequence[float], end: float | None) -> tuple[float, float]:
    """Ends of a colour scale with 0 in its middle."""
    end = max(1e-9, *map(abs, values)) if end is None else end
    if end <= 0:
        raise PlotError(f"the colour scale would end at {end:g}, expected above 0, which is its middle; see --vmax")
    return -end, end


def limits_of(picture: Picture, panel: Panel, limits: tuple[float | None, float | None]) -> Any:
    """--vmin and --vmax as far as they are for the panel: beside effects interactions have ends of their own."""
    return (None, None) if panel.interaction and len(picture.by_scale) > 1 else limits


def colour_range(panels: Sequence[Panel], vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """Ends of the one colour scale of the panels."""
    values = [value for panel in panels for role in panel.roles.values() for value in role.aie or []]
    if panels[0].interaction:
        return diverging_range(values, vmax)
    low = min(values) if vmin is None else vmin
    high = max(values) if vmax is None else vmax
    if vmin is None and vmax is None:
        high = max(high, low + 1e-9)
    if low >= high:
        raise PlotError(f"the colour scale would begin at {low:.4g} and end at {high:.4g}; see --vmin and --vmax")
    return low, high


def new_figure(picture: Picture, width: float, heights: tuple[float, float]) -> tuple[Any, list[Any], int]:
    """A figure with an axes for each panel, and the number of its columns: up to three, or one where there is no room.

    `heights`: inches of a panel, and of what a panel needs besides when they are stacked. Each direction begins a row.
    """
    from matplotlib.figure import Figure

    parts = len(picture.by_direction)
    count = len(picture.by_direction[0])
    rows = count if width < ONE_COLUMN else -(-count // PANELS_IN_A_ROW)
    columns = -(-count // rows)
    cells = rows * columns
    rows *= parts
    height = rows * (heights[0] + heights[1]) + 0.2 if columns == 1 and rows > 1 else rows * (heights[0] + 1.0)
    lines = [picture.group] * bool(picture.group) + picture.remarks
    figure = Figure(figsize=(width, height + 0.14 * len(picture.remarks)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.02, hspace=0.04)
    shared: Any = columns > 1
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey="row" if shared and parts > 1 else shared).flat)
    for place, spare in enumerate(axes):
        if place % cells >= count:
            figure.delaxes(spare)
    if lines:
        figure.suptitle("\n".join(lines), fontsize=7.5 if not picture.remarks else 6.5, parse_math=False)
    return figure, [each for place, each in enumerate(axes) if place % cells < count], columns


def is_leftmost(picture: Picture, number: int, columns: int) -> bool:
    """Whether a panel begins its row."""
    return number % len(picture.by_direction[0]) % columns == 0


def make_heatmap(picture: Picture, limits: tuple[float | None, float | None], width: float) -> Any:
    """Roll-up heat maps: roles down, layers across."""
    scales = [colour_range(panels, *limits_of(picture, panels[0], limits)) for panels in picture.by_scale]
    figure, all_axes, columns = new_figure(picture, width, (1.5, 0.75))
    for number, (axes, panel) in enumerate(zip(all_axes, picture.panels)):
        ends = scales[-1 if panel.interaction else 0]
        nothing = [math.nan] * picture.layers
        values = [panel.roles[role].aie or nothing for role in ROLES]
        axes.pcolormesh(values, cmap=panel.colours, vmin=ends[0], vmax=ends[1])
        for row, role in enumerate(ROLES):
            if panel.roles[role].aie is None:
                hatch(axes, row, picture.layers)
        axes.set_ylim(len(ROLES), 0)
        if is_leftmost(picture, number, columns):
            axes.set_yticks([row + 0.5 for row in range(len(ROLES))], [label_of(role, picture) for role in ROLES])
        axes.tick_params(axis="y", labelsize=6.5, length=2 if is_leftmost(picture, number, columns) else 0)
        draw_layer_axis(axes, picture, panel, 0.5)
    for panels, ends in zip(picture.by_scale, scales):
        of_scale = [axes for axes, panel in zip(all_axes, picture.panels) if panel.interaction == panels[0].interaction]
        add_colour_bar(figure, of_scale, panels, ends, columns == 1)
    return figure


def make_heads(picture: Picture, limits: tuple[float | None, float | None], width: float) -> Any:
    """Heat maps, one below the other: heads down, layers across."""
    from matplotlib.figure import Figure

    scales = [heads_range(panels, *limits_of(picture, panels[0], limits)) for panels in picture.by_scale]
    count = len(picture.panels[0].heads)
    lines = [picture.group] * bool(picture.group) + picture.remarks
    height = len(picture.panels) * (0.9 + min(6.0, max(1.2, 0.13 * count))) + 0.14 * len(lines)
    figure = Figure(figsize=(min(width, HEADS_WIDTH), height), layout="constrained")
    for axes, panel in zip(figure.subplots(len(picture.panels), squeeze=False).flat, picture.panels):
        low, high = scales[-1 if panel.interaction else 0]
        mesh = axes.pcolormesh(panel.heads, cmap=panel.colours, vmin=low, vmax=high)
        axes.set_ylim(count, 0)
        axes.set_yticks([head + 0.5 for head in layer_ticks(count)], [str(head) for head in layer_ticks(count)])
        axes.tick_params(axis="y", labelsize=6.5, length=2)
        axes.set_ylabel("Head", fontsize=7)
        draw_layer_axis(axes, picture, panel, 0.5)
        bar = figure.colorbar(mesh, ax=axes, aspect=25, pad=0.02).ax
        bar.yaxis.set_major_formatter("{x:.3g}")
        bar.tick_params(axis="y", labelsize=6.5, length=2)
        bar.set_ylabel(mean_name(panel), fontsize=7)
    if lines:
        figure.suptitle("\n".join(lines), fontsize=6.5, parse_math=False)
    return figure


def heads_range(panels: Sequence[Panel], vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """Ends of the one colour scale of the panels of heads."""
    values = [value for panel in panels for row in panel.heads for value in row]
    if panels[0].interaction:
        return diverging_range(values, vmax)
    low, high = min(values) if vmin is None else vmin, max(values) if vmax is None else vmax
    if low >= high and None not in (vmin, vmax):
        raise PlotError(f"the colour scale would begin at {low:.4g} and end at {high:.4g}; see --vmin and --vmax")
    return low, max(high, low + 1e-9)


def hatch(axes: Any, row: int, layers: int) -> None:
    """A role of no token that was traced: the facts have none, or --positions left it out."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((0, row), layers, 1, facecolor="#f2f2f2", edgecolor="#b0b0b0", hatch="////", linewidth=0))
    box = {"facecolor": "#f2f2f2", "edgecolor": "none", "pad": 1}
    axes.text(layers / 2, row + 0.5, "no such token traced", fontsize=5.5, ha="center", va="center", bbox=box)


def draw_layer_axis(axes: Any, picture: Picture, panel: Panel, middle: float) -> None:
    """Title, numbers of layers, x label. `middle`: where in a unit of x a layer's number stands."""
    ticks = layer_ticks(picture.layers, most=8)
    axes.set_xticks([layer + middle for layer in ticks], [str(layer) for layer in ticks])
    axes.tick_params(axis="x", labelsize=6.5, length=2)
    axes.set_title(title_of(panel, picture), fontsize=7)
    axes.set_xlabel(x_label_of(panel, picture), fontsize=7, parse_math=False)


def add_colour_bar(
    figure: Any, all_axes: list[Any], panels: Sequence[Panel], ends: tuple[float, float], stacked: bool
) -> None:
    """One scale with the colours of every panel side by side."""
    from matplotlib.cm import ScalarMappable

    colours = list(dict.fromkeys(panel.colours for panel in panels))
    rows = len({axes.get_subplotspec().rowspan.start for axes in all_axes})
    aspect = (40 if stacked else 27 if rows == 1 else 36 * rows) / max(len(colours), 3 * panels[0].interaction)
    bar = figure.colorbar(ScalarMappable(), ax=all_axes, aspect=aspect, fraction=0.07, pad=0.01).ax
    bar.clear()
    steps = 64
    edges = [ends[0] + (ends[1] - ends[0]) * step / steps for step in range(steps + 1)]
    middles = [[(a + b) / 2] for a, b in zip(edges, edges[1:])]
    for number, name in enumerate(colours):
        cells = bar.pcolormesh([number, number + 1], edges, middles, cmap=name, vmin=ends[0], vmax=ends[1])
        cells.set_edgecolor("face")  # else some viewers show seams
    bar.set_xlim(0, len(colours))
    bar.set_ylim(*ends)
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.yaxis.set_label_position("right")
    bar.yaxis.set_major_formatter("{x:.3g}")
    bar.tick_params(axis="y", labelsize=6.5, length=2)
    largest = max(value for panel in panels for role in panel.roles.values() for value in role.aie or [])
    clipped = largest > ends[1] + 0.005 * (ends[1] - ends[0])
    name = mean_name(panels[0])
    bar.set_ylabel(f"{name} (darkest: up to {largest:.3g})" if clipped else name, fontsize=7)


def make_lines(picture: Picture, limits: tuple[float | None, float | None], width: float, band: str) -> Any:
    """AIE by layer, a line a role, panels with one y axis."""
    figure, all_axes, columns_of_panels = new_figure(picture, width, (1.6, 0.75))
    knockout = picture.panels[0].kind == "knockout"
    labels: dict[str, Any] = {}
    for number, (axes, panel) in enumerate(zip(all_axes, picture.panels)):
        axes.axhline(0, color="#999999", linewidth=0.5, zorder=0)
        for role, averages in panel.roles.items():
            if averages.aie is not None:
                draw_role(axes, (KNOCKOUT_LINES if knockout else LINES)[role], averages)
                labels.setdefault(legend_of(role, averages, knockout), axes.get_lines()[-1])
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", labelsize=6.5, length=2)
        draw_layer_axis(axes, picture, panel, 0)
        if is_leftmost(picture, number, columns_of_panels):
            what = "Change of probability, %" if knockout else "AIE lost by severing" if panel.gap else mean_name(panel)
            axes.set_ylabel(f"{what}{interval_of(picture, band)}", fontsize=7)
    for panels in picture.by_scale:
        of_scale = [axes for axes, panel in zip(all_axes, picture.panels) if panel.interaction == panels[0].interaction]
        low, high = zip(*(axes.get_ylim() for axes in of_scale))
        vmin, vmax = limits_of(picture, panels[0], limits)
        ends = min(low) if vmin is None else vmin, max(high) if vmax is None else vmax
        if ends[0] >= ends[1]:
            raise PlotError(f"the axis would begin at {ends[0]:.4g} and end at {ends[1]:.4g}; see --vmin and --vmax")
        for axes in of_scale:
            axes.set_ylim(*ends)
    for role in picture.panels[0].roles if len(labels) > 1 else ():  # of a single role, as of one position, no others
        if all(panel.roles[role].aie is None for panel in picture.panels):
            labels[f"{(KNOCKOUT_NAMES if knockout else ROLES)[role]} (none)"] = blank_line()
    columns = 1 if width < 3.6 else 2 if columns_of_panels < 2 else 3
    legend = figure.legend(
        labels.values(), labels.keys(), loc="outside lower center", ncols=columns, fontsize=6,
        frameon=False, handlelength=3, columnspacing=1, borderaxespad=0.2,
    )  # fmt: skip
    figure.set_figheight(figure.get_figheight() + 0.15 * len(labels) / columns)
    if any(panel.gap for panel in picture.panels):
        legend.set_title(CAVEAT, prop={"size": 5.5})
        figure.set_figheight(figure.get_figheight() + 0.12)
    return figure


def draw_role(axes: Any, line: tuple[str, Any, float], averages: Role) -> None:
    """A line with its band; a point where there is a single layer."""
    colour, dashes, line_width = line
    layers = range(len(averages.aie or []))
    if averages.low is not None and averages.high is not None:
        axes.fill_between(layers, averages.low, averages.high, color=colour, alpha=0.16, linewidth=0)
    marker = "o" if len(layers) == 1 else None
    axes.plot(layers, averages.aie, color=colour, linestyle=dashes, linewidth=line_width, marker=marker, markersize=3)


def legend_of(role: str, averages: Role, knockout: bool) -> str:
    name = f"Cut from: {KNOCKOUT_NAMES[role]}" if knockout else ROLES[role]
    return f"{name} (n = {averages.facts})"


def interval_of(picture: Picture, band: str) -> str:
    """What the bands are, if there are any."""
    any_band = any(role.low is not None for panel in picture.panels for role in panel.roles.values())
    return "\n(bands: 95 % over facts" + (", normal)" if band == "normal" else ")") if any_band else ""


def blank_line() -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none")


def make_figure(picture: Picture, arguments: argparse.Namespace) -> Any:
    if arguments.figure == "heads":
        return make_heads(picture, (arguments.vmin, arguments.vmax), arguments.width)
    if arguments.figure == "heatmap":
        return make_heatmap(picture, (arguments.vmin, arguments.vmax), arguments.width)
    return make_lines(picture, (arguments.vmin, arguments.vmax), arguments.width, arguments.band)


# --- The program ------------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = Parser(
        prog=program_name(), description="Draws the averages that rometrace summary wrote, as in the paper."
    )
    parser.add_argument("input", nargs="?", default="-", help="the summary (default: standard input)")
    add_output(parser)
    parser.add_argument("--figure", choices=FIGURES, default="heatmap", help="default: %(default)s")
    parser.add_argument("--kinds", type=kinds_of, help="panels to draw, such as state,mlp (default: all there are)")
    parser.add_argument(
        "--role", choices=tuple(ROLES), help="of the heads drawn, with --figure heads (default: last_subject)"
    )
    parser.add_argument(
        "--direction",
        choices=DIRECTIONS,
        metavar="NAME",
        help=f"of a summary of both directions draw one alone: {', '.join(DIRECTIONS)} (default: all there are)",
    )
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
    arguments = parser.parse_args()
    if arguments.role and arguments.figure != "heads":
        parser.error("--role is for --figure heads")
    if arguments.kinds and arguments.figure not in ("heatmap", "lines"):
        parser.error("--kinds is for --figure heatmap and lines")
    if arguments.direction and arguments.figure not in OF_DIRECTIONS:
        parser.error(f"--direction is for --figure {', '.join(OF_DIRECTIONS)}; gaps and knockout have none")
    if arguments.direction == "interaction" and arguments.vmin is not None and arguments.figure != "lines":
        parser.error("--vmin is not for the colours of interactions, whose scale has 0 in its middle; give --vmax")
    arguments.role = arguments.role or "last_subject"
    return arguments


def draw(arguments: argparse.Namespace) -> int:
    """Draws the summary; gives the exit status."""
    check_output(arguments.output)
    summary = read_summary(arguments.input)
    picture = read_picture(
        summary,
        arguments.kinds,
        arguments.group,
        arguments.band,
        arguments.figure,
        arguments.role,
        arguments.direction,
    )
    with settings([picture.model, picture.group, *picture.remarks]) as showable:
        remarks = [showable(remark) for remark in picture.remarks]
        picture = replace(picture, model=showable(picture.model), group=showable(picture.group), remarks=remarks)
        save(make_figure(picture, arguments), arguments.output, arguments.dpi)
    return 0


def main() -> int:
    find_matplotlib()
    arguments = parse_arguments()
    return finish(program_name(), lambda: draw(arguments))
