#!/usr/bin/env python3
"""Draws a trace as the paper's heat maps (arXiv 2202.05262, figure 1): tokens down, layers across.

    rometrace --prompt "Miles Davis plays the" --subject "Miles Davis" | scripts/plot_trace.py -o miles.png

Purple: states, green: MLP, red: attention; one panel for each kind in the record. Corrupted tokens carry a star. The
colour scale runs from low_score, the probability with nothing restored, to the panel's largest score.

Exit status: 0 drawn; 2 could not draw (one line on stderr says why). Needs matplotlib.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import sys
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Sequence

SCHEMA = "rometrace/trace/1"
FORMATS = ("png", "pdf", "svg")
COLOURS = {"state": "Purples", "mlp": "Greens", "attn": "Reds"}
NAMES = {"state": "state", "mlp": "MLP", "attn": "attention"}
LONGEST_LABEL = 24  # characters


class PlotError(Exception):
    """What was found, what was expected, what to do; in one line."""


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


# --- Reading ----------------------------------------------------------------------------------------------------


def read_record(source: str) -> dict[str, Any]:
    """The one record in the file `source`, or in standard input for "-"."""
    if source == "-" and sys.stdin.isatty():
        raise PlotError("no input: give a file, or pipe rometrace into this program")
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise PlotError(f"{source}: cannot be read ({error.strerror}); expected a file that rometrace wrote") from None
    where = "standard input" if source == "-" else source
    if not data.strip():
        hint = "; did rometrace fail? Its message is above" if source == "-" else ""
        raise PlotError(f"{where} is empty, expected a JSON record{hint}")
    return check_record(where, parse_json(where, data))


def parse_json(where: str, data: bytes) -> Any:
    """The JSON value that `data` is."""
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        lines = [line for line in data.splitlines() if line.strip()]
        if len(lines) > 1 and all(line.lstrip().startswith(b"{") for line in lines):
            raise PlotError(f"{where} holds {len(lines)} records, expected one; choose a line of it") from None
        reason = str(error).replace("\n", " ")
        raise PlotError(f"{where} is not JSON ({reason}), expected a record that rometrace wrote") from None


def check_record(where: str, record: Any) -> dict[str, Any]:
    """`record`, if it is a traced one of the schema that this program knows."""
    if not isinstance(record, dict) or "schema" not in record:
        raise PlotError(f'{where} is JSON without "schema", expected a record of "{SCHEMA}"')
    if record["schema"] != SCHEMA:
        raise PlotError(f'{where} is of schema {json.dumps(record["schema"])}, this program draws "{SCHEMA}"')
    if record.get("status") == "skipped":
        reason = printable(str(record.get("reason", "no reason given")))
        raise PlotError(f"{where} is the record of a skipped fact ({reason}); there is nothing to draw")
    if not isinstance(record.get("grids"), dict) or not record["grids"]:
        raise PlotError(f'{where} has no "grids", expected at least one of {", ".join(COLOURS)}')
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
            model=shorten(printable(Path(str(record["model"]["name"])).name)),
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


def read_grid(name: str, grid: Any, shape: tuple[int, int]) -> list[list[float]]:
    """`grid` as [T][L] finite numbers."""
    rows = [[float(value) for value in row] for row in grid]
    if 0 in shape or len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
        raise PlotError(f"{name} is not {shape[0]} tokens by {shape[1]} layers")
    if not all(abs(value) <= 1.001 for row in rows for value in row):
        raise PlotError(f"{name} holds a number that is no probability")
    return rows


# --- Labels -----------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """`text` with control, format and unassigned characters escaped, so that each token stays on its line."""
    escapes = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}

    def show(character: str) -> str:
        if unicodedata.category(character)[0] not in "CZ" or character == " ":
            return character
        return escapes.get(character) or escape(character)

    return "".join(show(character) for character in text)


def escape(character: str) -> str:
    """A character that cannot be shown, as the Unicode standard names it."""
    return f"U+{ord(character):04X}"


def label_of(text: str, token_bytes: str) -> str:
    """A token as it is shown: without its leading space; raw bytes where it is not UTF-8 on its own."""
    raw = bytes.fromhex(token_bytes)
    if "\ufffd" in text and "\ufffd".encode() not in raw:
        text = raw.decode("utf-8", errors="backslashreplace")
    stripped = text[1:] if text.startswith(" ") and text.strip(" ") else text
    return shorten(printable(stripped.replace(" ", "␣") if not stripped.strip(" ") else stripped))


def shorten(text: str) -> str:
    """At most LONGEST_LABEL characters."""
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


def choose_fonts(texts: Sequence[str]) -> tuple[list[str], Callable[[str], str]]:
    """Font families that together show `texts`, and a function that escapes what no installed font has."""
    from matplotlib import font_manager, ft2font

    def characters_of(path: str, index: int = 0) -> set[int]:
        try:
            return set(ft2font.FT2Font(path, face_index=index).get_charmap())
        except TypeError:  # matplotlib before 3.11 reads a collection's first face only
            return set(ft2font.FT2Font(path).get_charmap())
        except (OSError, RuntimeError):
            return set()

    families = ["DejaVu Sans"]  # comes with matplotlib
    missing = {ord(character) for text in texts for character in text}
    missing -= characters_of(font_manager.findfont("DejaVu Sans"))
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: (font.weight != 400, font.name)):
        if not missing:
            break
        if font.name.startswith("Last Resort"):
            continue  # it has a box for every character
        found = missing & characters_of(font.fname, getattr(font, "index", 0))
        if found:
            families.append(font.name)
            missing -= found
    return families, lambda text: "".join(escape(c) if ord(c) in missing else c for c in text)


# --- Drawing ----------------------------------------------------------------------------------------------------


def layer_ticks(layers: int) -> range:
    """Layers that get a number: each, or every 2nd, 5th, ... so that at most 13 stand."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, layers) if layers <= 13 * step or step == layers)
    return range(0, layers, step)


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


def find_matplotlib() -> None:
    """Goes on in the virtual environment that scripts/rometrace made, if that has matplotlib and this Python does not."""
    if importlib.util.find_spec("matplotlib"):
        return
    prepared = Path(__file__).resolve().parent.parent / ".venv/bin/python"
    if prepared.exists() and Path(sys.prefix) != prepared.parent.parent:
        os.execv(prepared, [str(prepared), *sys.argv])


def draw(picture: Picture, arguments: argparse.Namespace) -> None:
    """Writes the figure to the output file."""
    try:
        import matplotlib
    except ImportError:
        raise PlotError("matplotlib is not installed; python3 -m pip install matplotlib brings it") from None
    matplotlib.use("Agg")
    families, showable = choose_fonts([*picture.tokens, picture.answer, picture.model])
    picture = replace(
        picture,
        tokens=[showable(token) for token in picture.tokens],
        answer=showable(picture.answer),
        model=showable(picture.model),
    )
    with matplotlib.rc_context({"font.family": families, "pdf.fonttype": 42, "axes.linewidth": 0.6}):
        figure = make_figure(picture, arguments.vmin, arguments.vmax, arguments.effect)
        save(figure, arguments.output, arguments.dpi)


def save(figure: Any, output: Path, dpi: int) -> None:
    """Writes beside `output`, then renames."""
    part = output.with_name(f".{output.name}.part")
    try:
        figure.savefig(part, format=output.suffix[1:].lower(), dpi=dpi)
        os.replace(part, output)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise PlotError(f"{output}: cannot be written ({error.strerror})") from None


# --- The program ------------------------------------------------------------------------------------------------


def check_output(output: Path) -> None:
    """Refuses, before anything is read, what could not be written in the end."""
    if output.suffix[1:].lower() not in FORMATS:
        raise PlotError(f'{output}: the suffix is "{output.suffix}", expected one of .{", .".join(FORMATS)}')
    if not output.parent.is_dir():
        raise PlotError(f"{output}: there is no folder {output.parent}; make it first")
    if output.is_dir():
        raise PlotError(f"{output} is a folder, expected a file name")


def kinds_of(text: str) -> list[str]:
    """`--kinds` as a list."""
    kinds = text.split(",")
    unknown = [kind for kind in kinds if kind not in COLOURS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not a kind, expected {', '.join(COLOURS)}")
    return kinds


def number_of(text: str) -> float:
    """`--vmin` and `--vmax`: a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def dpi_of(text: str) -> int:
    """`--dpi`, within what matplotlib can draw."""
    if not text.isdecimal() or not 20 <= int(text) <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 20 to 600")
    return int(text)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> Any:
        self.exit(2, f"plot_trace.py: {message}; see plot_trace.py --help\n")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description="Draws a trace that rometrace wrote as heat maps.")
    parser.add_argument("input", nargs="?", default="-", help="file with one record (default: standard input)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write: .png, .pdf or .svg")
    parser.add_argument("--kinds", type=kinds_of, help="panels to draw, such as state,mlp (default: all there are)")
    parser.add_argument("--effect", action="store_true", help="draw score - low_score, from 0, instead of the score")
    parser.add_argument("--vmin", type=number_of, help="start of the colour scale (default: low_score)")
    parser.add_argument("--vmax", type=number_of, help="end of the colour scale (default: each panel's largest value)")
    parser.add_argument("--dpi", type=dpi_of, default=200, help="dots per inch of a PNG (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    find_matplotlib()
    arguments = parse_arguments()
    try:
        check_output(arguments.output)
        draw(read_picture(read_record(arguments.input), arguments.kinds, arguments.effect), arguments)
    except PlotError as error:
        print(f"plot_trace.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
