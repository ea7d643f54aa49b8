"""Draws traces as the paper's heat maps (arXiv 2202.05262, figure 1): tokens down, layers across.

    rometrace --prompt "Miles Davis plays the" --subject "Miles Davis" | scripts/plot_trace.py -o miles.png
    scripts/plot_trace.py results.jsonl --id plays_instrument/miles-davis -o miles.pdf
    scripts/plot_trace.py results.jsonl --each pictures --relation plays_instrument --limit 20
    scripts/plot_trace.py results.jsonl --each pages.pdf --same-scale
    scripts/plot_trace.py both.json --direction interaction -o interaction.png

Purple: states, green: MLP, red: attention; one panel for each kind in the record, rows for the positions it lists.
Corrupted tokens carry a star. The colour scale runs from low_score, the probability with nothing restored, to the
panel's largest score. With the direction noising what is drawn is the probability lost, high_score - score. Heads are
drawn layers across, heads down, a panel a position; knockout as lines of the relative change by layer.

Of a record of both directions each kind has three panels, one below the other: what restoring brings back and what
corrupting takes away, both as changes and on one scale, and the interaction, which is the second less the first:
white at 0, red where a cell counts for more in the clean run, blue where it counts for less. --direction draws one of
the three.

Exit status: 0 drawn; 1 drawn, but some of --each could not be; 2 could not draw (one line on stderr says why). Needs
matplotlib.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import sys
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from rometrace import results_file
from rometrace.plotting import (
    COLOURS,
    DIVERGING,
    FORMATS,
    KNOCKOUT_LINES,
    KNOCKOUT_NAMES,
    PlotError,
    add_output,
    check_output,
    find_matplotlib,
    kinds_among,
    layer_ticks,
    number_of,
    save,
    settings,
)
from rometrace.results_file import (
    DIRECTIONS,
    Line,
    Parser,
    Progress,
    UserError,
    WriteError,
    as_noising,
    corrupted_positions,
    directions_of,
    finish,
    flat,
    is_noising,
    model_name,
    one_line,
    positions_of,
    positive,
    printable,
    program_name,
    read_grid,
    read_lines,
    read_numbers,
    remarks_on,
    replacing,
    run_of,
    shorten,
    token_text,
    traced_record,
)

NAMES = {"state": "state", "mlp": "MLP", "attn": "attention", "head": "single heads"}
SEVERED = {"state_mlp_severed": "MLP severed", "state_attn_severed": "attention severed"}
MEASURES = ("log_probability", "logit", "logit_difference", "rank", "kl", "normalised")
LONGEST_LABEL = 24  # characters
FEW_POSITIONS = 3  # of heads; with more, only one of them is drawn
PANELS_IN_A_ROW = 3


@dataclass(frozen=True)
class Panel:
    """One kind's heat map."""

    kind: str
    window: int
    """Layers patched together."""
    values: list[list[float]]
    """[P][L], or [H][L] of heads: probabilities, differences of probabilities, or a measure's; NaN for none."""
    positions: list[int] = field(default_factory=list)
    """[P] of the prompt; of heads the single one."""


@dataclass(frozen=True)
class Knockout:
    """Relative changes of the answer's probability with attention from the last position cut."""

    window: int
    groups: dict[str, tuple[int, list[float]]]
    """Number of positions, and [L] fractions; NaN for none."""


@dataclass(frozen=True)
class Picture:
    """What the record says, as far as it is drawn."""

    tokens: list[str]
    """[T] labels, without fonts or stars in mind."""
    corrupted: list[int]
    """Positions with a star."""
    answer: str
    model: str
    low: float
    """Start of the colour scale, where nothing is patched: low_score, 0 of effects, a measure's low or high."""
    least_span: float
    """A hundredth of low_score: a scale shorter than that would show rounding as if it were an effect."""
    panels: list[Panel]
    knockout: Knockout | None = None
    measure: str = "probability"
    foil: str = ""
    """Of the measures that have one."""
    effect: bool = False
    """Changes are drawn; with noising, what is lost."""
    noising: bool = False
    interaction: bool = False
    """What corrupting takes away less what restoring brings back."""
    rising: bool = True
    """Whether the colours grow darker with larger values; of a rank, say, they do with smaller ones."""
    caption: str = ""
    """Which fact it is, for a page among others."""
    captioned: bool = False
    remarks: list[str] = field(default_factory=list)
    """What stands above every picture of its sort."""
    below: list[Picture] = field(default_factory=list)
    """The other directions of the same cells, each drawn below the one before it, and the knockout, which has none."""


# --- Choosing and reading ---------------------------------------------------------------------------------------


def choose(arguments: argparse.Namespace) -> Line:
    """The one line of the input that is to be drawn."""
    records = lines_of_records(arguments.input)
    otherwise = ", or draw each with --each FOLDER"
    return results_file.choose(records, name_of(arguments.input), arguments.id, arguments.record, otherwise)


def lines_of_records(source: str) -> Iterator[Line]:
    """The input's lines without the header."""
    return (line for line in read_lines(source, note) if line.place)


def traced_lines(arguments: argparse.Namespace) -> Iterator[Line]:
    """What --each draws: traced facts, of one relation with --relation, the first ones with --limit."""
    count = 0
    for line in lines_of_records(arguments.input):
        if count == arguments.limit:
            return
        if line.status == "traced" and arguments.relation in (None, line.relation):
            count += 1
            yield line


def name_of(source: str) -> str:
    return "standard input" if source == "-" else source


def note(message: str) -> None:
    """A message on stderr."""
    print(f"{program_name()}: {message}", file=sys.stderr)


def read_picture(
    record: dict[str, Any],
    kinds: Sequence[str] | None,
    effect: bool,
    measure: str | None = None,
    heads_at: Sequence[int | str] | None = None,
    direction: str | None = None,
) -> Picture:
    """Takes from a record what is drawn. Raises PlotError for a field that is missing or of another shape.

    effect: changes, not values; measure: another than the probability; heads_at: positions of heads (see heads_at_of);
    direction: one of DIRECTIONS, by default all that the record has.
    """
    try:
        known = directions_of(record)
        if direction not in (None, *known):
            raise PlotError(f"the record has no {direction}, only {known[0]}; rometrace --direction both traces them")
        if direction is None and len(known) > 1:
            return read_all_directions(record, kinds, measure, heads_at)
        return read_direction(record, direction or known[0], kinds, effect, measure, heads_at)
    except KeyError as error:
        raise PlotError(f"the record lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PlotError(f"the record has a field of another type than expected ({error})") from None


def read_all_directions(
    record: dict[str, Any],
    kinds: Sequence[str] | None,
    measure: str | None,
    heads_at: Sequence[int | str] | None,
) -> Picture:
    """Changes in either direction and their interaction, of the same cells."""
    first = read_direction(record, "denoising", kinds, True, measure, heads_at)
    if not first.panels:  # of knockout alone
        return first
    maps = list(dict.fromkeys(panel.kind for panel in first.panels))
    same_heads = [panel.positions[0] for panel in first.panels if panel.kind == "head"]
    below = [read_direction(record, other, maps, True, measure, same_heads or None) for other in DIRECTIONS[1:]]
    if first.knockout:
        below.append(replace(first, panels=[]))
    return replace(first, knockout=None, below=below)


def read_direction(
    record: dict[str, Any],
    direction: str,
    kinds: Sequence[str] | None,
    effect: bool,
    measure: str | None,
    heads_at: Sequence[int | str] | None,
) -> Picture:
    """What a record says of one direction."""
    whole = record
    if direction != "denoising" and len(directions_of(record)) > 1:
        record = as_noising(record)
    interaction = direction == "interaction"
    grids = record.get("grids") or {}
    measured = find_measure(record, measure)
    present = list(grids if measured is None else measured["grids"])
    if measured is None and record.get("knockout") and not interaction:
        present.append("knockout")
    chosen = [kind for kind in (*COLOURS, "knockout") if kind in (kinds or present)]
    missing = [kind for kind in chosen if kind not in present]
    if missing or not chosen:
        raise PlotError(
            f"the record has no grid of {', '.join(missing) or 'a known kind'}, only {', '.join(present)}"
        )
    tokens = [label_of(*token) for token in zip(record["tokens"], record["token_bytes"], strict=True)]
    run = run_of(record)
    noising = is_noising(run)
    picture = Picture(
        tokens=tokens,
        corrupted=corrupted_positions(record),
        answer=label_of(record["answer"], record["answer_bytes"]),
        model=model_name(record["model"], LONGEST_LABEL),
        low=0.0,
        least_span=1e-9,
        panels=[],
        measure=measure or "probability",
        foil=foil_of(record),
        effect=effect or interaction or (noising and measured is None),
        noising=noising,
        interaction=interaction,
        caption=caption_of(record),
        remarks=remarks_on(run, record.get("counter"), record["model"]),
    )
    maps = [kind for kind in chosen if kind != "knockout"]
    if maps and measured is None:
        low = float(record["low_score"])
        picture = replace(picture, low=0.0 if picture.effect else low, least_span=max(1e-9, 0.01 * low))
    elif measured is not None:
        picture = with_scale_of(picture, measured)
    restored = find_measure(whole, measure) if interaction else None
    panels = [panel for kind in maps for panel in read_panels(record, kind, picture, measured, heads_at, restored)]
    knockout = read_knockout(record) if "knockout" in chosen else None
    return replace(picture, panels=panels, knockout=knockout)


def find_measure(record: dict[str, Any], name: str | None) -> dict[str, Any] | None:
    """The measure of that name; None for the probability."""
    if name in (None, "probability"):
        return None
    measures = record.get("measures") or {}
    if name not in measures:
        known = f"only {', '.join(map(one_line, measures))}" if measures else "none but the probability"
        raise PlotError(f"the record has no measure {name}, {known}; rometrace --measures {name} adds it")
    return measures[name]


def foil_of(record: dict[str, Any]) -> str:
    """The token that the logit difference is to; empty without one."""
    difference = (record.get("measures") or {}).get("logit_difference")
    return label_of(difference["foil"], difference["foil_bytes"]) if difference else ""


def with_scale_of(picture: Picture, measured: dict[str, Any]) -> Picture:
    """The picture with a measure's ends of the colour scale."""
    low, high = float(measured["low"]), float(measured["high"])
    rising = (high >= low) != (picture.noising and not picture.effect)
    start = 0.0 if picture.effect else high if picture.noising else low
    if picture.measure == "normalised" and measured.get("of") == "probability":
        picture = replace(picture, foil="")
    return replace(picture, low=start, least_span=max(1e-9, 0.01 * abs(high - low)), rising=rising)


def read_panels(
    record: dict[str, Any],
    kind: str,
    picture: Picture,
    measured: dict[str, Any] | None,
    heads_at: Sequence[int | str] | None,
    restored: dict[str, Any] | None = None,
) -> list[Panel]:
    """The kind's heat map; of heads one for each position that is drawn.

    restored: of an interaction the measure when denoising.
    """
    grid = record["grids"][kind]
    positions = positions_of(kind, grid, len(picture.tokens))
    shape: tuple[int, ...] = len(positions), int(record["model"]["layers"])
    if kind == "head":
        shape += (int(grid["heads"]),)
    bounded = not run_of(record).get("approximate")
    if measured is None and picture.interaction:
        values = read_grid(f"{kind} interaction", grid["interaction"], shape, bounded=False)
    elif measured is None:
        name = "indirect_effect" if picture.effect else "scores"
        values = read_grid(f"{kind} {name}", grid[name], shape, bounded)
    else:
        name = f"{picture.measure} of {kind}"
        values = read_numbers(name, measured["grids"][kind]["values"], shape, missing=math.nan)
        if picture.effect:
            base, sign = (measured["high"], -1) if picture.noising else (measured["low"], 1)
            values = changed(values, float(base), sign)
        if restored is not None:
            others = read_numbers(name, restored["grids"][kind]["values"], shape, missing=math.nan)
            values = differences(values, changed(others, float(restored["low"]), 1))
    if kind != "head":
        return [Panel(kind, int(grid["window"]), values, positions)]
    effects = values
    if not picture.interaction:
        effects = read_grid("head indirect_effect", grid["indirect_effect"], shape, bounded)
    rows = rows_of_heads(record, positions, effects, heads_at)
    return [Panel(kind, int(grid["window"]), list(map(list, zip(*values[row]))), [positions[row]]) for row in rows]


def changed(values: list[Any], base: float, sign: int) -> list[Any]:
    """Nested values as differences from `base`."""
    return [changed(value, base, sign) if isinstance(value, list) else sign * (value - base) for value in values]


def differences(values: list[Any], others: list[Any]) -> list[Any]:
    """Nested values less others of the same shape."""
    pairs = zip(values, others, strict=True)
    return [differences(a, b) if isinstance(a, list) else a - b for a, b in pairs]


def rows_of_heads(
    record: dict[str, Any], positions: list[int], effects: list[Any], heads_at: Sequence[int | str] | None
) -> list[int]:
    """Rows of the heads' grid that are drawn: all of few, else the one with the largest effect; or those asked for."""
    if heads_at is None:
        largest = [max(flat(row)) for row in effects]
        return list(range(len(positions))) if len(positions) <= FEW_POSITIONS else [largest.index(max(largest))]
    if heads_at == ["all"]:
        return list(range(len(positions)))
    names = {"subject-last": int(record["subject_range"][1]) - 1, "last": len(record["tokens"]) - 1}
    wanted = [names.get(position, position) if isinstance(position, str) else position for position in heads_at]
    missing = [position for position in wanted if position not in positions]
    if missing:
        known = shorten(", ".join(map(str, positions)), 60)
        raise PlotError(f"the record has no heads at position {missing[0]}, only at {known}; see --heads-at")
    return [positions.index(position) for position in wanted]


def read_knockout(record: dict[str, Any]) -> Knockout:
    """The record's knockout."""
    layers = int(record["model"]["layers"])
    groups = record["knockout"]["groups"]
    found = {
        name: (
            len(groups[name]["positions"]),
            read_numbers(f"knockout of {name}", [groups[name]["relative_change"]], (1, layers), math.nan)[0],
        )
        for name in KNOCKOUT_LINES
        if name in groups
    }
    if not found:
        raise PlotError(f"knockout has none of the groups {', '.join(KNOCKOUT_LINES)}")
    return Knockout(int(record["knockout"]["window"]), found)


def caption_of(record: dict[str, Any]) -> str:
    """Number, id and prompt of the fact."""
    fact = record.get("fact") or {}
    parts = [f"record {fact['record']}" if "record" in fact else "", fact.get("id"), record.get("prompt")]
    return shorten("   ".join(printable(str(part)) for part in parts if part not in (None, "")), 110)


def label_of(text: str, token_bytes: str) -> str:
    """A token as the panels show it."""
    return shorten(token_text(text, token_bytes), LONGEST_LABEL)


# --- Drawing ----------------------------------------------------------------------------------------------------


def colour_range(picture: Picture, panel: Panel, vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """Ends of the panel's colour scale."""
    values = [value for row in panel.values for value in row if math.isfinite(value)] or [picture.low]
    if picture.interaction:
        end = max(picture.least_span, *map(abs, values)) if vmax is None else vmax
        if end <= 0:
            raise PlotError(f"the colour scale would end at {end:g}, expected above 0, which is its middle; see --vmax")
        return -end, end
    if picture.rising:
        low = picture.low if vmin is None else vmin
        high = max(values) if vmax is None else vmax
        if vmax is None:
            return low, max(high, low + picture.least_span)
    else:
        low = min(values) if vmin is None else vmin
        high = picture.low if vmax is None else vmax
        if vmin is None:
            return min(low, high - picture.least_span), high
    if low >= high:
        raise PlotError(f"the colour scale would begin at {low:g} and end at {high:g}; see --vmin and --vmax")
    return low, high


def describe(picture: Picture, panel: Panel) -> tuple[str, str]:
    """Title and x label of a panel, in the paper's words."""
    name = "state" if panel.kind in SEVERED else NAMES[panel.kind]
    done = "patched" if picture.interaction else "corrupted" if picture.noising else "restored"
    where = ""
    if panel.kind in SEVERED:
        where = f", {SEVERED[panel.kind]}"
    elif panel.kind == "head":
        where = f" at “{token_label(picture, panel.positions[0])}”"
    comma, space = (",", "\n") if panel.kind in SEVERED else ("", "\n" if where else " ")
    if picture.interaction:
        title = f"Interaction of {name}{where}:{space}lost less brought back"
    elif not picture.noising:
        title = f"Impact of restoring {name}{where}{comma}{space}after corrupted input"
    elif picture.measure == "probability":
        title = f"Probability lost when {name}{where}{comma}{space}{'are' if panel.kind == 'head' else 'is'} corrupted"
    else:
        title = f"Impact of corrupting {name}{where}{comma}{space}in the clean run"
    if panel.kind in ("mlp", "attn"):
        return title, f"center of interval of {panel.window} {done} {name} layers within {picture.model}"
    if panel.window > 1:
        return title, f"center of interval of {panel.window} {done} layers within {picture.model}"
    return title, f"single {done} layer within {picture.model}"


def token_label(picture: Picture, position: int) -> str:
    """A token with its star."""
    return f"{picture.tokens[position]}{'*' * (position in picture.corrupted)}"


def bar_label_of(picture: Picture) -> str:
    """What the colours are."""
    name = f"p({picture.answer})"
    difference = f"logit of {picture.answer} − logit of {picture.foil}"
    ends = "(0\u00a0=\u00a0corrupted, 1\u00a0=\u00a0clean)"
    label = {
        "probability": name,
        "log_probability": f"ln {name}",
        "logit": f"logit of {picture.answer}",
        "logit_difference": difference,
        "rank": f"rank of {picture.answer} (1\u00a0=\u00a0first)",
        "kl": "KL divergence from the clean run, nats",
        "normalised": f"normalised {'logit difference' if picture.foil else name} {ends}",
    }[picture.measure]
    if picture.interaction:
        return f"interaction in {label}"
    if not picture.effect:
        return label
    return f"{label} lost" if picture.noising else f"change of {label}"


def draw_panel(axes: Any, picture: Picture, panel: Panel, ends: tuple[float, float]) -> None:
    """One heat map with its labels and colour bar."""
    rows, layers = len(panel.values), len(panel.values[0])
    labels = [str(head) for head in range(rows)]
    if panel.kind != "head":
        labels = [token_label(picture, position) for position in panel.positions]
    title, x_label = describe(picture, panel)
    colours = DIVERGING if picture.interaction else COLOURS[panel.kind]
    if not picture.rising:
        colours = colours.removesuffix("_r") if colours.endswith("_r") else f"{colours}_r"
    axes.set_facecolor("#d0d0d0")  # of cells without a number
    mesh = axes.pcolormesh(panel.values, cmap=colours, vmin=ends[0], vmax=ends[1])
    axes.invert_yaxis()
    every = range(rows) if panel.kind != "head" else layer_ticks(rows, most=26)
    axes.set_yticks([row + 0.5 for row in every], [labels[row] for row in every], parse_math=False)
    axes.set_xticks([layer + 0.5 for layer in layer_ticks(layers)], [str(layer) for layer in layer_ticks(layers)])
    axes.tick_params(axis="y", labelsize=min(9, 45 * height_of_rows(rows) / rows), length=2)
    axes.tick_params(axis="x", labelsize=8, length=2)
    if panel.kind == "head":
        axes.set_ylabel("head", fontsize=9)
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.set_xlabel(x_label, fontsize=9, parse_math=False)
    values = [value for row in panel.values for value in row if math.isfinite(value)] or [ends[0]]
    slack = 0.01 * (ends[1] - ends[0])
    below, above = min(values) < ends[0] - slack, max(values) > ends[1] + slack
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    height = height_of_rows(rows)
    bar = axes.figure.colorbar(mesh, ax=axes, extend=extend[below, above], aspect=10 * height, pad=0.02)
    bar.ax.yaxis.set_major_formatter("{x:.4g}")
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_linewidth(0.5)
    label = bar_label_of(picture)
    if len(label) > 15 * height:  # longer than the bar
        label = textwrap.fill(label, max(16, int(15 * height)), break_long_words=False)
    bar.set_label(label, fontsize=9, parse_math=False)


def draw_knockout(axes: Any, picture: Picture, knockout: Knockout) -> None:
    """Relative changes by layer, a line a group."""
    layers = len(next(iter(knockout.groups.values()))[1])
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    for name, (tokens, changes) in knockout.groups.items():
        colour, dashes, width = KNOCKOUT_LINES[name]
        label = f"from: {KNOCKOUT_NAMES[name]}" + (f" ({tokens} tokens)" if tokens > 1 else "")
        percent = [100 * change for change in changes]
        marker = "o" if layers == 1 else None
        axes.plot(percent, color=colour, linestyle=dashes, linewidth=width, label=label, marker=marker, markersize=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xticks(list(layer_ticks(layers)), [str(layer) for layer in layer_ticks(layers)])
    axes.tick_params(labelsize=8, length=2)
    axes.set_title("Attention to the last position cut", fontsize=10)
    x_label = f"center of interval of {knockout.window} layers within {picture.model}"
    axes.set_xlabel(x_label, fontsize=9, parse_math=False)
    axes.set_ylabel(f"change of p({picture.answer}), %", fontsize=9, parse_math=False)
    axes.margins(y=0.08)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.45, -0.27), ncols=2, fontsize=7.5, handlelength=3, frameon=False,
        columnspacing=1.2, borderaxespad=0,
    )  # fmt: skip


def height_of_rows(tokens: int) -> float:
    """Height of a panel in inches."""
    return min(24.0, max(1.3, 0.2 * tokens))


def height_of(item: Panel | Knockout) -> float:
    """Height of what is drawn side by side, in inches."""
    return 2.1 if isinstance(item, Knockout) else height_of_rows(len(item.values))


def rows_of(picture: Picture) -> list[list[Panel | Knockout]]:
    """What stands side by side: maps of tokens and the knockout, then maps of heads, which are of another height."""
    tokens: list[Panel | Knockout] = [panel for panel in picture.panels if panel.kind != "head"]
    heads: list[Panel | Knockout] = [panel for panel in picture.panels if panel.kind == "head"]
    (tokens if tokens or not heads else heads).extend([picture.knockout] if picture.knockout else [])
    rows = []
    for items in (tokens, heads):
        count = -(-len(items) // PANELS_IN_A_ROW)
        columns = -(-len(items) // count) if count else 0
        rows += [items[row * columns : (row + 1) * columns] for row in range(count)]
    return rows


def rows_of_all(picture: Picture) -> list[tuple[Picture, list[Panel | Knockout]]]:
    """Each row with the direction that it is of: below a row of one direction the same kinds in the next."""
    parts = [picture, *(other for other in picture.below if other.panels)]
    rows = [(part, row) for same in zip(*map(rows_of, parts)) for part, row in zip(parts, same)]
    return rows + [(other, row) for other in picture.below if not other.panels for row in rows_of(other)]


def ranges_of(
    picture: Picture, vmin: float | None, vmax: float | None, end: float | None
) -> dict[int, tuple[float, float]]:
    """Ends of each panel's colour scale by the panel's id(): the same for what is restored and what is corrupted."""
    ranges = {}
    pairs: dict[tuple[str, tuple[int, ...]], list[Panel]] = {}
    for part in (picture, *picture.below):
        for panel in part.panels:
            ranges[id(panel)] = colour_range(part, panel, *((None, end) if part.interaction else (vmin, vmax)))
            if not part.interaction:
                pairs.setdefault((panel.kind, tuple(panel.positions)), []).append(panel)
    for panels in pairs.values():
        lows, highs = zip(*(ranges[id(panel)] for panel in panels))
        ranges |= {id(panel): (min(lows), max(highs)) for panel in panels}
    return ranges


def make_figure(picture: Picture, vmin: float | None, vmax: float | None, end: float | None = None) -> Any:
    """The whole figure: the panels side by side, in several rows where they are many.

    end: of the interaction's scale, whose middle is 0.
    """
    from matplotlib.figure import Figure

    ranges = ranges_of(picture, vmin, vmax, end)
    rows = rows_of_all(picture)
    columns = max(len(row) for _, row in rows)
    heights = [max(map(height_of, row)) for _, row in rows]
    longest = min(LONGEST_LABEL, max(len(token) for token in picture.tokens))
    two_lines = [any(isinstance(item, Panel) and "\n" in describe(of, item)[0] for item in row) for of, row in rows]
    heading = [picture.caption] * picture.captioned + picture.remarks
    height = sum(heights) + 0.8 * len(rows) + 0.18 * sum(two_lines) + 0.18 * len(picture.remarks)
    figure = Figure(figsize=((4.2 + 0.06 * longest) * columns, height), layout="constrained")
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    for number, (part, row) in enumerate(rows):
        for column, item in enumerate(row):
            axes = figure.add_subplot(grid[number, column])
            if isinstance(item, Knockout):
                draw_knockout(axes, part, item)
            else:
                draw_panel(axes, part, item, ranges[id(item)])
    if heading:
        figure.suptitle("\n".join(heading), fontsize=9, parse_math=False)
    return figure


def picture_of(record: dict[str, Any], arguments: argparse.Namespace) -> Picture:
    """What the arguments ask for of a record."""
    return read_picture(
        record, arguments.kinds, arguments.effect, arguments.measure, arguments.heads_at, arguments.direction
    )


def showing(picture: Picture, showable: Callable[[str], str]) -> Picture:
    """The picture with texts that the fonts can show."""
    return replace(
        picture,
        tokens=[showable(token) for token in picture.tokens],
        answer=showable(picture.answer),
        foil=showable(picture.foil),
        model=showable(picture.model),
        caption=showable(picture.caption),
        remarks=[showable(remark) for remark in picture.remarks],
        below=[showing(other, showable) for other in picture.below],
    )


@contextlib.contextmanager
def drawn(picture: Picture, arguments: argparse.Namespace, caption: bool = False) -> Iterator[Any]:
    """The picture's figure, and the settings to save it with."""
    texts = [*picture.tokens, picture.answer, picture.model, picture.caption, picture.foil, *picture.remarks]
    with settings(texts) as showable:
        picture = replace(showing(picture, showable), captioned=caption)
        yield make_figure(picture, arguments.vmin, arguments.vmax, arguments.end)


def draw_one(arguments: argparse.Namespace) -> None:
    """Draws the chosen line into --output."""
    picture = picture_of(traced_record(choose(arguments)), arguments)
    with drawn(picture, arguments) as figure:
        save(figure, arguments.output, arguments.dpi)


# --- Many facts -------------------------------------------------------------------------------------------------


def draw_each(arguments: argparse.Namespace) -> int:
    """Draws every traced fact that is asked for; gives the exit status."""
    target: Path = arguments.each
    total = sum(1 for _ in traced_lines(arguments)) if arguments.input != "-" else None
    if total == 0:
        raise PlotError(
            f"{name_of(arguments.input)} has no traced fact{of_relation(arguments)}; there is nothing to draw"
        )
    if arguments.same_scale:
        share_scale(arguments)
    progress = Progress(program_name(), "facts drawn", total)
    with pages_in(target, arguments.dpi) if target.suffix.lower() == ".pdf" else files_in(target, arguments) as put:
        drawn_facts = failed = 0
        for line in traced_lines(arguments):
            try:
                picture = picture_of(traced_record(line), arguments)
                with drawn(picture, arguments, caption=True) as figure:
                    put(figure, line)
                drawn_facts += 1
            except WriteError:
                raise
            except UserError as error:
                failed += 1
                progress.note(str(error) if str(error).startswith(line.where) else f"{line.where}: {error}")
            progress.step()
        if not drawn_facts:
            raise PlotError(f"{name_of(arguments.input)}: no fact{of_relation(arguments)} was drawn")
    progress.finish(
        f"drew {drawn_facts} fact{'s' * (drawn_facts != 1)} into {target}"
        + (f"; {failed} could not be drawn" if failed else "")
    )
    return 1 if failed else 0


def of_relation(arguments: argparse.Namespace) -> str:
    return "" if arguments.relation is None else f' of relation "{one_line(arguments.relation)}"'


def share_scale(arguments: argparse.Namespace) -> None:
    """--same-scale: sets the ends of the scales that are not given to those of all the pictures' scales."""
    if arguments.input == "-":
        raise PlotError("--same-scale reads the input twice, which standard input cannot be; give a file")
    low, high, end = float("inf"), float("-inf"), 0.0
    progress = Progress(program_name(), "facts read for the common scale", None)
    for line in traced_lines(arguments):
        with contextlib.suppress(UserError):  # told when it is drawn
            picture = picture_of(traced_record(line), arguments)
            for part in (picture, *picture.below):
                ends = [colour_range(part, panel, None, None) for panel in part.panels]
                if part.interaction:
                    end = max([end, *(last for _, last in ends)])
                else:
                    low = min([low, *(first for first, _ in ends)])
                    high = max([high, *(last for _, last in ends)])
        progress.step()
    if low <= high:
        arguments.vmin = low if arguments.vmin is None else arguments.vmin
        arguments.vmax = max(high, arguments.vmin + 1e-9) if arguments.vmax is None else arguments.vmax
    if end and arguments.end is None:
        arguments.end = end


@contextlib.contextmanager
def files_in(folder: Path, arguments: argparse.Namespace) -> Iterator[Any]:
    """A function that writes a figure into a file of its own."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise PlotError(f"{folder}: the folder cannot be made ({error.strerror})") from None
    used: set[str] = set()

    def put(figure: Any, line: Line) -> None:
        name = file_name_of(line.record, line.id)
        while name in used:
            name += "-again"
        used.add(name)
        save(figure, folder / f"{name}.{arguments.format}", arguments.dpi)

    yield put


def file_name_of(record: int, fact_id: str) -> str:
    """A name for the fact's picture that is safe on every system and sorts by record."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", fact_id).strip("-.")[:80]
    return f"{record:05d}-{safe}" if safe and safe != str(record) else f"{record:05d}"


@contextlib.contextmanager
def pages_in(output: Path, dpi: int) -> Iterator[Any]:
    """A function that writes a figure as a page of one PDF."""
    check_output(output)
    with settings([]):
        from matplotlib.backends.backend_pdf import PdfPages
    with replacing(output) as part, PdfPages(part) as pages:
        yield lambda figure, line: pages.savefig(figure, dpi=dpi)


# --- The program ------------------------------------------------------------------------------------------------


def heads_at_of(text: str) -> list[int | str]:
    """`--heads-at` as a list."""
    places = text.split(",")
    unknown = [place for place in places if not place.isdecimal() and place not in ("subject-last", "last", "all")]
    if unknown or ("all" in places and len(places) > 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not all, or a list of subject-last, last and numbers from 0")
    return [int(place) if place.isdecimal() else place for place in places]


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog=program_name(), description="Draws traces that rometrace wrote as heat maps.")
    parser.add_argument(
        "input", nargs="?", default="-", help="file with one record, or a batch's results (default: standard input)"
    )
    add_output(parser, required=False)
    parser.add_argument(
        "--kinds",
        type=lambda text: kinds_among(text, (*COLOURS, "knockout")),
        help="panels to draw, such as state,mlp,knockout (default: all there are)",
    )
    parser.add_argument(
        "--measure",
        choices=("probability", *MEASURES),
        metavar="NAME",
        help=f"draw another measure than the probability: {', '.join(MEASURES)}",
    )
    parser.add_argument(
        "--heads-at",
        type=heads_at_of,
        metavar="LIST",
        help="positions whose heads are drawn: subject-last, last, numbers from 0, or all (default: all of up to "
        f"{FEW_POSITIONS}, else the one with the largest effect)",
    )
    parser.add_argument(
        "--direction",
        choices=DIRECTIONS,
        metavar="NAME",
        help=f"of a record of both directions draw one alone: {', '.join(DIRECTIONS)} (default: all there are)",
    )
    parser.add_argument(
        "--effect",
        action="store_true",
        help="draw score - low_score, from 0, instead of the score (with noising always: high_score - score; of "
        "both directions always)",
    )
    parser.add_argument("--vmin", type=number_of, help="start of the colour scale (default: low_score, of effects 0)")
    parser.add_argument(
        "--vmax",
        type=number_of,
        help="end of the colour scale (default: each panel's largest value); of the interaction alone its end on both "
        "sides of 0",
    )
    many = parser.add_argument_group("of many facts")
    choice = many.add_mutually_exclusive_group()
    choice.add_argument("--id", help="draw the fact of this id")
    choice.add_argument(
        "--record",
        type=positive,
        help="draw the fact of this number in its facts file (its place in the input if it has none)",
    )
    choice.add_argument(
        "--each", type=Path, metavar="FOLDER", help="draw each traced fact into a folder, or into pages of a .pdf"
    )
    many.add_argument("--format", choices=FORMATS, help="of the pictures of --each FOLDER (default: png)")
    many.add_argument("--relation", help="only facts of this relation, with --each")
    many.add_argument("--limit", type=positive, help="only the first facts, with --each")
    many.add_argument("--same-scale", action="store_true", help="one colour scale for all of --each")
    arguments = parser.parse_args()
    check_arguments(parser, arguments)
    arguments.format = arguments.format or "png"
    arguments.end = arguments.vmax if arguments.direction == "interaction" else None
    return arguments


def check_arguments(parser: Parser, arguments: argparse.Namespace) -> None:
    """Refuses options that would have no effect."""
    if arguments.direction == "interaction" and arguments.vmin is not None:
        parser.error("--vmin is not for --direction interaction, whose scale has 0 in its middle; give --vmax")
    if arguments.direction == "interaction" and arguments.effect:
        parser.error("--effect is not for --direction interaction, which is a difference of effects")
    if arguments.each is None:
        only_each = ("format", "relation", "limit", "same_scale")
        given = [name for name in only_each if getattr(arguments, name)]
        if given:
            parser.error(f"--{given[0].replace('_', '-')} needs --each FOLDER")
        if arguments.output is None:
            parser.error("the following arguments are required: -o/--output (or --each)")
    elif arguments.output is not None:
        parser.error("-o draws one fact, --each all; give one of them")
    elif arguments.format and arguments.each.suffix.lower() == ".pdf":
        parser.error("--format is for --each FOLDER, not for pages of a PDF")


def draw(arguments: argparse.Namespace) -> int:
    """Draws what is asked for; gives the exit status."""
    if arguments.each is not None:
        return draw_each(arguments)
    check_output(arguments.output)
    draw_one(arguments)
    return 0


def main() -> int:
    find_matplotlib()
    arguments = parse_arguments()
    return finish(program_name(), lambda: draw(arguments))
