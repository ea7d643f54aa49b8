"""Draws edits of facts in one layer after the other: how well each takes them, beside where tracing finds them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Sequence

from rometrace.plotting import PlotError, layer_ticks
from rometrace.results_file import base_name, one_line, shorten
from rometrace.summary_file import remarks_on_summary

SCORES: dict[str, tuple[str, str, Any, float]] = {
    "S": ("S, the harmonic mean", "#000000", "solid", 1.8),
    "ES": ("ES, the prompt", "#D55E00", (0, (6, 2)), 1.2),
    "PS": ("PS, paraphrases", "#0072B2", (0, (2.5, 1.5)), 1.2),
    "NS": ("NS, neighbours", "#009E73", (0, (1, 1.2)), 1.2),
}
"""Name, colour, dashes and width of a score's line: Okabe and Ito's colour-blind safe palette; dashes tell in grey."""
CURVES: dict[str, tuple[str, str, Any, float]] = {
    "mlp": ("MLP", "#1b7837", "solid", 1.6),
    "state": ("state", "#4a2c82", (0, (6, 2)), 1.2),
}
"""Likewise, of what tracing restores."""
HOW = "rometrace edit --each --layers all makes them"


@dataclass(frozen=True)
class Curve:
    """Means by layer with the ends of their intervals; NaN where there is none."""

    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Sweep:
    """What of the summary is drawn."""

    title: str
    model: str
    layers: list[int]
    """That were edited, ascending."""
    scores: dict[str, Curve]
    """After the edit, percent, by the name of the score; of `layers`. Without those that no fact has."""
    best: str
    """Where S is largest, in words; empty if the summary does not say."""
    best_layer: int | None
    curves: dict[str, Curve]
    """Effects that tracing finds in these facts, by kind; of all layers of the model. Empty without."""
    peaks: dict[str, int]
    """The layer with the largest effect, by kind."""
    window: int = 1
    """Layers that are restored together, of the MLP."""
    remarks: list[str] = field(default_factory=list)


# --- Reading ----------------------------------------------------------------------------------------------------


def read_sweep(summary: dict[str, Any]) -> Sweep:
    """Takes from the summary what is drawn. Raises PlotError for a field that is missing or of another shape."""
    try:
        groups = sorted(single_layers(summary), key=lambda group: group["layers"])
        count = max(int(group["facts"]) for group in groups)
        scores = {name: read_score(name, [group["after"][name] for group in groups]) for name in SCORES}
        method = one_line(summary["edit"]["method"])
        model = shorten(base_name(summary["model"]["name"]), 24)
        total = int(summary["model"]["layers"])
        best = summary["best"]
        tracing = summary["tracing"] or {}
        return Sweep(
            title=f"{count} fact{'s' * (count != 1)} edited one by one in each layer of {model} by {method}",
            model=model,
            layers=[int(group["layers"][0]) for group in groups],
            scores={name: score for name, score in scores.items() if any(map(math.isfinite, score.mean))},
            best="" if best is None else describe_best(best),
            best_layer=None if best is None else int(best["layer"]),
            curves={
                kind: read_curve(f"tracing of {kind}", tracing[kind], total)
                for kind in CURVES
                if kind in tracing and tracing[kind]["aie"] is not None
            },
            peaks={
                kind: int(tracing[kind]["peak"]["layer"])
                for kind in CURVES
                if kind in tracing and tracing[kind]["peak"] is not None
            },
            window=int(tracing.get("window", 1)),
            remarks=remarks_on_summary(summary),
        )
    except KeyError as error:
        raise PlotError(f"the summary lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise PlotError(f"the summary has a field of another type than expected ({one_line(error)})") from None


def single_layers(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Its groups, each of one layer. Raises PlotError unless there are two or more, and facts in each."""
    groups = summary["layers"]
    if not isinstance(groups, list) or any(not isinstance(group["layers"], list) for group in groups):
        raise PlotError(f"the summary's edits are each where a trace of its own peaked; {HOW}")
    if len(groups) < 2 or any(len(group["layers"]) != 1 for group in groups):
        raise PlotError(f"the summary has no edits of the same facts in one layer after the other; {HOW}")
    empty = [group for group in groups if int(group["facts"]) == 0]
    if empty:
        raise PlotError(f"no fact was edited in layer {empty[0]['layers'][0]}, so that it has no score")
    return groups


def read_score(name: str, scores: Sequence[dict[str, Any]]) -> Curve:
    """A score by layer. Where no fact has it (no paraphrases, say) there is no number."""
    ends = [score["bootstrap"] or (math.nan, math.nan) for score in scores]
    low, high = ([bounded(name, end[side]) for end in ends] for side in (0, 1))
    return Curve([bounded(name, score["mean"]) for score in scores], low, high)


def bounded(name: str, value: Any) -> float:
    """A number of percent; NaN for none."""
    number = math.nan if value is None else float(value)
    if not (math.isnan(number) or 0 <= number <= 100.001):
        raise PlotError(f"{name} is {number:g}, expected percent")
    return number


def read_curve(name: str, curve: dict[str, Any], layers: int) -> Curve:
    """[L] of each."""

    def read(values: Any) -> list[float]:
        numbers = [math.nan] * layers if values is None else [float(value) for value in values]
        if len(numbers) != layers:
            raise PlotError(f"{name} is {len(numbers)} layers long, expected {layers}")
        return numbers

    mean = read(curve["aie"])
    if not all(map(math.isfinite, mean)):
        raise PlotError(f"{name} holds what is no number")
    return Curve(mean, read(curve["bootstrap_low"]), read(curve["bootstrap_high"]))


def describe_best(best: dict[str, Any]) -> str:
    """Where S is largest, and how sure that is."""
    text = f"largest S: {float(best['S']):.1f} in layer {int(best['layer'])}"
    if best["layers"] is not None:
        first, last = (int(layer) for layer in best["layers"])
        text += f" (95 %: {first}–{last})" if first < last else f" (95 %: {first})"
    return text


# --- Drawing ----------------------------------------------------------------------------------------------------


def make_figure(sweep: Sweep) -> Any:
    """Scores by layer, and below them what tracing finds, on the same axis of layers."""
    from matplotlib.figure import Figure

    rows = 2 if sweep.curves else 1
    figure = Figure(figsize=(7.5, 3.2 * rows + 0.4 + 0.15 * len(sweep.remarks)), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    draw_scores(panels[0], sweep)
    if sweep.curves:
        draw_tracing(panels[1], sweep)
    total = len(next(iter(sweep.curves.values())).mean) if sweep.curves else sweep.layers[-1] + 1
    ticks = list(layer_ticks(total, most=25))
    panels[-1].set_xticks(ticks, [str(tick) for tick in ticks])
    panels[-1].set_xlim(-0.5, total - 0.5)
    panels[-1].set_xlabel(f"layer of {sweep.model}", fontsize=9, parse_math=False)
    for axes in panels:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(labelsize=8, length=2)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, handlelength=3, frameon=False)
    figure.suptitle("\n".join([sweep.title, *sweep.remarks]), fontsize=10, parse_math=False)
    return figure


def draw_scores(axes: Any, sweep: Sweep) -> None:
    """Percent after the edit."""
    for name, score in sweep.scores.items():
        draw_curve(axes, sweep.layers, score, SCORES[name])
    if sweep.best_layer is not None:
        axes.axvline(sweep.best_layer, color="#000000", linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=0)
    axes.set_ylim(0, 103)
    axes.set_ylabel("percent (95 % over facts)", fontsize=9)
    missing = [name for name in SCORES if name not in sweep.scores]
    told = [sweep.best] * bool(sweep.best) + [f"no fact has {', '.join(missing)}"] * bool(missing)
    axes.set_title("; ".join(["After an edit in the layer", *told]), fontsize=9)


def draw_tracing(axes: Any, sweep: Sweep) -> None:
    """Effects of clean values."""
    for kind, (name, colour, dashes, width) in CURVES.items():
        if kind not in sweep.curves:
            continue
        label = f"{name}, {sweep.window} layers" if kind == "mlp" and sweep.window > 1 else name
        curve = sweep.curves[kind]
        draw_curve(axes, range(len(curve.mean)), curve, (label, colour, dashes, width))
        if kind in sweep.peaks:
            axes.axvline(sweep.peaks[kind], color=colour, linewidth=0.7, linestyle=(0, (1, 1.5)), zorder=0)
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axes.set_ylabel("average indirect effect", fontsize=9)
    axes.set_title("Tracing of the same facts, not edited: restored at the last subject token", fontsize=9)


def draw_curve(axes: Any, layers: Sequence[int], curve: Curve, style: tuple[str, str, Any, float]) -> None:
    """A line and its band."""
    label, colour, dashes, width = style
    dots = {"marker": "o", "markersize": 2}
    axes.plot(layers, curve.mean, color=colour, linestyle=dashes, linewidth=width, label=label, **dots)
    axes.fill_between(layers, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)


def with_texts(sweep: Sweep, showable: Callable[[str], str]) -> Sweep:
    """The sweep with every text of others through `showable`."""
    remarks = [showable(remark) for remark in sweep.remarks]
    return replace(sweep, title=showable(sweep.title), model=showable(sweep.model), remarks=remarks)
