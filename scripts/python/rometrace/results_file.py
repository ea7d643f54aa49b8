"""Reads what rometrace writes: single records, and results files of a batch (JSON Lines) of any size, line by line.

A line is parsed as a whole only when its record is asked for; status and fact are read off the line's text, so that
choosing one fact of a file of gigabytes takes about as long as reading the file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sys
import time
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator

TRACE_SCHEMA = "rometrace/trace/1"
BATCH_SCHEMA = "rometrace/batch/1"
SUMMARY_SCHEMA = "rometrace/summary/1"
EDIT_SCHEMA = "rometrace/edit/1"
EDIT_SUMMARY_SCHEMA = "rometrace/edit-summary/1"
KINDS = ("state", "mlp", "attn", "state_mlp_severed", "state_attn_severed", "head")
KNOCKOUT_GROUPS = ("before", "subject", "after", "last")
DIRECTIONS = ("denoising", "noising", "interaction")
"""What a trace of both directions has: what is restored, what is corrupted, and how much more the second is."""
PROBE_SCHEMA = "rometrace/probe/1"

# A quote inside a JSON string has a backslash before it, so these find keys, never text.
SCHEMA_KEY = re.compile(rb'^\s*\{\s*"schema"\s*:\s*"([^"\\]*)"')
STATUS_KEY = re.compile(rb'"status"\s*:\s*"(\w+)"')
FACT_KEY = re.compile(rb'"fact"\s*:\s*')


class UserError(Exception):
    """What was found, what was expected, what to do; in one line."""


class WriteError(UserError):
    """The output cannot be written, so that nothing more can be done."""


# --- Reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of a results file."""

    where: str
    """File and line, for messages."""
    place: int
    """Among the records of the file, from 1; 0 for the header."""
    data: bytes

    @cached_property
    def value(self) -> dict[str, Any]:
        """The whole line, parsed. Raises UserError if it is no JSON object with a schema."""
        return check_object(self.where, parse_json(self.where, self.data))

    @cached_property
    def schema(self) -> str:
        found = SCHEMA_KEY.search(self.data)
        return found[1].decode(errors="replace") if found else str(self.value["schema"])

    @cached_property
    def status(self) -> str:
        """traced, skipped or failed."""
        found = STATUS_KEY.search(self.data)
        return found[1].decode() if found else str(self.value.get("status"))

    @cached_property
    def fact(self) -> dict[str, Any]:
        """Where the record comes from; empty for a run of a single prompt."""
        found = FACT_KEY.search(self.data)
        if not found:
            return {}
        try:
            text = self.data[found.end() : found.end() + 4096].decode("utf-8", errors="ignore")
            fact = json.JSONDecoder().raw_decode(text)[0]
        except (ValueError, RecursionError):  # a very long one
            fact = self.value.get("fact")
        return fact if isinstance(fact, dict) else {}

    @property
    def record(self) -> int:
        """The fact's number in the facts files; the place in this file where there is none."""
        number = self.fact.get("record")
        return number if isinstance(number, int) else self.place

    @property
    def id(self) -> str:
        """The fact's id as text, empty if it has none."""
        return "" if self.fact.get("id") is None else str(self.fact["id"])

    @property
    def relation(self) -> str:
        """The fact's relation, empty if it has none."""
        return "" if self.fact.get("relation") is None else str(self.fact["relation"])


def read_lines(
    source: str, note: Callable[[str], None], on_bytes: Callable[[bytes], Any] | None = None
) -> Iterator[Line]:
    """The lines of the file `source`, or of standard input for "-": the header if there is one, and the records.

    A last line that is not complete, as a killed run leaves it, is left out; `note` is told. A single record may also
    spread over several lines. `on_bytes` gets every byte that is read. Raises UserError for what is no results file.
    """
    where = "standard input" if source == "-" else source
    if source == "-" and sys.stdin.isatty():
        raise UserError("no input: give a file, or pipe rometrace into this program")
    try:
        with sys.stdin.buffer if source == "-" else open(source, "rb") as stream:
            yield from lines_of(where, stream, note, on_bytes or (lambda data: None))
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror}); expected a file that rometrace wrote") from None


def lines_of(
    where: str, stream: BinaryIO, note: Callable[[str], None], on_bytes: Callable[[bytes], Any]
) -> Iterator[Line]:
    place = 0
    seen = False
    for number, data in enumerate(stream, 1):
        on_bytes(data)
        if not data.strip():
            continue
        here = f"{where}, line {number}"
        if not seen and not is_json(data):
            yield Line(where, 1, whole_record(where, data, stream, on_bytes))
            return
        if not data.endswith(b"\n") and seen and not is_json(data):
            note(f"{here} is not complete and is left out; was the run stopped?")
            return
        line = Line(here, place + 1, data)
        if line.schema == BATCH_SCHEMA:
            line = Line(here, 0, data)
        else:
            place += 1
            check_schema(line)
        seen = True
        yield line
    if not seen:
        hint = "; did rometrace fail? Its message is above" if where == "standard input" else ""
        raise UserError(f"{where} is empty, expected a JSON record{hint}")


def whole_record(where: str, first: bytes, stream: BinaryIO, on_bytes: Callable[[bytes], Any]) -> bytes:
    """All of a file that holds one record over several lines."""
    second = stream.readline()
    on_bytes(second)
    if second.startswith(b"{"):
        parse_json(f"{where}, line 1", first)
    rest = stream.read()
    on_bytes(rest)
    check_object(where, parse_json(where, first + second + rest))
    return first + second + rest


def choose(records: Iterator[Line], where: str, fact_id: str | None, number: int | None, otherwise: str = "") -> Line:
    """The one of `records` that --id or --record names, or the only traced one; `otherwise`: what else can be done."""
    given = [f"{name} {value}" for name, value in (("--id", fact_id), ("--record", number)) if value is not None]
    count = traced = matches = 0
    chosen: Line | None = None
    for line in records:
        count += 1
        if given and not (line.id == fact_id if fact_id is not None else line.record == number):
            continue
        matches += 1
        traced += line.status == "traced"
        if chosen is None or (chosen.status != "traced" and line.status == "traced"):
            chosen = line
    if given and chosen is None:
        raise UserError(f"{where} has no {given[0]} among its {count} records")
    if chosen is None:
        raise UserError(f"{where} holds no records, only a header")
    if traced > 1 and given:
        raise UserError(
            f"{where} holds {traced} traces of {given[0]}; choose one with --record, such as {chosen.record}"
        )
    if traced > 1:
        raise UserError(f"{where} holds {count} records, expected one; choose it with --id or --record{otherwise}")
    if traced == 0 and matches > 1:
        raise UserError(f"{where} holds {matches} records, none of them traced; there is nothing to draw")
    return chosen


def found_record(line: Line) -> dict[str, Any]:
    """The line's record, if its fact was traced."""
    record = line.value
    if record.get("status") in ("skipped", "failed"):
        reason = one_line(record.get("reason", "no reason given"), 200)
        raise UserError(f"{line.where} is the record of a {record['status']} fact ({reason}); there is nothing to draw")
    return record


def neuron_record(line: Line) -> dict[str, Any]:
    """The line's record, if neurons were traced."""
    record = found_record(line)
    if not isinstance(record.get("neurons"), dict):
        raise UserError(f'{line.where} has no "neurons"; trace it with rometrace --kinds neuron')
    return record


def traced_record(line: Line) -> dict[str, Any]:
    """The line's record, if it is a traced one that has grids, or a knockout."""
    record = found_record(line)
    grids, knockout = record.get("grids"), record.get("knockout")
    if not (isinstance(grids, dict) and grids) and not isinstance(knockout, dict):
        if isinstance(record.get("neurons"), dict):
            hint = f"; {program_name('plot_neurons')} draws neurons"
            raise UserError(f"{line.where} is a trace of neurons alone, expected at least one of {', '.join(KINDS)}{hint}")
        raise UserError(f'{line.where} has no "grids", expected at least one of {", ".join(KINDS)}')
    return record


def check_schema(line: Line) -> None:
    """Raises UserError unless the line is a trace's."""
    if line.schema != TRACE_SCHEMA:
        hint = hint_about(line.schema)
        raise UserError(
            f'{line.where} is of schema "{one_line(line.schema)}", this program draws "{TRACE_SCHEMA}"{hint}'
        )


def hint_about(schema: str) -> str:
    """What to do with a line of a schema other than a trace's, where that is known."""
    if schema == SUMMARY_SCHEMA:
        return f"; {program_name('plot_summary')} draws summaries"
    if schema in (EDIT_SCHEMA, EDIT_SUMMARY_SCHEMA):
        return f"; {program_name('plot_edit')} draws edits"
    return "; it holds no traces: run rometrace without --probe" if schema == PROBE_SCHEMA else ""


def is_json(data: bytes) -> bool:
    try:
        json.loads(data)
        return True
    except (ValueError, RecursionError):
        return False


def parse_json(where: str, data: bytes) -> Any:
    """The JSON value that `data` is."""
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"{where} is not JSON ({reason}), expected what rometrace wrote") from None


def check_object(where: str, value: Any) -> dict[str, Any]:
    """`value`, if it is an object that names its schema."""
    if not isinstance(value, dict) or "schema" not in value:
        raise UserError(f'{where} is JSON without "schema", expected what rometrace wrote')
    return value


def read_grid(name: str, grid: Any, shape: tuple[int, ...], bounded: bool = True) -> list[Any]:
    """`grid` as [P][L] or [P][L][H] finite numbers, from -1 to 1 if `bounded`.

    Raises TypeError or ValueError where an entry is no number.
    """
    numbers = read_numbers(name, grid, shape)
    for value in flat(numbers):
        if not (abs(value) <= 1.001 if bounded else math.isfinite(value)):
            raise UserError(f"{name} holds {'a number that is no probability' if bounded else 'what is no number'}")
    return numbers


def read_numbers(name: str, values: Any, shape: tuple[int, ...], missing: float | None = None) -> list[Any]:
    """Nested lists of the shape; `missing` takes the place of null, which is refused by a TypeError without it."""

    def read(value: Any, sizes: tuple[int, ...]) -> Any:
        if not sizes:
            return missing if value is None and missing is not None else float(value)
        rows = [read(inner, sizes[1:]) for inner in value]
        if len(rows) != sizes[0]:
            raise UserError(wrong)
        return rows

    wrong = f"{name} is not " + " by ".join(f"{n} {what}" for n, what in zip(shape, ("tokens", "layers", "heads")))
    if 0 in shape:
        raise UserError(wrong)
    return read(values, shape)


def flat(values: Any) -> Iterator[float]:
    """The numbers of nested lists."""
    for value in values:
        if isinstance(value, list):
            yield from flat(value)
        else:
            yield value


def positions_of(name: str, grid: dict[str, Any], tokens: int) -> list[int]:
    """[P] The prompt's positions that have a row in the grid: those it lists, else all."""
    positions = [int(position) for position in grid.get("positions", range(tokens))]
    outside = [position for position in positions if not 0 <= position < tokens]
    if outside or len(set(positions)) < len(positions):
        what = f"position {outside[0]}" if outside else "a position twice"
        raise UserError(f"{name} has a row for {what}, expected positions from 0 to {tokens - 1}, each once")
    return positions


def corrupted_positions(record: dict[str, Any]) -> list[int]:
    """The subject's positions; with a counter prompt those where the two differ."""
    if isinstance(record.get("counter"), dict):
        pairs = zip(record["token_ids"], record["counter"]["token_ids"], strict=True)
        return [position for position, (own, other) in enumerate(pairs) if own != other]
    begin, end = (int(position) for position in record["subject_range"])
    return list(range(begin, end))


def run_of(record: dict[str, Any]) -> dict[str, Any]:
    """How it was traced; empty if the record does not say."""
    return record["run"] if isinstance(record.get("run"), dict) else {}


def is_noising(run: dict[str, Any]) -> bool:
    """Whether corrupted values were put into the clean run, not clean ones into the corrupted run."""
    return run.get("direction") == "noising"


def directions_of(record: dict[str, Any]) -> tuple[str, ...]:
    """What a record, or a summary's averages with its run, can be drawn as: its direction, or all of `both`."""
    run = run_of(record)
    if run.get("direction") == "both":
        return DIRECTIONS
    return ("noising",) if is_noising(run) else ("denoising",)


def as_noising(record: dict[str, Any]) -> dict[str, Any]:
    """A record of both directions with the grids and measures of its noising in the place of those of denoising."""
    noising = {"run": run_of(record) | {"direction": "noising"}, "grids": record["noising"]["grids"]}
    if record.get("measures"):  # what a measure is of stands in those of denoising
        found = record["noising"]["measures"]
        noising["measures"] = {name: measure | found[name] for name, measure in record["measures"].items()}
    return record | noising


def layers_text(layers: list[Any]) -> str:
    """ "layer 5", "layers 3-6, 9"."""
    stretches: list[list[int]] = []
    for layer in map(int, layers):
        if stretches and layer == stretches[-1][-1] + 1:
            stretches[-1].append(layer)
        else:
            stretches.append([layer])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in ((s[0], s[-1]) for s in stretches)]
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(words)}"


def edits_of(model: Any) -> str:
    """What a reader must know of an edited model: "edited: r-rome, layer 5, 1 fact (a1b2c3d4)"; empty where it is not."""
    edits = model.get("edits") if isinstance(model, dict) else None
    if not edits:
        return ""
    parts = []
    for edit in edits if isinstance(edits, list) else []:
        try:
            facts = int(edit["requests"])
            method, digest = printable(str(edit["method"])), printable(str(edit["sha256"]))[:8]
            parts.append(f"{method}, {layers_text(edit['layers'])}, {facts} fact{'s' * (facts != 1)} ({digest})")
        except (KeyError, TypeError, ValueError):
            parts.append("by an unknown edit")
    return "edited: " + "; ".join(parts or ["by an unknown edit"])


def model_name(model: dict[str, Any], longest: int) -> str:
    """The name of a record's model for a label, at most `longest` characters, and whether it is edited."""
    name = shorten(base_name(model["name"]), longest)
    return f"{name} (edited)" if edits_of(model) else name


def remarks_on(run: dict[str, Any], counter: Any = None, model: Any = None) -> list[str]:
    """What a reader of a picture must know of how it was made: an edited model, an approximation, a corruption other
    than noise."""
    remarks = [edits_of(model)] if edits_of(model) else []
    remarks += ["approximation (attribution patching)"] if run.get("approximate") else []
    corruption = run.get("corruption")
    method = corruption.get("method") if isinstance(corruption, dict) else None
    if method == "tokens":
        prompt = f": “{shorten(printable(str(counter['prompt'])), 60)}”" if isinstance(counter, dict) else ""
        remarks.append(f"corrupted by another prompt's tokens{prompt}")
    elif method == "zero":
        remarks.append("corrupted by embeddings of zero")
    elif method == "mean":
        text = corruption.get("text")
        name = f" of {shorten(printable(str(text['name'])), 40)}" if isinstance(text, dict) and "name" in text else ""
        remarks.append(f"corrupted by the mean embedding{name}")
    return remarks


# --- Text -------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """`text` with control, format and unassigned characters escaped, so that it stays on its line."""
    escapes = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}

    def show(character: str) -> str:
        if unicodedata.category(character)[0] not in "CZ" or character == " ":
            return character
        return escapes.get(character) or escape(character)

    return text if text.isascii() and text.isprintable() else "".join(show(character) for character in text)


def one_line(text: Any, longest: int = 80) -> str:
    """Foreign text for a message."""
    return shorten(printable(str(text)), longest)


def escape(character: str) -> str:
    """A character that cannot be shown, as the Unicode standard names it."""
    return f"U+{ord(character):04X}"


def token_text(text: str, token_bytes: str) -> str:
    """A token as it is shown: without its leading space; raw bytes where it is not UTF-8 on its own."""
    raw = bytes.fromhex(token_bytes)
    if "\ufffd" in text and "\ufffd".encode() not in raw:
        text = raw.decode("utf-8", errors="backslashreplace")
    stripped = text[1:] if text.startswith(" ") and text.strip(" ") else text
    return printable(stripped.replace(" ", "␣") if not stripped.strip(" ") else stripped)


def shorten(text: str, longest: int) -> str:
    """At most `longest` characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def base_name(model: Any) -> str:
    """The last part of a model's name or folder."""
    return printable(Path(str(model)).name)


# --- Programs ---------------------------------------------------------------------------------------------------


def program_name(module: str | None = None) -> str:
    """What the user calls this program; with `module`, another program of this package in the same installation.

    A checkout has plot_trace.py, an installation has rometrace-plot-trace.
    """
    name = Path(sys.argv[0]).name
    if module is None:
        return name
    return f"{module}.py" if name.endswith(".py") else f"rometrace-{module.replace('_', '-')}"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def positive(text: str) -> int:
    """An argument that counts something, from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def finish(program: str, work: Callable[[], int], tell: Callable[[str], None] | None = None) -> int:
    """Does a program's work and gives its exit status; what went wrong is told in one line, by `tell` or on stderr."""
    tell = tell or (lambda message: print(f"{program}: {message}", file=sys.stderr))
    try:
        return work()
    except UserError as error:
        tell(str(error))
        return 2
    except KeyboardInterrupt:
        tell("interrupted")
        return 130


def check_folder_of(output: Path) -> None:
    """Refuses, before anything is read, a file that could not be written in the end."""
    if not output.parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}; make it first")
    if output.is_dir():
        raise UserError(f"{output} is a folder, expected a file name")


@contextlib.contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A file beside `output` that takes its place in the end, or goes if anything fails."""
    part = output.with_name(f".{output.name}.part")
    try:
        yield part
        os.replace(part, output)
    except OSError as error:
        raise WriteError(f"{output}: cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)


class Progress:
    """How far a program is: on a terminal a line that changes, elsewhere a plain line every ten seconds."""

    def __init__(self, program: str, what: str, total: int | None) -> None:
        self.program_, self.what_, self.total_ = program, what, total
        self.done_ = 0
        self.terminal_ = sys.stderr.isatty()
        self.began_ = self.shown_ = time.monotonic()

    def step(self) -> None:
        """One more is done."""
        self.done_ += 1
        now = time.monotonic()
        if now - self.shown_ >= (0.2 if self.terminal_ else 10):
            self.shown_ = now
            of = f" of {self.total_}" if self.total_ else ""
            rate = self.done_ / (now - self.began_)
            left = f", {(self.total_ - self.done_) / rate:.0f} s left" if self.total_ else ""
            self.write_(f"{self.program_}: {self.done_}{of} {self.what_}{left}")

    def note(self, message: str) -> None:
        """A message on a line of its own."""
        self.clear_()
        print(f"{self.program_}: {message}", file=sys.stderr)

    def finish(self, message: str) -> None:
        """The last line."""
        self.note(message)

    def write_(self, text: str) -> None:
        print(
            f"\r\033[K{text}" if self.terminal_ else text,
            end="" if self.terminal_ else "\n",
            file=sys.stderr,
            flush=True,
        )

    def clear_(self) -> None:
        if self.terminal_:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
