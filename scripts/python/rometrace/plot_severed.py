"""Draws what severing takes from a state's effect as the paper's bars (arXiv 2202.05262, figure 3), layer by layer.

    rometrace --prompt "Miles Davis plays the" --subject "Miles Davis" --sever none,mlp,attn |
        scripts/plot_severed.py -o miles.png
    scripts/plot_severed.py results.jsonl --id plays_instrument/miles-davis --position last -o miles.pdf
    rometrace summary results.jsonl --json | scripts/plot_severed.py -o severed.pdf

Purple: indirect effect of a single state at the last subject token; red: the same with the attention's outputs at that
token frozen at their unpatched values; green: with the MLP's. Of a trace one fact's effects, of a summary the averages
over facts, with their 95 % intervals.

Exit status: 0 drawn; 2 could not draw (one line on stderr says why). Needs matplotlib.
"""

from __future__ import annotations

import argparse
import io
import sys
import textwrap
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Iterator

from rometrace.plotting import (
    PlotError,
    add_output,
    check_output,
    find_matplotlib,
    layer_ticks,
    number_of,
    save,
    settings,
    width_of,
)
from rometrace.results_file import (
    Line,
    Parser,
    choose,
    finish,
    is_noising,
    lines_of,
    model_name,
    one_line,
    positions_of,
    positive,
    printable,
    program_name,
    read_grid,
    remarks_on,
    run_of,
    shorten,
    token_text,
    traced_record,
)
from rometrace.summary_file import (
    BANDS,
    CAVEAT,
    ROLES,
    Role,
    find_group,
    is_summary,
    parse_summary,
    read_role,
    remarks_on_summary,
)

DEFAULT_ROLE = "last_subject"
HOW = "trace it with rometrace --kinds state --sever mlp,attn"

BARS = {
    "state": ("Effect of single state", "#4a2c82", ""),
    "state_attn_severed": ("Effect with Attn severed", "#f4a582", "////"),
    "state_mlp_severed": ("Effect with MLP severed", "#1b9e77", "...."),
}
"""Name, colour and hatch of a kind's bars; hatches, and lightness where bars are too narrow for them, tell in grey."""


@dataclass(frozen=True)
class Picture:
    """What is drawn."""

    title: str
    model: str
    y_label: str
    bars: dict[str, Role]
    """By kind: effects by layer, with intervals of averages."""
    remarks: list[str] = field(default_factory=list)


# --- Reading ----------------------------------------------------------------------------------------------------


def read_input(arguments: argparse.Namespace) -> Picture:
    """What the input holds: a summary's averages, or the chosen trace."""
    source: str = arguments.input
    if source == "-" and sys.stdin.isatty():
        raise PlotError("no input: give a file, or pipe rometrace into this program")
    where = "standard input" if source == "-" else source
    try:
        with io.BytesIO(sys.stdin.buffer.read()) if source == "-" else open(source, "rb") as stream:
            if is_summary(stream):
                return of_summary(parse_summary(where, stream.read()), arguments)
            return of_trace(chosen_trace(stream, where, arguments), arguments)
    except OSError as error:
        raise PlotError(
            f"{source}: cannot be read ({error.strerror}); expected what rometrace or rometrace summary wrote"
        ) from None


def chosen_trace(stream: BinaryIO, where: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The trace that --id or --record names, or the only one."""
    if arguments.group is not None:
        raise PlotError(f"{where} holds traces, which have no groups; --group is for a summary")

    def records() -> Iterator[Line]:
        return (line for line in lines_of(where, stream, note, lambda data: None) if line.place)

    otherwise = ", or draw the average: pipe rometrace summary into this program"
    return traced_record(choose(records(), where, arguments.id, arguments.record, otherwise))


def note(message: str) -> None:
    """A message on stderr."""
    print(f"{program_name()}: {message}", file=sys.stderr)


def kinds_in(present: Any, what: str) -> list[str]:
    """The kinds that have bars. Raises PlotError unless the plain state and a severed one are there."""
    kinds = [kind for kind in BARS if kind in present]
    if not any(kind != "state" for kind in kinds):
        raise PlotError(f"{what} has no severed states, only {', '.join(map(one_line, present)) or 'no kind'}; {HOW}")
    if "state" not in kinds:
        raise PlotError(f"{what} has severed states but no plain ones to compare them with; {HOW}")
    return kinds


def of_trace(record: dict[str, Any], arguments: argparse.Namespace) -> Picture:
    """One fact's effects at a position."""
    try:
        grids = record.get("grids") or {}
        kinds = kinds_in(grids, "the record")
        tokens, layers = len(record["tokens"]), int(record["model"]["layers"])
        position = position_in(record, arguments)
        run = run_of(record)
        bars = {}
        for kind in kinds:
            positions = positions_of(kind, grids[kind], tokens)
            shape = len(positions), layers
            effects = read_grid(f"{kind} indirect_effect", grids[kind]["indirect_effect"], shape)
            if position not in positions:
                known = shorten(", ".join(map(str, positions)), 60)
                raise PlotError(f"{kind} has no row for position {position}, only for {known}; see --position")
            bars[kind] = Role(1, effects[positions.index(position)], None, None)
        token = shorten(token_text(record["tokens"][position], record["token_bytes"][position]), 24)
        answer = shorten(token_text(record["answer"], record["answer_bytes"]), 24)
        prompt = shorten(printable(str(record["prompt"])), 60)
        return Picture(
            title=f"Effect of states at “{token}” (token {position})\non p({answer}) after “{prompt}”",
            model=model_name(record["model"], 24),
            y_label="Probability lost" if is_noising(run) else "Indirect effect",
            bars=bars,
            remarks=remarks_on(run, record.get("counter"), record["model"]),
        )
    except KeyError as error:
        raise PlotError(f"the record lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise PlotError(f"the record has a field of another type than expected ({one_line(error)})") from None


def position_in(record: dict[str, Any], arguments: argparse.Namespace) -> int:
    """The position that --position or --role asks for; without them the last subject token's."""
    tokens = len(record["tokens"])
    begin, end = (int(position) for position in record["subject_range"])
    if arguments.position is not None:
        position = {"subject-last": end - 1, "last": tokens - 1}.get(arguments.position, arguments.position)
        if not 0 <= int(position) < tokens:
            raise PlotError(f"--position is {position}, expected 0 to {tokens - 1}: the prompt has {tokens} tokens")
        return int(position)
    if arguments.role is None:
        return end - 1
    found = [position for position in range(tokens) if role_of(position, begin, end, tokens) == arguments.role]
    if len(found) != 1:
        told = f"positions {', '.join(map(str, found[:8]))}" if found else "no token"
        raise PlotError(f"the role {arguments.role} has {told} in this prompt, expected one; choose with --position")
    return found[0]


def role_of(position: int, begin: int, end: int, tokens: int) -> str | None:
    """A token's role, by the rule of rometrace summary; None before the subject."""
    if position < begin:
        return None
    first_that_fits = {
        "last": position == tokens - 1,
        "last_subject": position == end - 1,
        "first_subject": position == begin,
        "middle_subject": position < end,
        "first_subsequent": position == end,
        "further": True,
    }
    return next(role for role, fits in first_that_fits.items() if fits)


def of_summary(summary: dict[str, Any], arguments: argparse.Namespace) -> Picture:
    """Averages over facts at a role's tokens."""
    given = [name for name in ("position", "id", "record") if getattr(arguments, name) is not None]
    if given:
        raise PlotError(f"a summary has averages over facts, by role; --{given[0]} is for a trace, see --role")
    try:
        averages = find_group(summary, arguments.group)
        role, layers = arguments.role or DEFAULT_ROLE, int(summary["model"]["layers"])
        bars = {
            kind: read_role(f"{kind} {role}", averages["kinds"][kind]["roles"][role], layers, arguments.band)
            for kind in kinds_in(averages["kinds"], "the summary")
        }
        facts = bars["state"].facts
        if any(average.aie is None for average in bars.values()):
            raise PlotError(f"no fact has a token of the role {role}; choose another with --role")
        intervals = all(average.low is not None for average in bars.values())
        group = f"\n{shorten(printable(arguments.group), 60)}" if arguments.group else ""
        effect = "probability lost" if is_noising(run_of(summary)) else "indirect effect"
        remarks = remarks_on_summary(summary)
        return Picture(
            title=f"Avg effect of states at the {ROLES[role].lower()} over {facts} prompt{'s' * (facts != 1)}{group}",
            model=model_name(summary["model"], 24),
            y_label=f"Average {effect}" + (f"\n(95 % over facts, {arguments.band})" if intervals else ""),
            bars=bars,
            remarks=remarks,
        )
    except KeyError as error:
        raise PlotError(f"the summary lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PlotError(f"the summary has a field of another type than expected ({one_line(error)})") from None


# --- Drawing ----------------------------------------------------------------------------------------------------


def make_figure(picture: Picture, arguments: argparse.Namespace) -> Any:
    """Bars in groups, a group a layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(arguments.width, 2.9 + 0.13 * len(picture.remarks)), layout="constrained")
    axes = figure.subplots()
    layers = len(picture.bars["state"].aie or [])
    width = 0.84 / len(picture.bars)
    axes.axhline(0, color="#666666", linewidth=0.5)
    for place, (kind, averages) in enumerate(picture.bars.items()):
        name, colour, hatch = BARS[kind]
        heights = averages.aie or []
        middles = [layer + (place - (len(picture.bars) - 1) / 2) * width for layer in range(layers)]
        hatch = hatch if layers * len(picture.bars) <= 10 * arguments.width else ""  # narrower than 5 points
        axes.bar(middles, heights, width, color=colour, label=name, hatch=hatch, edgecolor="white", linewidth=0)
        if averages.low is not None and averages.high is not None:
            reach = [
                [max(0.0, height - low) for height, low in zip(heights, averages.low)],
                [max(0.0, high - height) for height, high in zip(heights, averages.high)],
            ]
            line = max(0.4, min(0.8, 20 * width / layers))
            axes.errorbar(middles, heights, reach, fmt="none", ecolor="#222222", elinewidth=line, capsize=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    ticks = layer_ticks(layers)
    axes.set_xticks(list(ticks), [str(layer) for layer in ticks])
    axes.set_xlim(-0.6, layers - 0.4)
    axes.tick_params(labelsize=7, length=2)
    set_ends(axes, arguments)
    title = "\n".join(textwrap.fill(line, int(13 * arguments.width)) for line in picture.title.split("\n"))
    axes.set_title(title, fontsize=8, parse_math=False)
    axes.set_xlabel(f"Layer of the single patched state in {picture.model}", fontsize=8, parse_math=False)
    axes.set_ylabel(picture.y_label, fontsize=8)
    legend = figure.legend(
        loc="outside lower center", ncols=3 if arguments.width >= 4.5 else 1, fontsize=7, frameon=False,
        borderaxespad=0.2, columnspacing=1.2,
    )  # fmt: skip
    legend.set_title(CAVEAT, prop={"size": 5.5})
    if picture.remarks:
        figure.suptitle("\n".join(picture.remarks), fontsize=7, parse_math=False)
    return figure


def set_ends(axes: Any, arguments: argparse.Namespace) -> None:
    """--vmin and --vmax of the y axis."""
    low, high = axes.get_ylim()
    low = low if arguments.vmin is None else arguments.vmin
    high = high if arguments.vmax is None else arguments.vmax
    if low >= high:
        raise PlotError(f"the axis would begin at {low:.4g} and end at {high:.4g}; see --vmin and --vmax")
    axes.set_ylim(low, high)


# --- The program ------------------------------------------------------------------------------------------------


def position_of(text: str) -> int | str:
    """`--position`."""
    if text in ("subject-last", "last"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not subject-last, last or a number from 0")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = Parser(
        prog=program_name(), description="Draws a state's effect, plain and with the MLP or attention severed."
    )
    parser.add_argument(
        "input", nargs="?", default="-", help="a trace, a batch's results or a summary (default: standard input)"
    )
    add_output(parser)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--role", choices=tuple(ROLES), help="token role of the state (default: last_subject)")
    place.add_argument(
        "--position", type=position_of, metavar="N", help="of a trace: subject-last, last or a number from 0"
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--id", help="of a batch's results: the fact of this id")
    choice.add_argument("--record", type=positive, help="of a batch's results: the fact of this number")
    parser.add_argument("--group", metavar="BY=NAME", help='of a summary: a group of it, such as "relation=P30"')
    parser.add_argument("--band", choices=BANDS, default="bootstrap", help="of a summary (default: %(default)s)")
    parser.add_argument("--vmin", type=number_of, help="start of the y axis")
    parser.add_argument("--vmax", type=number_of, help="end of the y axis")
    parser.add_argument("--width", type=width_of, default=5.5, help="inches (default: %(default)s)")
    return parser.parse_args()


def draw(arguments: argparse.Namespace) -> int:
    """Draws the input; gives the exit status."""
    check_output(arguments.output)
    picture = read_input(arguments)
    with settings([picture.title.replace("\n", " "), picture.model, *picture.remarks]) as showable:
        title = "\n".join(map(showable, picture.title.split("\n")))
        remarks = [showable(remark) for remark in picture.remarks]
        picture = replace(picture, title=title, model=showable(picture.model), remarks=remarks)
        save(make_figure(picture, arguments), arguments.output, arguments.dpi)
    return 0


def main() -> int:
    find_matplotlib()
    arguments = parse_arguments()
    return finish(program_name(), lambda: draw(arguments))
