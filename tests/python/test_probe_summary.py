"""The summary of probes: its schema, and that no fact is missing or counted twice unsaid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import jsonschema
import pytest

from batches import FACTS
from conftest import Rometrace

Line = dict[str, Any]
SELECTED = 9


@pytest.fixture(scope="module")
def results(rometrace: Rometrace, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Header and lines of a probe of a few facts."""
    file = tmp_path_factory.mktemp("probe") / "probe.jsonl"
    done = rometrace("--facts", FACTS, "--sample", SELECTED, "--probe", "-q", "-o", file)
    assert done.returncode == 0, done.stderr
    return file.read_text().splitlines()


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_a_whole_probe_is_summarised_as_the_schema_says(
    repository: Path, rometrace: Rometrace, validate: Callable[[Any], None], results: list[str], tmp_path: Path
) -> None:
    schema = json.loads((repository / "share/rometrace/schema/probe-summary-1.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    done = rometrace("summary", write(tmp_path / "a.jsonl", results), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    validate(found)
    header = json.loads(results[0])
    assert found["facts"] == [header["facts"] | {"lines": SELECTED}]
    assert (found["warnings"], found["torn_lines"], found["records"]) == ([], 0, SELECTED)

    # Lines without a header, of which one has no relation and one was not probed.
    lines = [json.loads(line) for line in results[1:4]]
    lines[0]["fact"]["relation"] = None
    lines[1] = {name: lines[1][name] for name in ("schema", "rometrace", "fact", "model", "run", "known_by")}
    lines[1] |= {"status": "skipped", "cause": "no_object", "reason": "none"}
    done = rometrace("summary", write(tmp_path / "b.jsonl", [json.dumps(line) for line in lines]), "--json")
    found = json.loads(done.stdout)
    validate(found)
    assert found["facts"] == [] and found["causes"] == {"no_object": 1} and "(none)" in found["by"]["relation"]


def test_the_schema_of_the_summary_refuses_what_is_never_written(
    rometrace: Rometrace, validate: Callable[[Any], None], results: list[str], tmp_path: Path
) -> None:
    found = json.loads(rometrace("summary", write(tmp_path / "a.jsonl", results), "--json").stdout)
    said = found["overall"]["said"]
    wrong = [
        {"status": {"traced": 1}},
        {"records": -1},
        {"known_by": "often"},
        {"files": []},
        {"warnings": [1]},
        {"overall": found["overall"] | {"said": said | {"share": 1.5}}},
        {"overall": found["overall"] | {"facts": None}},
        {"by": {}},
        {"by": {"relation": {"r": found["overall"]}}},
        {"facts": [{"files": []}]},
    ]
    for changes in wrong:
        with pytest.raises(jsonschema.ValidationError):
            validate(found | changes)
    for name in ("model", "run", "known_by", "records", "intervals", "rules", "overall", "by"):
        with pytest.raises(jsonschema.ValidationError):
            validate({key: value for key, value in found.items() if key != name})


def test_facts_that_are_missing_are_named(rometrace: Rometrace, results: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", results[:-2])
    done = rometrace("summary", file, "--json")
    assert done.returncode == 0
    words = f"facts.json: 2 of {SELECTED} facts have no line: a batch is not finished, or a shard's file is missing"
    assert json.loads(done.stdout)["warnings"] == [words]
    assert done.stderr == f"rometrace: {words}\n"

    file.write_text(file.read_text() + results[-2][:40])
    done = rometrace("summary", file, "--json")
    found = json.loads(done.stdout)
    assert found["torn_lines"] == 1 and found["records"] == SELECTED - 2
    assert [warning.split(": ")[1] for warning in found["warnings"]] == ["the last line is not whole and was left out", f"2 of {SELECTED} facts have no line"]


def test_a_fact_in_two_lines_is_refused(rometrace: Rometrace, results: list[str], tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", results), write(tmp_path / "b.jsonl", [results[0], results[3]])
    record = json.loads(results[3])["fact"]["record"]
    done = rometrace("summary", a, b, "--json")
    assert done.returncode == 2 and done.stdout == ""
    assert f"b.jsonl, line 2: record {record} of facts.json was in a line before; a fact counts once" in done.stderr
    foreign = json.loads(results[1])
    foreign["fact"]["record"] = 10**6
    done = rometrace("summary", write(a, [results[0], json.dumps(foreign)]), "--json")
    assert done.returncode == 2 and "record 1000000 of 1029" in done.stderr


def test_shards_make_a_whole(rometrace: Rometrace, tmp_path: Path) -> None:
    for part in ("1/2", "2/2"):
        assert rometrace("--facts", FACTS, "--limit", 5, "--probe", "--shard", part, "-q", "-o", tmp_path / "p.jsonl").returncode == 0
    parts = [tmp_path / f"p.{n}-of-2.jsonl" for n in (1, 2)]
    both = json.loads(rometrace("summary", *parts, "--json").stdout)
    assert both["warnings"] == [] and both["facts"][0]["lines"] == 5
    assert json.loads(rometrace("summary", parts[0], "--json").stdout)["warnings"] != []
