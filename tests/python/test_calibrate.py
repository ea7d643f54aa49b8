"""`rometrace calibrate` says of each factor what `rometrace --noise s<k>` and `rometrace summary` say of its facts."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from batches import FACTS, environment, refused, run
from conftest import Rometrace
from waiting import PATIENCE

SAME = ("--facts", FACTS, "--sample", 12, "--sample-seed", 4, "--window", 3, "--kinds", "state,mlp", "--samples", 3)
FACTORS = (0.5, 1.5, 3)


@pytest.fixture(scope="module")
def found(rometrace: Rometrace) -> dict[str, Any]:
    """Of a dozen facts; factors in no order."""
    done = rometrace("calibrate", *SAME, "--factors", "3,0.5,1.5", "--json", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def validator(repository: Path) -> jsonschema.Draft202012Validator:
    schema = json.loads((repository / "share/rometrace/schema/calibration-1.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def close(found: Any, expected: Any) -> bool:
    """Within float32's rounding: facts share sweeps in other groups."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def summary_of(rometrace: Rometrace, factor: float, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines of a batch of the same facts, and their summary."""
    file = folder / f"{factor}.jsonl"
    done = rometrace(*SAME, "--noise", f"s{factor}", "-o", file, "-q")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    done = rometrace("summary", file)
    assert done.returncode == 0, done.stderr
    return lines, json.loads(done.stdout)


def hardly_lowered(line: dict[str, Any]) -> bool:
    effect = line["total_effect"]
    return not (effect > 0 and effect >= 0.05 * line["high_score"] and effect >= 2 * line["low_standard_error"])


@pytest.mark.parametrize("place", range(len(FACTORS)))
def test_each_factors_numbers_are_those_of_a_batch_and_its_summary(
    place: int, found: dict[str, Any], rometrace: Rometrace, tmp_path: Path
) -> None:
    factor, ours = FACTORS[place], found["factors"][place]
    (header, *lines), summary = summary_of(rometrace, factor, tmp_path)
    assert (ours["factor"], ours["noise"]) == (factor, {"rule": f"s{factor}", "sigma": header["run"]["noise"]["sigma"]})
    assert found["facts"] == header["facts"]
    assert found["status"] == summary["status"] == {"traced": 12, "skipped": 0, "failed": 0}
    theirs = summary["overall"]
    assert ours["facts"] == theirs["facts"] == 12
    for name in ("high_score", "low_score", "total_effect"):
        for part, value in theirs[name].items():
            assert close(ours[name][part], value), (name, part)
    assert ours["lost"] == pytest.approx(ours["total_effect"]["mean"] / ours["high_score"]["mean"])
    count = sum(map(hardly_lowered, lines))
    assert ours["hardly_lowered"] == {"facts": count, "share": count / 12}
    assert list(ours["kinds"]) == ["state", "mlp"]
    for kind, peak in ours["kinds"].items():
        role = theirs["kinds"][kind]["roles"]["last_subject"]
        layer = role["peak"]["layer"]
        assert peak["window"] == theirs["kinds"][kind]["window"] == (1 if kind == "state" else 3)
        assert peak["facts"] == role["facts"]
        assert (peak["peak"]["layer"], peak["peak"]["layers"]) == (layer, role["peak"]["layers"])
        assert peak["peak"]["share"] == pytest.approx(role["peak"]["share"], abs=2e-3)
        assert close(peak["peak"]["aie"], role["aie"][layer])
        assert close(peak["standard_error"], role["standard_error"][layer])
        for name in ("normal", "bootstrap"):
            assert close(peak[name], [role[f"{name}_low"][layer], role[f"{name}_high"][layer]])


def test_the_recommendation_follows_the_rule(found: dict[str, Any]) -> None:
    factors = found["factors"]
    largest = factors[-1]["total_effect"]["mean"]
    good = []
    for place, factor in enumerate(factors):
        neighbour = factors[place + 1 if place + 1 < len(factors) else place - 1]
        strong = factor["total_effect"]["mean"] >= 0.9 * largest
        stable = [
            abs(kind["peak"]["layer"] - neighbour["kinds"][name]["peak"]["layer"]) <= 1
            for name, kind in factor["kinds"].items()
        ]
        assert factor["strong_enough"] == strong
        assert [kind["stable"] for kind in factor["kinds"].values()] == stable
        if strong and all(stable):
            good.append(factor["factor"])
    assert found["recommendation"]["factor"] == (good[0] if good else None)
    assert "at least 90 %" in found["rule"] and "at least 90 %" in found["recommendation"]["reason"]


def test_the_schema_describes_what_is_written(repository: Path, found: dict[str, Any], rometrace: Rometrace) -> None:
    check = validator(repository)
    check.validate(found)
    one = rometrace("calibrate", "--facts", FACTS, "--sample", 1, "--factors", "2", "--samples", 1, "-q")
    single = json.loads(one.stdout)
    check.validate(single)
    assert single["recommendation"]["factor"] is None
    assert "only one" in single["recommendation"]["reason"]
    assert single["factors"][0]["total_effect"]["standard_error"] is None
    for broken in (
        {**found, "schema": "rometrace/calibration/2"},
        {**found, "factors": []},
        {**found, "factors": [{**found["factors"][0], "kinds": {"state": {}}}]},
        {**found, "recommendation": {"factor": "3", "reason": ""}},
        {name: value for name, value in found.items() if name != "rule"},
    ):
        assert not check.is_valid(broken)


def some_facts(path: Path, *objects: str) -> Path:
    prompt = {"subject": "Miles Davis", "prompt": "Miles Davis plays the"}
    path.write_text(json.dumps([{**prompt, "id": f"f{i}", "object": o} for i, o in enumerate(objects)]))
    return path


def test_facts_that_are_not_traced_are_counted_once(rometrace: Rometrace, tmp_path: Path) -> None:
    facts = some_facts(tmp_path / "facts.json", "trumpet", "violin", "trumpet")
    done = rometrace("calibrate", "--facts", facts, "--factors", "1,3", "--samples", 2)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["records"] == 3
    assert found["status"] == {"traced": 2, "skipped": 1, "failed": 0}
    assert found["causes"] == {"other_answer": 1}
    assert [factor["facts"] for factor in found["factors"]] == [2, 2]
    for more, traced in ((("--all",), 3), (("--target", "object"), 3)):
        done = rometrace("calibrate", "--facts", facts, "--factors", "1,3", "--samples", 2, *more)
        assert json.loads(done.stdout)["status"]["traced"] == traced


def test_a_bad_record_is_named_and_the_status_is_one(rometrace: Rometrace, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    good = {"id": "a", "subject": "Miles Davis", "prompt": "Miles Davis plays the"}
    facts.write_text(json.dumps([good, {**good, "id": "b", "subject": "Chopin"}]))
    done = rometrace("calibrate", "--facts", facts, "--factors", "1,3", "--samples", 2)
    assert done.returncode == 1
    assert done.stderr.count("failed: ") == 1 and "record 2" in done.stderr
    assert json.loads(done.stdout)["status"] == {"traced": 1, "skipped": 0, "failed": 1}


@pytest.mark.parametrize("more, said", [(0, []), (1, ["1 further failure was"]), (3, ["3 further failures were"])])
def test_of_many_failures_the_first_are_told_and_the_rest_are_counted(
    rometrace: Rometrace, tmp_path: Path, more: int, said: list[str]
) -> None:
    facts = tmp_path / "facts.json"
    good = {"id": "a", "subject": "Miles Davis", "prompt": "Miles Davis plays the"}
    facts.write_text(json.dumps([good, *({**good, "id": str(i), "subject": "Chopin"} for i in range(20 + more))]))
    done = rometrace("calibrate", "--facts", facts, "--factors", "1,3", "--samples", 2)
    assert done.returncode == 1
    assert done.stderr.count("failed: ") == 20
    assert done.stderr.count("further failures are counted only") == len(said)
    assert [line for line in done.stderr.splitlines() if line.endswith(" counted only") and " are " not in line] == [
        f"rometrace: {words} counted only" for words in said
    ]
    assert json.loads(done.stdout)["status"]["failed"] == 20 + more


def test_without_a_traced_fact_it_is_said_why(bin_dir: Path, tmp_path: Path) -> None:
    facts = some_facts(tmp_path / "facts.json", "violin", "piano")
    target = tmp_path / "out.json"
    target.write_text("old")
    command = [str(bin_dir / "rometrace"), "calibrate", "--facts", str(facts), "-q", "-o", str(target)]
    refused(run(command), "none of 2 facts was traced (other_answer 2)", "--all", "--target object")
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--factors", "1,s3"), ("--factors", '"s3"', "expected numbers above 0")),
        (("--factors", "0,1"), ("--factors", '"0"')),
        (("--factors", "nan"), ("--factors", '"nan"')),
        (("--factors", "1,3,1"), ("--factors", "1 is there twice")),
        (("--kinds", "state,knockout"), ("--kinds", '"knockout"', "expected state, mlp or attn")),
        (("--target", "subject"), ("--target", "expected object")),
        (("--all", "--target", "object"), ("--all",)),
        (("--sample", "0"), ("--sample", "expected a whole number")),
        (("--memory", "1K"), ("--memory", "does not hold two layers")),
        (("--dtype", "int8"), ("--dtype", "expected float32")),
        (("--noise-facts", "missing.json"), ("--noise-facts", "missing.json")),
    ],
)
def test_a_wrong_command_line_is_one_line(more: tuple[str, ...], words: tuple[str, ...], bin_dir: Path) -> None:
    refused(run([str(bin_dir / "rometrace"), "calibrate", "--facts", str(FACTS), *more, "-q"]), *words)


def test_facts_are_needed_and_options_come_behind_the_command(bin_dir: Path, tmp_path: Path) -> None:
    executable = str(bin_dir / "rometrace")
    refused(run([executable, "calibrate"]), "--facts is required")
    refused(run([executable, "--facts", str(FACTS), "calibrate", "--facts", str(FACTS)]), "stands before calibrate")
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    refused(run([executable, "calibrate", "--facts", str(empty)]), "empty.json")


def on_a_terminal(command: list[str], columns: int) -> tuple[int, str]:
    """Exit status, and what a terminal of this width shows on stdout."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
    with subprocess.Popen(command, stdout=its, env=environment(NO_COLOR="1")) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # EIO: the program has closed its end
                break
    os.close(ours)
    return process.returncode, shown.decode().replace("\r", "")


def test_the_table_and_the_rule_are_told(rometrace: Rometrace, bin_dir: Path) -> None:
    assert "at least 90 % of the mean total effect" in " ".join(rometrace("calibrate", "--help").stdout.split())
    command = [str(bin_dir / "rometrace"), "calibrate", "--facts", str(FACTS), "--sample", "3", "--samples", "2"]
    status, text = on_a_terminal([*command, "--factors", "1,3", "--kinds", "state,attn", "-q"], 80)
    assert status == 0
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines), lines
    assert lines[0] == "3 facts of facts.json: 3 traced, 0 skipped, 0 failed"
    assert sum(line.startswith("     3 ") for line in lines) == 3  # a line in each table
    assert "ecommended: " in text


def test_ctrl_c_stops_it_and_leaves_nothing(bin_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    command = [str(bin_dir / "rometrace"), "calibrate", "--facts", str(FACTS), "--sample", "1000", "-o", str(target)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", env=environment())
    assert process.stderr is not None
    while "sigma" not in process.stderr.readline():  # the traces come next
        pass
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert messages.splitlines()[-1] == "rometrace: interrupted before anything was written"
    assert list(tmp_path.iterdir()) == []
