"""Reads the averages that rometrace summary writes."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rometrace.results_file import (
    SCHEMA_KEY,
    SUMMARY_SCHEMA,
    TRACE_SCHEMA,
    UserError,
    check_object,
    hint_about,
    is_noising,
    one_line,
    parse_json,
    remarks_on,
    run_of,
)

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

CAVEAT = "Where tracing peaks is not where editing works best (arXiv 2301.04213)."


@dataclass(frozen=True)
class Role:
    """A role's averages in one kind."""

    facts: int
    aie: list[float] | None
    """[L], average indirect effect; None where no fact has a token of the role."""
    low: list[float] | None
    high: list[float] | None
    """[L], ends of the interval; None without one."""


def is_summary(stream: BinaryIO) -> bool:
    """Whether the stream, which is left at its beginning, says that it is a summary."""
    found = SCHEMA_KEY.search(stream.read(4096))
    stream.seek(0)
    return found is not None and found[1].decode(errors="replace") == SUMMARY_SCHEMA


def read_summary(source: str) -> dict[str, Any]:
    """The summary in the file `source`, or in standard input for "-"."""
    if source == "-" and sys.stdin.isatty():
        raise UserError("no input: give a file, or pipe rometrace summary into this program")
    where = "standard input" if source == "-" else source
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}); expected a file of rometrace summary") from None
    return parse_summary(where, data)


def parse_summary(where: str, data: bytes) -> dict[str, Any]:
    """The summary that `data` is."""
    if not data.strip():
        hint = "; did rometrace fail? Its message is above" if where == "standard input" else ""
        raise UserError(f"{where} is empty, expected a JSON summary{hint}")
    lines = data.split(b"\n", 1)
    if len(lines) > 1 and lines[0].strip().endswith(b"}") and lines[1].lstrip().startswith(b"{"):
        data = lines[0]  # a results file: its first line says of which schema
    summary = check_object(where, parse_json(where, data))
    if summary["schema"] != SUMMARY_SCHEMA:
        results = str(summary["schema"]).startswith("rometrace/batch/") or summary["schema"] == TRACE_SCHEMA
        hint = "; run rometrace summary on it first" if results else hint_about(str(summary["schema"]))
        raise UserError(
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
        raise UserError("the summary has no groups; make it with rometrace summary --by relation")
    if name not in groups:
        known = ", ".join(one_line(known, 40) for known in list(groups)[:5]) + (", …" if len(groups) > 5 else "")
        raise UserError(f'the summary has no group "{one_line(name)}", only {known}')
    return groups[name]


def read_role(name: str, role: dict[str, Any], layers: int, band: str, mean: str = "aie") -> Role:
    """A role's averages (or a group's, of the field `mean`) with the ends of its band."""
    facts = int(role["facts"])
    if facts == 0:
        return Role(0, None, None, None)
    low, high = (None if band == "none" else role[f"{band}_{end}"] for end in ("low", "high"))
    if low is None or high is None or any(value is None for value in (*low, *high)):  # of a single fact
        return Role(facts, read_layers(name, role[mean], layers), None, None)
    return Role(facts, *(read_layers(name, values, layers) for values in (role[mean], low, high)))


def read_layers(name: str, values: Any, layers: int) -> list[float]:
    """[L] finite numbers."""
    numbers = [float(value) for value in values]
    if layers < 1 or len(numbers) != layers:
        raise UserError(f"{name} is not {layers} layers long")
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"{name} holds what is no number")
    return numbers


def remarks_on_summary(summary: dict[str, Any]) -> list[str]:
    """What a reader of a picture must know of how the facts were traced."""
    run = run_of(summary)
    noising = ["noising: effects are the probability lost when corrupted"] if is_noising(run) else []
    return remarks_on(run, model=summary.get("model")) + noising
