"""What the programs that draw with matplotlib have in common."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from rometrace.prepared import go_on_with
from rometrace.results_file import UserError, check_folder_of, escape, replacing

FORMATS = ("png", "pdf", "svg")
COLOURS = {
    "state": "Purples",
    "mlp": "Greens",
    "attn": "Reds",
    "state_mlp_severed": "BuGn",
    "state_attn_severed": "RdPu",
    "head": "Oranges",
}
"""Of the kinds that have a grid, in the order in which they are drawn."""
DIVERGING = "RdBu_r"
"""Of interactions of every kind: white at 0."""
KNOCKOUT_LINES: dict[str, tuple[str, Any, float]] = {
    "before": ("#56B4E9", (0, (1, 1.2)), 1.3),
    "subject": ("#D55E00", "solid", 1.8),
    "after": ("#009E73", (0, (2.5, 1.5)), 1.3),
    "last": ("#000000", (0, (6, 2)), 1.4),
}
"""Colour, dashes and width of a group's line: Okabe and Ito's colour-blind safe palette; the dashes tell in grey."""
KNOCKOUT_NAMES = {
    "before": "before the subject",
    "subject": "subject",
    "after": "after the subject",
    "last": "last",
}


class PlotError(UserError):
    """A picture that cannot be drawn."""


# --- matplotlib -------------------------------------------------------------------------------------------------


def find_matplotlib() -> None:
    """Goes on where there is matplotlib."""
    go_on_with("matplotlib")


@contextlib.contextmanager
def settings(texts: Sequence[str]) -> Iterator[Callable[[str], str]]:
    """matplotlib's settings while something with `texts` is drawn; gives what escapes characters without a font."""
    try:
        import matplotlib
    except ImportError:
        raise PlotError(f"matplotlib is not installed; {sys.executable} -m pip install matplotlib brings it") from None
    matplotlib.use("Agg")
    families, showable = choose_fonts(texts)
    with matplotlib.rc_context({"font.family": families, "pdf.fonttype": 42, "axes.linewidth": 0.6}):
        yield showable


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
    missing = {ord(character) for text in texts for character in text if not " " <= character <= "~"}
    if missing:
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


def layer_ticks(layers: int, most: int = 13) -> range:
    """Layers that get a number: each, or every 2nd, 5th, ... so that at most `most` stand."""
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500, layers)
    step = next(step for step in steps if layers <= most * step or step == layers)
    return range(0, layers, step)


def save(figure: Any, output: Path, dpi: int) -> None:
    """Writes beside `output`, then renames."""
    with replacing(output) as part:
        figure.savefig(part, format=output.suffix[1:].lower(), dpi=dpi)


# --- Arguments --------------------------------------------------------------------------------------------------


def add_output(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """-o and --dpi."""
    parser.add_argument(
        "-o", "--output", type=Path, required=required, help="picture to write: .png, .pdf or .svg"
    )
    parser.add_argument("--dpi", type=dpi_of, default=200, help="dots per inch of a PNG (default: %(default)s)")


def check_output(output: Path) -> None:
    """Refuses, before anything is read, what could not be written in the end."""
    if output.suffix[1:].lower() not in FORMATS:
        raise PlotError(f'{output}: the suffix is "{output.suffix}", expected one of .{", .".join(FORMATS)}')
    check_folder_of(output)


def kinds_of(text: str) -> list[str]:
    """`--kinds` as a list."""
    return kinds_among(text, tuple(COLOURS))


def kinds_among(text: str, known: Sequence[str]) -> list[str]:
    """A list of kinds, each of them known."""
    kinds = text.split(",")
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not a kind, expected {', '.join(known)}")
    return kinds


def number_of(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def width_of(text: str) -> float:
    """`--width`, within what can be read."""
    width = number_of(text)
    if not 2.5 <= width <= 20:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 2.5 to 20 inches")
    return width


def dpi_of(text: str) -> int:
    """`--dpi`, within what matplotlib can draw."""
    if not text.isdecimal() or not 20 <= int(text) <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 20 to 600")
    return int(text)
