"""Compares what the executable says with a plain tracer over transformers (tests/judge/reference_tracer.py), both run with
the same command line."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from reference_tracer import parse_arguments, trace_record

Traced = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Tolerance:
    """|found - expected| <= relative * |expected| + absolute."""

    relative: float
    absolute: float


TOLERANCES = {
    # Both sides round in the 16th digit; a few hundred additions a layer leave thirteen (measured: 1e-14). Tighter
    # than any choice that float32 would hide, such as another constant in an activation.
    "float64": Tolerance(relative=1e-11, absolute=1e-13),
    # A logit of 10 to 30 is known to a few 1e-6 in float32, and that is the relative error of its probability
    # (measured: 7e-6). The floor is for standard errors and effects: differences of probabilities up to 1, each known
    # to about 1e-6.
    "float32": Tolerance(relative=2e-5, absolute=1e-6),
}

@dataclass(frozen=True)
class Live:
    """One comparison: a model, a prompt with its subject, and the options."""

    claim: str
    prompt: str
    subject: str
    options: tuple[str, ...]


def flatten(value: Any, name: str = "") -> dict[str, float | None]:
    """The numbers of nested objects and lists by where each stands, such as ".grids.state.scores[0][2]"."""
    if isinstance(value, dict):
        return {at: number for key in sorted(value) for at, number in flatten(value[key], f"{name}.{key}").items()}
    if isinstance(value, list):
        return {at: number for i, item in enumerate(value) for at, number in flatten(item, f"{name}[{i}]").items()}
    return {name: value}


def floats_of(record: dict[str, Any]) -> dict[str, float | None]:
    """All numbers of a record that rounding may change."""
    names = ("prediction_score", "high_score", "low_score", "low_standard_error", "total_effect")
    values = {name: record[name] for name in names}
    values |= {name: record.get(name) for name in ("grids", "knockout", "measures", "other_targets")}
    return {name: value for name, value in flatten(values).items() if not isinstance(value, (str, int))}


def exact_of(record: dict[str, Any]) -> dict[str, Any]:
    """All that must be equal: text, tokens, options, the model's identity, the whole numbers of the grids."""
    names = "schema status prompt subject tokens token_bytes token_ids subject_range"
    names += " answer answer_bytes answer_id answer_ids prediction prediction_bytes prediction_id"
    model = {name: value for name, value in record["model"].items() if name != "name"}
    run = {name: value for name, value in record["run"].items() if name not in ("engine", "threads", "seconds")}
    if "precision" in run:
        run["precision"] = {name: value for name, value in run["precision"].items() if name != "reached"}
    parts = {name: record.get(name) for name in ("grids", "knockout", "measures", "other_targets")}
    whole = {name: value for name, value in flatten(parts).items() if isinstance(value, (str, int))}
    more = {"model": model, "run": run, "counter": record.get("counter"), "whole": whole}
    return {name: record[name] for name in names.split()} | more


def assert_close(found: dict[str, float | None], expected: dict[str, float | None], tolerance: Tolerance) -> None:
    """All values within the tolerance; a failure names the worst."""
    assert list(found) == list(expected)
    assert [name for name in found if (found[name] is None) != (expected[name] is None)] == []

    def excess(name: str) -> float:
        if found[name] is None:
            return 0
        allowed = tolerance.relative * abs(expected[name]) + tolerance.absolute
        return abs(found[name] - expected[name]) / allowed

    worst = max(found, key=excess)
    assert excess(worst) <= 1, (
        f"{worst}: {found[worst]!r}, expected {expected[worst]!r}; {excess(worst):.3g} times the tolerance, "
        f"{sum(excess(name) > 1 for name in found)} of {len(found)} values are beyond it"
    )


@functools.lru_cache(maxsize=1)
def judged(arguments: tuple[str, ...]) -> dict[str, Any]:
    """What the plain tracer says; both engines are compared with it, one after the other."""
    return trace_record(parse_arguments(list(arguments)))


def compare(traced: Traced, model: Path, live: Live, dtype: str) -> None:
    """Runs both programs with the same command line and compares all that they say."""
    arguments = ["--model", str(model), "--prompt", live.prompt, "--subject", live.subject, "--dtype", dtype]
    arguments += live.options
    expected = judged(tuple(arguments))
    found = traced(*arguments)
    assert exact_of(found) == exact_of(expected)
    assert_close(floats_of(found), floats_of(expected), TOLERANCES[dtype])
