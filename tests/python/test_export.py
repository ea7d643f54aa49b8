"""`rometrace export`: the table holds what the records hold, number for number, and bad input gets one line."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from batches import command, environment, refused, run
from conftest import Rometrace
from records import HIGH, LOW, make_neuron_record, make_record, make_skipped_record, make_whole_record
from zygote import RUNNER

ROLES = {0: "first_subject", 1: "last_subject", 2: "first_subsequent", 3: "last"}  # of "Miles Davis plays the"


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def write_lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def cells_of(values: Any) -> Iterator[float]:
    """The numbers of nested lists, row by row."""
    for value in values:
        if isinstance(value, list):
            yield from cells_of(value)
        else:
            yield value


@pytest.fixture(scope="module")
def batch(bin_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight facts with most of what can be asked of a trace."""
    path = tmp_path_factory.mktemp("export") / "results.jsonl"
    more = ("--kinds", "state,mlp,head,knockout", "--window", "3", "--measures", "rank,kl,normalised")
    assert run(command(bin_dir / "rometrace", path, *more, limit=8)).returncode == 0
    return path


@pytest.fixture
def exported(rometrace: Rometrace):
    """exported(...) gives the rows of `rometrace export ...`."""

    def run_it(*arguments: Any) -> list[dict[str, str]]:
        done = rometrace("export", *arguments)
        assert done.returncode == 0, done.stderr
        return rows_of(done.stdout)

    return run_it


def test_a_table_of_a_batch_has_every_number_of_its_records_as_it_was(exported, batch):
    rows = iter(exported(batch, "--format", "csv"))
    lines = batch.read_text().splitlines()
    for number, line in enumerate(lines[1:], start=2):
        record = json.loads(line)
        noises = {"high": record["high_score"], "low": record["low_score"]}
        readings = [("probability", noises, "scores", "standard_error")]
        readings += [(name, measure, "values", "standard_error") for name, measure in record["measures"].items()]
        for kind, grid in [*record["grids"].items(), ("knockout", record["knockout"])]:
            for measure, ends, values, errors in readings[: 1 if kind == "knockout" else None]:
                if kind == "knockout":
                    found = [(name, None, s, None) for name, group in grid["groups"].items() for s in group["scores"]]
                else:
                    source = grid if measure == "probability" else ends["grids"][kind]
                    scores = list(cells_of(source[values]))
                    errs = list(cells_of(source[errors])) if source[errors] else [None] * len(scores)
                    cells = len(scores) // len(grid["positions"])
                    found = [
                        (None, grid["positions"][i // cells], score, error)
                        for i, (score, error) in enumerate(zip(scores, errs, strict=True))
                    ]
                heads = record["model"]["heads"] if kind == "head" else 1
                layers = record["model"]["layers"]
                for i, (group, position, score, error) in enumerate(found):
                    row = next(rows)
                    assert row["file"] == str(batch) and int(row["line"]) == number
                    assert row["fact"] == record["fact"]["id"] and row["relation"] == record["fact"]["relation"]
                    assert (row["subject"], row["object"]) == (record["subject"], record["fact"]["object"])
                    assert (row["answer"], row["target"]) == (record["answer"], record["answer"])
                    assert (row["kind"], row["measure"], row["direction"]) == (kind, measure, "denoising")
                    assert int(row["window"]) == grid["window"]
                    assert int(row["layer"]) == i // heads % layers
                    assert row["head"] == (str(i % heads) if kind == "head" else "")
                    assert float(row["score"]) == score
                    assert (row["error"] == "") == (error is None) and float(row["error"] or 0) == (error or 0)
                    assert (float(row["high"]), float(row["low"])) == (ends["high"], ends["low"])
                    lost = ends["high"] - score if kind == "knockout" else score - ends["low"]
                    assert float(row["effect"]) == lost
                    if group is not None:
                        assert (row["position"], row["token"], row["role"]) == ("", "", group)
                    else:
                        assert int(row["position"]) == position
                        assert row["token"] == record["tokens"][position]
    assert next(rows, None) is None


def test_roles_are_those_of_the_summary(exported, tmp_path):
    rows = exported(write_lines(tmp_path / "one.json", make_record()))
    assert {int(row["position"]): row["role"] for row in rows} == ROLES
    before = make_record() | {"subject_range": [1, 2], "subject": " Davis"}
    rows = exported(write_lines(tmp_path / "before.json", before))
    assert {int(row["position"]): row["role"] for row in rows}[0] == ""


def test_every_column_is_documented(rometrace, repository, tmp_path):
    page = (repository / "docs/formats.md").read_text()
    section = page[page.index("## A table") :]
    section = section[: section.index("\n## ", 1)]
    for what in ("cells", "neurons", "sets"):
        done = rometrace("export", write_lines(tmp_path / "one.json", make_neuron_record()), "--what", what)
        names = done.stdout.splitlines()[0].split(",")
        assert len(names) == len(set(names)) and all(f"`{name}`" in section for name in names), names


def test_a_trace_printed_over_many_lines_and_one_from_stdin_are_the_same(rometrace, tmp_path, bin_dir):
    record = make_whole_record()
    text = json.dumps(record, indent=2)
    (tmp_path / "pretty.json").write_text(text)
    from_file = rometrace("export", tmp_path / "pretty.json")
    assert from_file.returncode == 0, from_file.stderr
    done = subprocess.run([bin_dir / "rometrace", "export", "-"], input=text, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    as_file = [row | {"file": "-"} for row in rows_of(from_file.stdout)]
    assert rows_of(done.stdout) == as_file and len(as_file) > 100
    assert {row["fact"] for row in as_file} == {""}


def test_both_directions_are_told_apart_and_their_interaction_is_an_effect(exported, traced, tmp_path):
    asked = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--samples", "2", "--kinds", "state,head")
    record = traced(*asked, "--direction", "both", "--measures", "kl", "-q")
    rows = exported(write_lines(tmp_path / "both.json", record))
    effects: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        cell = (row["kind"], row["measure"], row["position"], row["layer"], row["head"])
        effects.setdefault(cell, {})[row["direction"]] = float(row["effect"])
        assert (row["score"] == "") == (row["direction"] == "both")
    cells = 4 * 8 * (1 + 4)
    assert len(rows) == 5 * cells  # the probability in three ways, a measure in two
    for (_, measure, *_), found in effects.items():
        assert sorted(found) == (["both"] if measure == "probability" else []) + ["denoising", "noising"]
        if measure == "probability":
            assert found["both"] == pytest.approx(found["noising"] - found["denoising"], abs=1e-12)
    state = [row for row in rows if (row["direction"], row["kind"]) == ("both", "state")]
    noising = record["noising"]["grids"]["state"]
    assert [float(row["effect"]) for row in state] == list(cells_of(noising["interaction"]))
    assert [float(row["error"]) for row in state] == list(cells_of(noising["interaction_standard_error"]))


def test_neurons_and_their_sets_are_tables_of_their_own(exported, rometrace, tmp_path):
    record = make_neuron_record(by_layer=True)
    path = write_lines(tmp_path / "neurons.json", record)
    neurons = record["neurons"]
    rows = exported(path, "--what", "neurons")
    assert len(rows) == len(neurons["effects"])
    for row, effect in zip(rows, neurons["effects"]):
        for name in ("layer", "neuron", "position", "score", "estimate", "row_norm"):
            assert float(row[name]) == effect[name], name
        assert (float(row["clean"]), float(row["corrupted"])) == (1.5, -0.25)
        assert (row["promotes"], row["suppresses"], row["token"]) == (" trumpet", " piano", " Davis")
        assert (row["role"], row["measure"]) == ("last_subject", "probability")
        assert float(row["effect"]) == float(row["score"]) - LOW and float(row["high"]) == HIGH
    rows = exported(path, "--what", "sets")
    sets = [{"order": "estimate"} | each for each in neurons["sets"] + neurons["sets_by_layer"]] + neurons["controls"]
    assert len(rows) == len(sets)
    for row, found in zip(rows, sets):
        assert (row["order"], int(row["neurons"])) == (found["order"], found["neurons"])
        assert row["layer"] == str(found.get("layer", "")) and float(row["score"]) == found["score"]
    empty = rometrace("export", path)
    assert (empty.returncode, rows_of(empty.stdout)) == (0, [])
    assert "no record has grids; --what neurons writes the neurons" in empty.stderr
    empty = rometrace("export", write_lines(tmp_path / "grids.json", make_record()), "--what", "sets")
    assert "no record has neurons; --what cells writes the grids" in empty.stderr


def test_texts_that_csv_must_quote_come_back(exported, bin_dir, tmp_path):
    facts = tmp_path / "facts.json"
    fact = {"id": 'a,"b"\nc', "subject": "Miles Davis", "object": "trumpet", "relation": "x,y"}
    fact["prompt"] = "{} plays the"
    facts.write_text(json.dumps([fact]))
    output = tmp_path / "results.jsonl"
    assert run(command(bin_dir / "rometrace", output, "--noise", "0.25", facts=facts)).returncode == 0
    rows = exported(output)
    assert {(row["fact"], row["relation"]) for row in rows} == {(fact["id"], "x,y")}
    assert [row["token"] for row in rows[::8]] == ["Miles", " Davis", " plays", " the"]


def test_several_files_are_one_table_with_the_name_of_each(exported, batch, tmp_path):
    one = write_lines(tmp_path / "one.json", make_record())
    rows = exported(batch, one)
    assert [row["file"] for row in rows] == sorted((row["file"] for row in rows), key=[str(batch), str(one)].index)
    assert sum(row["file"] == str(one) for row in rows) == 3 * 4 * 6


def test_records_that_were_not_traced_are_counted(rometrace, tmp_path):
    path = write_lines(tmp_path / "results.jsonl", make_record(), make_skipped_record() | {"cause": "other_answer"})
    done = rometrace("export", path)
    assert done.returncode == 0
    assert done.stderr == "rometrace: 2 records (1 skipped), 72 lines\n"
    assert rometrace("export", path, "-q").stderr == ""


def test_the_output_file_is_replaced_in_one_step(rometrace, batch, tmp_path):
    table = tmp_path / "cells.csv"
    table.write_text("old")
    broken = tmp_path / "broken.jsonl"
    broken.write_text(batch.read_text() + "{}\n")
    refused(rometrace("export", broken, "-o", table), "an object without a schema")
    assert table.read_text() == "old"
    assert rometrace("export", batch, "-o", table).returncode == 0
    assert table.read_text() == rometrace("export", batch).stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl", "cells.csv"]
    refused(rometrace("export", batch, "-o", batch), "is to be read and written; name another file with -o")
    other = tmp_path / "other.jsonl"
    other.write_text(batch.read_text())
    refused(rometrace("export", batch, "-o", other), "holds the results of a batch")


def test_a_torn_end_is_told_and_left_out(rometrace, batch, tmp_path):
    torn = tmp_path / "torn.jsonl"
    text = batch.read_text()
    torn.write_text(text[: text.rindex("\n", 0, -1) + 200])
    done = rometrace("export", torn)
    assert done.returncode == 0
    assert "torn.jsonl: line 9 is cut short; it was left out" in done.stderr
    whole = rows_of(rometrace("export", batch).stdout)
    found = rows_of(done.stdout)
    assert [row | {"file": ""} for row in found] == [row | {"file": ""} for row in whole if int(row["line"]) < 9]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "is empty; expected traces"),
        ("fact,kind\n", "not JSON"),
        ('{"schema": "rometrace/probe/1"}\n', "results of a probe (rometrace/probe/1); expected traces"),
        ('{"schema": "rometrace/batch/1", "command": "probe"}\n', "results of a probe"),
        ('{"schema": "rometrace/summary/1"}', "a summary"),
        ('{"schema": "rometrace/trace/2"}', "another version of rometrace"),
        ('{"schema": "rometrace/trace/1", "status": "traced"}', "results.jsonl, line 1: model is missing"),
    ],
)
def test_other_files_are_refused_by_name(rometrace, tmp_path, text, words):
    (tmp_path / "results.jsonl").write_text(text)
    refused(rometrace("export", tmp_path / "results.jsonl", "-o", tmp_path / "cells.csv"), words)
    assert not (tmp_path / "cells.csv").exists()


def test_wrong_command_lines_get_one_line(rometrace, batch, tmp_path):
    refused(rometrace("export"), "files is required")
    refused(rometrace("export", batch, "--format", "xlsx"), '--format: "xlsx"; expected csv or npz')
    refused(rometrace("export", batch, "--what", "maps"), '--what: "maps"; expected cells, neurons or sets')
    refused(rometrace("export", tmp_path / "none.jsonl"), "none.jsonl")
    refused(rometrace("export", batch, batch), "the same file twice")


def test_a_full_disk_is_one_line(bin_dir, batch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        done = RUNNER.run(
            [bin_dir / "rometrace", "export", batch],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            encoding="utf-8",
        )
    assert done.returncode == 2
    assert done.stderr == "rometrace: standard output: no space left; free some or write to another place with -o\n"
