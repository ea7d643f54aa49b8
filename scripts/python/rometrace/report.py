"""Makes one page of HTML from results: averages, a table of facts, each fact's grids. It needs no network.

    rometrace --facts known_1000.json -o results.jsonl
    scripts/report.py results.jsonl -o report.html

The averages are those of `rometrace summary`, which is run unless --summary gives its output. The page holds every
traced fact's grids: indirect effects as 16-bit multiples of 1/32767 of the grid's largest effect (zero stays zero),
standard errors as 16-bit multiples of 1/65534 of the grid's largest error; all other numbers as they stand. Of the
heads at a position and layer it holds the one with the largest effect; of neurons those that were run alone, and the
sets of all layers together.

Exit status: 0 written; 2 could not write (one line on stderr says why). Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import math
import operator
import os
import re
import subprocess
import sys
import tempfile
import zlib
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, TextIO

from rometrace.places import PACKAGE, program_command
from rometrace.results_file import (
    KINDS,
    KNOCKOUT_GROUPS,
    SUMMARY_SCHEMA,
    Line,
    Parser,
    Progress,
    UserError,
    as_noising,
    check_folder_of,
    check_object,
    corrupted_positions,
    directions_of,
    finish,
    one_line,
    parse_json,
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
    token_text,
)
from rometrace.summary_file import CAVEAT

PAGE = PACKAGE / "report_page"
FACTS_PER_BLOCK = 32
LARGE = 60_000_000  # bytes; a browser takes seconds to load more

COLUMNS = (
    "record", "id", "relation", "subject", "prompt", "object", "answer", "status", "cause", "reason",
    "subject_at",
    "high", "low", "effect", "state", "mlp", "attn", "block",
)  # fmt: skip
"""Of the table of facts. subject_at: where the prompt has its subject, in UTF-16 units, as JavaScript counts. state, mlp, attn: largest indirect effect over layers at the last subject token, null where
that is the prompt's last token or has no row. block: [block, begin, end) in base64 characters of the fact's grids, or
null."""


# --- Facts ------------------------------------------------------------------------------------------------------


@dataclass
class Facts:
    """What was read of all results files, but for the grids, which go to the page at once."""

    files: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    """What all records share, by name."""
    settings_from: str = ""
    model: dict[str, Any] | None = None
    run: dict[str, Any] | None = None
    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    counts: dict[str, dict[str, int]] = field(
        default_factory=lambda: {status: {} for status in ("traced", "skipped", "failed")}
    )
    """By status and cause."""
    without_grids: int = 0
    """Traced facts whose grids --limit leaves out."""


class Blocks:
    """Writes grids into the page, many facts to a script element that the browser does not run."""

    def __init__(self, page: TextIO) -> None:
        self.page_ = page
        self.block_ = -1
        self.facts_ = self.characters_ = 0

    def add(self, packed: bytes) -> list[int]:
        """Writes a fact's grids; gives where they are."""
        if self.facts_ % FACTS_PER_BLOCK == 0:
            self.close()
            self.block_ += 1
            self.characters_ = 0
            self.page_.write(f'<script type="text/plain" id="block-{self.block_}">')
        text = base64.b64encode(packed).decode()
        self.page_.write(text)
        self.facts_ += 1
        self.characters_ += len(text)
        return [self.block_, self.characters_ - len(text), self.characters_]

    def close(self) -> None:
        """Ends the last block."""
        if self.block_ >= 0:
            self.page_.write("</script>\n")


def read_facts(sources: list[str], limit: int | None, blocks: Blocks, progress: Progress) -> Facts:
    """Reads all results, and writes their grids."""
    facts = Facts()
    for source in sources:
        digest = hashlib.sha256()
        records = 0
        for line in read_lines(source, progress.note, digest.update):
            if line.place == 0:
                read_header(facts, line)
                continue
            add_record(facts, line, limit, blocks)
            records += 1
            progress.step()
        name = "standard input" if source == "-" else Path(source).name
        facts.files.append({"name": printable(name), "sha256": digest.hexdigest(), "records": records})
    blocks.close()
    if not facts.columns["record"]:
        raise UserError(f"{', '.join(sources)}: no record, only a header; is the run still at its first fact?")
    return facts


def read_header(facts: Facts, line: Line) -> None:
    """The header of a results file. Its settings must be those of the others."""
    header = line.value
    if header.get("command") not in (None, "trace"):
        raise UserError(f'{line.where}: results of "{one_line(header["command"])}", expected those of a trace')
    names = ("model", "run", "kinds", "window", "target", "all", "special_tokens", "only", "facts")
    agree(facts, line.where, {name: header[name] for name in names if name in header})
    facts.headers.append(header)
    facts.model = facts.model or header.get("model")
    facts.run = facts.run or header.get("run")


def add_record(facts: Facts, line: Line, limit: int | None, blocks: Blocks) -> None:
    """Adds a record to the table, and its grids to the page. Raises UserError where it is damaged."""
    record = line.value
    status = record.get("status")
    if status not in facts.counts:
        raise UserError(f'{line.where}: status is "{one_line(status)}", expected traced, skipped or failed')
    cause = (
        printable(str(record.get("cause") or ("other_answer" if status == "skipped" else "")))
        if status != "traced"
        else ""
    )
    facts.counts[status][cause] = facts.counts[status].get(cause, 0) + 1
    agree(facts, line.where, {name: record[name] for name in ("model", "run") if name in record})
    facts.model = facts.model or record.get("model")
    facts.run = run_of(record) | (facts.run or {})
    try:
        row = row_of(line, record) | {"cause": cause}
        if status == "traced":
            grids = read_grids(record)
            row |= largest_effects(record, grids)
            traced = sum(facts.counts["traced"].values())
            if limit is None or traced <= limit:
                row["block"] = blocks.add(pack(record, grids))
            else:
                facts.without_grids += 1
    except KeyError as error:
        raise UserError(f"{line.where} lacks the field {error}; was it written by rometrace?") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{line.where} has a field of another type than expected ({one_line(error)})") from None
    except UserError as error:
        raise UserError(f"{line.where}: {error}") from None
    for name in COLUMNS:
        facts.columns[name].append(row.get(name))


def agree(facts: Facts, where: str, settings: dict[str, Any]) -> None:
    """Refuses records of other settings: their averages would mean nothing."""
    model = settings.get("model")
    if isinstance(model, dict) and isinstance(facts.model, dict):  # what only one of them has differs too: an edit, say
        for name in {**facts.model, **model}:
            if (name in facts.model, facts.model.get(name)) != (name in model, model.get(name)):
                here, there = (one_line(json.dumps(m[name])) if name in m else "nothing" for m in (model, facts.model))
                raise UserError(f"{where}: model.{name} is {here}, but {there} in {facts.settings_from}; make a report of each")
    for name, value in flattened(settings):
        if name in ("run.seconds", "run.threads", "run.precision.reached"):
            continue
        if name == "run.samples" and run_of(settings).get("precision"):
            continue  # as many as each fact needed
        before = facts.settings.setdefault(name, value)
        if before != value:
            raise UserError(
                f"{where}: {name} is {one_line(json.dumps(value))}, but {one_line(json.dumps(before))} in "
                f"{facts.settings_from}; make a report of each"
            )
    facts.settings_from = facts.settings_from or where


def flattened(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting with its full name."""
    for name, inner in value.items():
        if isinstance(inner, dict) and name != "facts":
            yield from flattened(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def row_of(line: Line, record: dict[str, Any]) -> dict[str, Any]:
    """A record's entries in the table, as far as it has them."""
    fact = record.get("fact") if isinstance(record.get("fact"), dict) else {}

    def text(value: Any) -> str | None:
        return None if value is None else printable(str(value))

    answer = record.get("answer")
    if answer is not None and "answer_bytes" in record:
        answer = token_text(answer, record["answer_bytes"])
    return {
        "record": line.record,
        "id": text(fact.get("id")),
        "relation": text(fact.get("relation")),
        "subject": text(record.get("subject")),
        "prompt": text(record.get("prompt")),
        "subject_at": place_of_subject(record),
        "object": text(fact.get("object")),
        "answer": text(answer),
        "status": record["status"],
        "reason": text(record.get("reason")),
        "high": number(record.get("high_score")),
        "low": number(record.get("low_score")),
        "effect": number(record.get("total_effect")),
    }


def place_of_subject(record: dict[str, Any]) -> int | None:
    """Where the prompt, as it is shown, has its subject; None in records of before there was the field."""
    prompt, span = record.get("prompt"), record.get("subject_span")
    if not isinstance(prompt, str) or not span:
        return None
    before = prompt.encode()[: int(span[0])].decode(errors="replace")
    return len(printable(before).encode("utf-16-le")) // 2


def number(value: Any) -> float | None:
    """A number as it stands, to the digits of a float32."""
    return None if value is None else float(f"{float(value):.9g}")


def read_others(record: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Of a record of both directions the grids of noising, and of the interactions in the place of effects."""
    if len(directions_of(record)) == 1:
        return {}
    noising = as_noising(record)
    names = ("interaction", "interaction_standard_error")
    interactions = {
        kind: grid | dict(zip(("indirect_effect", "standard_error"), (grid[name] for name in names)))
        for kind, grid in noising["grids"].items()
    }
    unbounded = run_of(record) | {"approximate": True}  # a difference of two effects
    return {
        "noising": read_grids(noising),
        "interaction": read_grids(record | {"grids": interactions, "run": unbounded}, key=abs),
    }


def read_grids(record: dict[str, Any], key: Callable[[float], float] = float) -> dict[str, dict[str, Any]]:
    """The record's grids, checked: window, positions [P], indirect_effect [P][L], standard_error [P][L], NaN for none.

    Of heads, the effect and the error are those of the head with the largest effect by `key`, and "heads" [P][L] says
    which.
    """
    tokens, layers = len(record["tokens"]), int(record["model"]["layers"])
    bounded = not run_of(record).get("approximate")
    present = record.get("grids") or {}
    grids = {}
    for kind in KINDS:
        if kind not in present:
            continue
        grid = present[kind]
        positions = positions_of(kind, grid, tokens)
        shape: tuple[int, ...] = (len(positions), layers)
        if kind == "head":
            shape += (int(grid["heads"]),)
        effects = read_grid(f"{kind} indirect_effect", grid["indirect_effect"], shape, bounded)
        errors = read_numbers(f"{kind} standard_error", grid["standard_error"], shape, missing=math.nan)
        grids[kind] = {"window": int(grid["window"]), "positions": positions}
        if kind == "head":
            best = [[heads.index(max(heads, key=key)) for heads in row] for row in effects]
            effects, errors = (
                [list(map(operator.getitem, *row)) for row in zip(values, best)] for values in (effects, errors)
            )
            grids[kind]["heads"] = best
        grids[kind] |= {"indirect_effect": effects, "standard_error": errors}
    if not grids and "knockout" not in record and "neurons" not in record:
        raise UserError(f"has no grid of {', '.join(KINDS)}")
    return grids


def read_neurons(record: dict[str, Any]) -> dict[str, Any] | None:
    """The record's neurons, checked: those that were run alone, and of each position the sets by size and the half."""
    if "neurons" not in record:
        return None
    neurons = record["neurons"]
    positions = [int(position) for position in neurons["positions"]]
    if not all(0 <= position < len(record["tokens"]) for position in positions):
        raise UserError(f"neurons at positions {positions} of {len(record['tokens'])} tokens")
    return {
        "layers": [int(layer) for layer in neurons["layers"]],
        "ranked_by": printable(str(neurons["ranked_by"])),
        "candidates": int(neurons["candidates"]),
        "effects": [read_neuron(effect) for effect in neurons["effects"]],
        "sets": [read_sets(neurons, position) for position in positions] if "sets" in neurons else [],
    }


def read_neuron(effect: dict[str, Any]) -> dict[str, Any]:
    """A neuron that was run alone."""
    names = {"estimate": "estimate", "effect": "indirect_effect", "error": "standard_error", "norm": "row_norm"}

    def texts(name: str) -> list[str]:
        return [token_text(token["token"], token["token_bytes"]) for token in effect[name]]

    return {
        **{name: int(effect[name]) for name in ("layer", "position", "neuron")},
        **{name: number(effect[field]) for name, field in names.items()},
        **{run: number(effect["value"][run]) for run in ("clean", "corrupted")},
        **{name: texts(name) for name in ("promotes", "suppresses")},
    }


def read_sets(neurons: dict[str, Any], position: int) -> dict[str, Any]:
    """The sets of all layers' neurons at a position: sizes, and the effects and errors of each order of them."""

    def mine(name: str) -> list[dict[str, Any]]:
        found = [each for each in neurons[name] if int(each["position"]) == position and "layer" not in each]
        return sorted(found, key=lambda each: each.get("neurons") or 0)

    controls = mine("controls")
    runs = {"best": mine("sets")} | {o: [c for c in controls if c["order"] == o] for o in ("change", "random")}
    sizes = [int(each["neurons"]) for each in runs["best"]]
    if not sizes or any([int(each["neurons"]) for each in run] != sizes for run in runs.values()):
        raise UserError(f"the sets of neurons at position {position} are not of the sizes of the others")
    (half,) = mine("half")
    fields = {"effects": "indirect_effect", "errors": "standard_error"}
    return {
        "position": position,
        "sizes": sizes,
        "candidates": int(half["candidates"]),
        "half": None if half["neurons"] is None else int(half["neurons"]),
        **{
            order: {name: [number(each[field]) for each in run] for name, field in fields.items()}
            for order, run in runs.items()
        },
    }


def read_knockout(record: dict[str, Any]) -> dict[str, Any] | None:
    """The record's knockout, checked: window, and of each group its positions and relative_change [L]."""
    if "knockout" not in record:
        return None
    layers = int(record["model"]["layers"])
    groups = record["knockout"]["groups"]

    def changes(name: str) -> list[float | None]:
        wanted = [groups[name]["relative_change"]]
        (read,) = read_numbers(f"knockout of {name}", wanted, (1, layers), missing=math.nan)
        return [None if value != value else number(value) for value in read]

    found = {
        name: {"tokens": len(groups[name]["positions"]), "relative_change": changes(name)}
        for name in KNOCKOUT_GROUPS
        if name in groups
    }
    return {"window": int(record["knockout"]["window"]), "groups": found}


def largest_effects(record: dict[str, Any], grids: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """By kind, over layers, at the last subject token; nothing where that is the prompt's last token or has no row."""
    last = int(record["subject_range"][1]) - 1
    if not 0 <= last < len(record["tokens"]):
        raise UserError(f"subject_range ends at {last + 1} of {len(record['tokens'])} tokens")
    if last == len(record["tokens"]) - 1:
        return {}
    return {
        kind: number(max(grid["indirect_effect"][grid["positions"].index(last)]))
        for kind, grid in grids.items()
        if kind in COLUMNS and last in grid["positions"]
    }


# --- Numbers in few bytes ---------------------------------------------------------------------------------------


def pack(record: dict[str, Any], grids: dict[str, dict[str, Any]]) -> bytes:
    """A fact's grids, compressed: 4 bytes length of a JSON text, that text, then 16-bit numbers of each grid.

    Indirect effects are signed multiples of `effect_step`, standard errors unsigned multiples of `error_step` or 65535
    for none; of each grid [P][L] first all high bytes, then all low bytes, which compresses better.
    """
    head: dict[str, Any] = {
        "tokens": [token_text(*token) for token in zip(record["tokens"], record["token_bytes"], strict=True)],
        "subject_range": [int(position) for position in record["subject_range"]],
        "corrupted": corrupted_positions(record),
        "neurons": read_neurons(record),
        "low_score": number(record.get("low_score")),
        "low_standard_error": number(record.get("low_standard_error")),
        "prediction": printable(str(record.get("prediction", ""))),
        "prediction_score": number(record.get("prediction_score")),
        "seconds": number(record["run"].get("seconds")) if isinstance(record.get("run"), dict) else None,
        "grids": {},
        "others": {},
        "knockout": read_knockout(record),
    }
    if isinstance(record.get("counter"), dict):
        head["counter"] = printable(str(record["counter"]["prompt"]))
    numbers = bytearray()
    others = read_others(record)
    parts = [(head["grids"], grids), *((head["others"].setdefault(name, {}), of) for name, of in others.items())]
    for into, kind, grid in ((into, kind, grid) for into, of in parts for kind, grid in of.items()):
        effect_step, effects = quantise([value for row in grid["indirect_effect"] for value in row], 32767, "h", None)
        error_step, errors = quantise([value for row in grid["standard_error"] for value in row], 65534, "H", 65535)
        into[kind] = {
            "window": grid["window"],
            "positions": grid["positions"],
            "effect_step": effect_step,
            "error_step": error_step,
        }
        if "heads" in grid:
            into[kind]["heads"] = [head_of_cell for row in grid["heads"] for head_of_cell in row]
        numbers += effects + errors
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")
    return zlib.compress(len(text).to_bytes(4, "little") + text + bytes(numbers), 9)


def quantise(values: list[float], steps: int, code: str, missing: int | None) -> tuple[float, bytes]:
    """The step, and `values` as whole multiples of it: all high bytes, then all low bytes. `missing` stands for NaN."""
    largest = max((abs(value) for value in values if value == value), default=0.0)
    step = largest / steps or 1.0
    whole = array(code, [missing if value != value else round(value / step) for value in values])
    if sys.byteorder == "big":
        whole.byteswap()
    plain = whole.tobytes()
    return step, plain[1::2] + plain[0::2]


# --- Averages ---------------------------------------------------------------------------------------------------


def read_summary(where: str, data: bytes) -> dict[str, Any]:
    """What `rometrace summary` wrote."""
    summary = check_object(where, parse_json(where, data))
    if summary["schema"] != SUMMARY_SCHEMA:
        raise UserError(f'{where} is of schema "{one_line(summary["schema"])}", expected "{SUMMARY_SCHEMA}"')
    if not isinstance(summary.get("overall"), dict) or not isinstance(summary["overall"].get("kinds"), dict):
        raise UserError(f'{where} has no averages in "overall"; was it written by rometrace summary?')
    return summary


def get_summary(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """From --summary, or by running rometrace; None with --no-summary."""
    if arguments.no_summary:
        return None
    if arguments.summary:
        try:
            return read_summary(arguments.summary, Path(arguments.summary).read_bytes())
        except OSError as error:
            raise UserError(f"{arguments.summary}: cannot be read ({error.strerror}); expected a summary") from None
    if "-" in arguments.results:
        raise UserError(
            "rometrace summary reads the results too, which standard input cannot be; give a file, or --no-summary"
        )
    return run_summary([arguments.rometrace] if arguments.rometrace else program_command(), arguments.results)


def run_summary(rometrace: list[str], results: list[str]) -> dict[str, Any]:
    """Runs `rometrace summary`."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "summary.json"
        # An absolute path never looks like an option.
        command = [*rometrace, "summary", *map(os.path.abspath, results), "--by", "relation", "-o", str(output)]
        try:
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
            if done.returncode == 0:
                return read_summary("the output of rometrace summary", output.read_bytes())
        except OSError as error:
            raise UserError(
                f"{rometrace[0]} cannot be run ({error.strerror}); give --rometrace, --summary or --no-summary"
            ) from None
    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
    raise UserError(f"rometrace summary failed with exit status {done.returncode} ({one_line(lines[-1], 300)})")


def check_summary(summary: dict[str, Any] | None, facts: Facts) -> None:
    """Refuses averages of other facts than those of the table."""
    if summary is None:
        return
    counts = {status: sum(causes.values()) for status, causes in facts.counts.items()}
    told = {status: (summary.get("status") or {}).get(status, 0) for status in counts}
    if counts != told:
        raise UserError(
            f"the summary is of {told['traced']} traced, {told['skipped']} skipped and {told['failed']} failed facts, "
            f"the results have {counts['traced']}, {counts['skipped']} and {counts['failed']}; make it from the same files"
        )
    one, other = ({**(model or {}), "name": None} for model in (summary.get("model"), facts.model))
    if one != other:
        raise UserError("the summary is of another model than the results; make it from the same files")


# --- The page ---------------------------------------------------------------------------------------------------


def write_page(arguments: argparse.Namespace, progress: Progress) -> Facts:
    """Writes the page beside the output, then renames."""
    summary = get_summary(arguments)
    with replacing(arguments.output) as part:
        with open(part, "w", encoding="utf-8", newline="\n") as page:
            before, after = (text.strip() for text in (PAGE / "page.html").read_text("utf-8").split("{{DATA}}"))
            style = (PAGE / "page.css").read_text("utf-8")
            script = (PAGE / "page.js").read_text("utf-8")
            page.write(
                fill(before, STYLE=style, POLICY=policy(style, script), TITLE=html.escape(title_of(arguments))) + "\n"
            )
            facts = read_facts(arguments.results, arguments.limit, Blocks(page), progress)
            check_summary(summary, facts)
            page.write('<script type="text/plain" id="index">')
            page.write(base64.b64encode(zlib.compress(index_of(arguments, facts, summary), 9)).decode())
            page.write("</script>\n" + fill(after, SCRIPT=script) + "\n")
    return facts


def title_of(arguments: argparse.Namespace) -> str:
    return printable(
        arguments.title or ", ".join("standard input" if name == "-" else Path(name).name for name in arguments.results)
    )


def index_of(arguments: argparse.Namespace, facts: Facts, summary: dict[str, Any] | None) -> bytes:
    """All that the page shows without a click."""
    index = {
        "title": title_of(arguments),
        "files": facts.files,
        "headers": facts.headers,
        "model": facts.model,
        "run": shared_settings(facts.run or {}),
        "counts": facts.counts,
        "without_grids": facts.without_grids,
        "remarks": remarks_on(facts.run or {}, model=facts.model),
        "caveat": CAVEAT,
        "summary": summary,
        "facts": facts.columns,
    }
    try:
        text = json.dumps(index, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise UserError(
            "the results or the summary hold what is no number (NaN or Infinity), which rometrace never writes"
        ) from None
    return text.encode("utf-8", "replace")


def shared_settings(run: dict[str, Any]) -> dict[str, Any]:
    """The run's settings without what is each fact's own."""
    own = ["seconds", "threads"]
    if isinstance(run.get("precision"), dict):
        own.append("samples")
        run = run | {"precision": {name: value for name, value in run["precision"].items() if name != "reached"}}
    return {name: value for name, value in run.items() if name not in own}


def fill(template: str, **values: str) -> str:
    """Puts values in the place of {{NAME}}; what they contain is not looked at again."""
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda name: values[name[1]], template)


def policy(style: str, script: str) -> str:
    """A policy under which the browser takes no other script or style than ours and asks no network for anything."""

    def sha256(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    sources = f"style-src {sha256(style)}; script-src {sha256(script)}"
    return f"default-src 'none'; img-src data:; {sources}; base-uri 'none'; form-action 'none'"


# --- The program ------------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = Parser(
        prog=program_name(), description="Makes one page of HTML, without network, from results of rometrace."
    )
    parser.add_argument(
        "results", nargs="+", help="results file (JSON Lines); several, such as shards, make one report"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="page to write, such as report.html")
    parser.add_argument("--title", help="heading of the page (default: the files' names)")
    parser.add_argument(
        "--limit", type=positive, help="grids of the first facts only, for a smaller page; all stay in the table"
    )
    averages = parser.add_mutually_exclusive_group()
    averages.add_argument("--summary", metavar="FILE", help="what rometrace summary wrote (default: it is run)")
    averages.add_argument("--no-summary", action="store_true", help="a page without averages")
    averages.add_argument("--rometrace", metavar="PATH", help="executable that makes the summary")
    return parser.parse_args()


def make_page(arguments: argparse.Namespace, progress: Progress) -> int:
    """Writes the page and tells its size; gives the exit status."""
    check_folder_of(arguments.output)
    facts = write_page(arguments, progress)
    size = arguments.output.stat().st_size
    if size > LARGE:
        progress.note(
            f"{arguments.output} has {size / 1e6:.0f} MB, which browsers load slowly; --limit N makes it smaller"
        )
    progress.finish(f"wrote {len(facts.columns['record'])} facts into {arguments.output} ({size / 1e6:.2g} MB)")
    return 0


def main() -> int:
    arguments = parse_arguments()
    progress = Progress(program_name(), "records read", None)
    return finish(program_name(), lambda: make_page(arguments, progress), progress.note)
