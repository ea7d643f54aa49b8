#!/usr/bin/env python3
"""Draws traces as the paper's heat maps (arXiv 2202.05262, figure 1): tokens down, layers across.

    rometrace --prompt "Miles Davis plays the" --subject "Miles Davis" | scripts/plot_trace.py -o miles.png
    scripts/plot_trace.py results.jsonl --id plays_instrument/miles-davis -o miles.pdf
    scripts/plot_trace.py results.jsonl --each pictures --relation plays_instrument --limit 20
    scripts/plot_trace.py results.jsonl --each pages.pdf --same-scale

Purple: states, green: MLP, red: attention; one panel for each kind in the record. Corrupted tokens carry a star. The
colour scale runs from low_score, the probability with nothing restored, to the panel's largest score.

Exit status: 0 drawn; 1 drawn, but some of --each could not be; 2 could not draw (one line on stderr says why). Needs
matplotlib.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator, Sequence

from plotting import (
    COLOURS,
    FORMATS,
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
    Line,
    Parser,
    Progress,
    UserError,
    WriteError,
    base_name,
    one_line,
    positive,
    printable,
    read_grid,
    read_lines,
    replacing,
    shorten,
    token_text,
)

PROGRAM = "plot_trace.py"
NAMES = {"state": "state", "mlp": "MLP", "attn": "attention"}
LONGEST_LABEL = 24  # characters


@dataclass(frozen=True)
class Panel:
    """One kind's heat map."""

    kind: str
    window: int
    """Layers restored together."""
    values: list[list[float]]
    """[T][L], probabilities, or differences of probabilities with --effect."""


@dataclass(frozen=True)
class Picture:
    """What the record says, as far as it is drawn."""

    tokens: list[str]
    """[T] labels, without fonts or stars in mind."""
    subject_range: tuple[int, int]
    answer: str
    model: str
    low: float
    """Start of the colour scale: low_score, or 0 with --effect."""
    least_span: float
    """A hundredth of low_score: a scale shorter than that would show rounding as if it were an effect."""
    panels: list[Panel]
    caption: str = ""
    """Which fact it is, for a page among others."""


# --- Choosing and reading ---------------------------------------------------------------------------------------


def choose(arguments: argparse.Namespace) -> Line:
    """The one line of the input that is to be drawn."""
    given = [
        f"{name} {value}"
        for name, value in (("--id", arguments.id), ("--record", arguments.record))
        if value is not None
    ]
    records = traced = matches = 0
    chosen: Line | None = None
    for line in lines_of_records(arguments.input):
        records += 1
        if given and not is_chosen(line, arguments):
            continue
        matches += 1
        traced += line.status == "traced"
        if chosen is None or (chosen.status != "traced" and line.status == "traced"):
            chosen = line
    where = name_of(arguments.input)
    if given and chosen is None:
        raise PlotError(f"{where} has no {given[0]} among its {records} records")
    if chosen is None:
        raise PlotError(f"{where} holds no records, only a header")
    if traced > 1 and given:
        raise PlotError(
            f"{where} holds {traced} traces of {given[0]}; choose one with --record, such as {chosen.record}"
        )
    if traced > 1:
        raise PlotError(
            f"{where} holds {records} records, expected one; choose it with --id or --record, or draw each with "
            "--each FOLDER"
        )
    if traced == 0 and matches > 1:
        raise PlotError(f"{where} holds {matches} records, none of them traced; there is nothing to draw")
    return chosen


def lines_of_records(source: str) -> Iterator[Line]:
    """The input's lines without the header."""
    return (line for line in read_lines(source, note) if line.place)


def is_chosen(line: Line, arguments: argparse.Namespace) -> bool:
    """Whether --id or --record names the line."""
    return line.id == arguments.id if arguments.id is not None else line.record == arguments.record


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
    print(f"{PROGRAM}: {message}", file=sys.stderr)


def read_record(line: Line) -> dict[str, Any]:
    """The line's record, if it is a traced one."""
    record = line.value
    if record.get("status") in ("skipped", "failed"):
        reason = one_line(record.get("reason", "no reason given"), 200)
        raise PlotError(f"{line.where} is the record of a {record['status']} fact ({reason}); there is nothing to draw")
    if not isinstance(record.get("grids"), dict) or not record["grids"]:
        raise PlotError(f'{line.where} has no "grids", expected at least one of {", ".join(COLOURS)}')
    return record


def read_picture(record: dict[str, Any], kinds: Sequence[str] | None, effect: bool) -> Picture:
    """Takes from a record what is drawn. Raises PlotError for a field that is missing or of another shape."""
    grids = record["grids"]
    chosen = [kind for kind in COLOURS if kind in (kinds or grids)]
    missing = [kind for kind in chosen if kind not in grids]
    if missing or not chosen:
        raise PlotError(f"the record has no grid of {', '.join(missing) or 'a known kind'}, only {', '.join(grids)}")
    try:
        tokens = [label_of(*token) for token in zip(record["tokens"], record["token_bytes"], strict=True)]
        shape = len(record["tokens"]), int(record["model"]["layers"])
        field = "indirect_effect" if effect else "scores"
        begin, end = (int(position) for position in record["subject_range"])
        return Picture(
            tokens=tokens,
            subject_range=(begin, end),
            answer=label_of(record["answer"], record["answer_bytes"]),
            model=shorten(base_name(record["model"]["name"]), LONGEST_LABEL),
            caption=caption_of(record),
            low=0.0 if effect else float(record["low_score"]),
            least_span=max(1e-9, 0.01 * float(record["low_score"])),
            panels=[
                Panel(kind, int(grids[kind]["window"]), read_grid(f"{kind} {field}", grids[kind][field], shape))
                for kind in chosen
            ],
        )
    except KeyError as error:
        raise PlotError(f"the record lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise PlotError(f"the record has a field of another type than expected ({error})") from None


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
    low = picture.low if vmin is None else vmin
    high = max(max(row) for row in panel.values) if vmax is None else vmax
    if vmax is None:
        return low, max(high, low + picture.least_span)
    if low >= high:
        raise PlotError(f"the colour scale would begin at {low:g} and end at {high:g}; see --vmin and --vmax")
    return low, high


def describe(panel: Panel, model: str) -> tuple[str, str]:
    """Title and x label of a panel, in the paper's words."""
    title = f"Impact of restoring {NAMES[panel.kind]} after corrupted input"
    if panel.kind == "state":
        return title, f"single restored layer within {model}"
    return title, f"center of interval of {panel.window} restored {NAMES[panel.kind]} layers within {model}"


def draw_panel(axes: Any, picture: Picture, panel: Panel, ends: tuple[float, float], effect: bool) -> None:
    """One heat map with its labels and colour bar."""
    begin, end = picture.subject_range
    tokens, layers = len(panel.values), len(panel.values[0])
    labels = [f"{token}*" if begin <= t < end else token for t, token in enumerate(picture.tokens)]
    title, x_label = describe(panel, picture.model)
    mesh = axes.pcolormesh(panel.values, cmap=COLOURS[panel.kind], vmin=ends[0], vmax=ends[1])
    axes.invert_yaxis()
    axes.set_yticks([t + 0.5 for t in range(tokens)], labels, parse_math=False)
    axes.set_xticks([layer + 0.5 for layer in layer_ticks(layers)], [str(layer) for layer in layer_ticks(layers)])
    axes.tick_params(axis="y", labelsize=min(9, 45 * height_of_rows(tokens) / tokens), length=2)
    axes.tick_params(axis="x", labelsize=8, length=2)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label, fontsize=9, parse_math=False)
    values = [value for row in panel.values for value in row]
    slack = 0.01 * (ends[1] - ends[0])
    below, above = min(values) < ends[0] - slack, max(values) > ends[1] + slack
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    bar = axes.figure.colorbar(mesh, ax=axes, extend=extend[below, above], aspect=10 * height_of_rows(tokens), pad=0.02)
    bar.ax.yaxis.set_major_formatter("{x:.4g}")
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_linewidth(0.5)
    name = f"p({picture.answer})"
    bar.set_label(f"change of {name}" if effect else name, fontsize=9, parse_math=False)


def height_of_rows(tokens: int) -> float:
    """Height of a panel in inches."""
    return min(24.0, max(1.3, 0.2 * tokens))


def size_of(picture: Picture) -> tuple[float, float]:
    """Width and height of the figure in inches."""
    longest = max(len(token) for token in picture.tokens)
    width = (4.2 + 0.06 * min(longest, LONGEST_LABEL)) * len(picture.panels)
    return width, 0.8 + height_of_rows(len(picture.tokens))


def make_figure(picture: Picture, vmin: float | None, vmax: float | None, effect: bool) -> Any:
    """The whole figure: the panels side by side."""
    from matplotlib.figure import Figure

    ranges = [colour_range(picture, panel, vmin, vmax) for panel in picture.panels]
    figure = Figure(figsize=size_of(picture), layout="constrained")
    for axes, panel, ends in zip(figure.subplots(1, len(ranges), squeeze=False)[0], picture.panels, ranges):
        draw_panel(axes, picture, panel, ends, effect)
    return figure


@contextlib.contextmanager
def drawn(picture: Picture, arguments: argparse.Namespace, caption: bool = False) -> Iterator[Any]:
    """The picture's figure, and the settings to save it with."""
    with settings([*picture.tokens, picture.answer, picture.model, picture.caption]) as showable:
        picture = replace(
            picture,
            tokens=[showable(token) for token in picture.tokens],
            answer=showable(picture.answer),
            model=showable(picture.model),
        )
        figure = make_figure(picture, arguments.vmin, arguments.vmax, arguments.effect)
        if caption:
            figure.suptitle(showable(picture.caption), fontsize=9, parse_math=False)
        yield figure


def draw_one(arguments: argparse.Namespace) -> None:
    """Draws the chosen line into --output."""
    picture = read_picture(read_record(choose(arguments)), arguments.kinds, arguments.effect)
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
    progress = Progress(PROGRAM, "facts drawn", total)
    with pages_in(target, arguments.dpi) if target.suffix.lower() == ".pdf" else files_in(target, arguments) as put:
        drawn_facts = failed = 0
        for line in traced_lines(arguments):
            try:
                picture = read_picture(read_record(line), arguments.kinds, arguments.effect)
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
    """--same-scale: sets --vmin and --vmax, where they are not given, to the ends of all the pictures' scales."""
    if arguments.input == "-":
        raise PlotError("--same-scale reads the input twice, which standard input cannot be; give a file")
    low, high = float("inf"), float("-inf")
    progress = Progress(PROGRAM, "facts read for the common scale", None)
    for line in traced_lines(arguments):
        with contextlib.suppress(UserError):  # told when it is drawn
            picture = read_picture(read_record(line), arguments.kinds, arguments.effect)
            low = min(low, picture.low)
            high = max(high, *(value for panel in picture.panels for row in panel.values for value in row))
        progress.step()
    if low <= high:
        arguments.vmin = low if arguments.vmin is None else arguments.vmin
        arguments.vmax = max(high, arguments.vmin + 1e-9) if arguments.vmax is None else arguments.vmax


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


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog=PROGRAM, description="Draws traces that rometrace wrote as heat maps.")
    parser.add_argument(
        "input", nargs="?", default="-", help="file with one record, or a batch's results (default: standard input)"
    )
    parser.add_argument("-o", "--output", type=Path, help="picture to write: .png, .pdf or .svg")
    parser.add_argument("--kinds", type=kinds_of, help="panels to draw, such as state,mlp (default: all there are)")
    parser.add_argument("--effect", action="store_true", help="draw score - low_score, from 0, instead of the score")
    parser.add_argument("--vmin", type=number_of, help="start of the colour scale (default: low_score)")
    parser.add_argument("--vmax", type=number_of, help="end of the colour scale (default: each panel's largest value)")
    parser.add_argument("--dpi", type=dpi_of, default=200, help="dots per inch of a PNG (default: %(default)s)")
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
    return arguments


def check_arguments(parser: Parser, arguments: argparse.Namespace) -> None:
    """Refuses options that would have no effect."""
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


def main() -> int:
    find_matplotlib()
    arguments = parse_arguments()
    try:
        if arguments.each is not None:
            return draw_each(arguments)
        check_output(arguments.output)
        draw_one(arguments)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
