"""`rometrace summary` averages measures and other targets as it averages the probability: NumPy does the same."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from batches import FACTS
from conftest import Rometrace
from summaries import REPLICATES, SEED, Summarise, summarise  # noqa: F401
from test_summary import ROLES, check_estimate, check_list, close, poisson_weights, random_lines, ratio, role_of, whole_lines, write

Line = dict[str, Any]
MEASURES = ("log_probability", "logit", "logit_difference", "normalised", "rank", "kl")


def rows_of(line: Line, kind: str, values: list[Any]) -> dict[int, np.ndarray]:
    positions = line["grids"][kind].get("positions", range(len(values)))
    return {t: np.ravel(row) for t, row in zip(positions, values, strict=True)}


def check_reading(found: dict[str, Any], lines: list[Line], readings: list[Any]) -> None:
    """`readings`: what each line has, with "high", "low" and "grids" of "values"; None where it has none."""
    weights = poisson_weights(SEED, len(lines), REPLICATES)
    chosen = [
        place
        for place, reading in enumerate(readings)
        if reading is not None and reading["high"] is not None and "null" not in json.dumps([g["values"] for g in reading["grids"].values()])
    ]
    assert found["facts"] == len(chosen)
    assert found["not_numbers"] == sum(reading is not None for reading in readings) - len(chosen)
    high, low = ([readings[place][name] for place in chosen] for name in ("high", "low"))
    check_estimate(found["high"], high, weights[chosen])
    check_estimate(found["low"], low, weights[chosen])
    check_estimate(found["total_effect"], [a - b for a, b in zip(high, low)], weights[chosen])
    for kind, summary in found["kinds"].items():
        layers = lines[0]["model"]["layers"]
        shape = (layers, summary["heads"]) if kind == "head" else (layers,)
        assert summary["window"] == lines[0]["grids"][kind]["window"]
        assert list(summary["roles"]) == list(ROLES)
        for role in ROLES:
            counts, sums, values, places = [], [], [], []
            for place in chosen:
                line, reading = lines[place], readings[place]
                rows = rows_of(line, kind, reading["grids"][kind]["values"])
                begin, end = line["subject_range"]
                own = np.array([row for t, row in rows.items() if role_of(t, begin, end, len(line["tokens"])) == role])
                if len(own) == 0:
                    continue
                noising = line["run"].get("direction") == "noising"
                effects = reading["high"] - own if noising else own - reading["low"]
                counts.append(len(own)), sums.append(effects.sum(0)), values.append(own), places.append(place)
            part = summary["roles"][role]
            assert part["facts"] == len(counts) and part["tokens"] == sum(counts)
            if not counts:
                assert part["value"] is None and part["effect"] is None
                continue
            expected = ratio(np.array(counts, dtype=float), np.array(sums), weights[places])
            check_list(part, expected, "effect", shape)
            assert close(part["value"], np.concatenate(values).mean(0).reshape(shape))


def as_reading(target: dict[str, Any]) -> dict[str, Any]:
    """Another target, in the words of a measure."""
    grids = {kind: {"values": grid["scores"]} for kind, grid in target["grids"].items()}
    return {"high": target["high_score"], "low": target["low_score"], "grids": grids}


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_measures_of_a_batch_are_averaged_by_role_and_layer(
    rometrace: Rometrace, summarise: Summarise, tmp_path: Path, direction: str
) -> None:
    file = tmp_path / "results.jsonl"
    done = rometrace(
        "--facts", FACTS, "--sample", 6, "--all", "--kinds", "state,mlp,head", "--sever", "mlp", "--window", 3, "--samples", 2,
        "--direction", direction, "--measures", ",".join(MEASURES), "--foil", " guitar", "-q", "-o", file,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, *lines = (json.loads(line) for line in file.read_text().splitlines())
    found = summarise(file, "--by", "relation")
    measures = found["overall"]["measures"]
    assert list(measures) == list(MEASURES)
    assert measures["normalised"]["of"] == "logit_difference"
    for name in MEASURES:
        assert set(measures[name]["kinds"]) == {"state", "mlp", "head", "state_mlp_severed"}
        check_reading(measures[name], lines, [line["measures"][name] for line in lines])
    assert found["run"]["foil"] == json.loads(file.read_text().splitlines()[0])["foil"]
    by_relation = found["by"]["relation"].values()
    assert sum(group["measures"]["rank"]["facts"] for group in by_relation) == len(lines)
    text = rometrace("summary", file, "-o", tmp_path / "summary.json")
    assert text.returncode == 0 and json.loads((tmp_path / "summary.json").read_text())["overall"]["measures"]


def test_other_targets_of_single_runs_are_averaged_by_their_place(rometrace: Rometrace, summarise: Summarise, tmp_path: Path) -> None:
    lines = []
    for prompt, others in (("plays the", (" guitar", " trombone")), ("is a master of the", (" piano", " trombone"))):
        targets = [word for other in (" trumpet", *others) for word in ("--target", other)]
        done = rometrace("--prompt", f"Miles Davis {prompt}", "--subject", "Miles Davis", "--kinds", "state", "--samples", 2, "-q", *targets)
        assert done.returncode == 0, done.stderr
        lines.append(json.loads(done.stdout))
    found = summarise(write(tmp_path / "a.jsonl", lines))["overall"]["other_targets"]
    assert [target["target"] for target in found] == [None, " trombone"]
    for place, target in enumerate(found):
        check_reading(target, lines, [as_reading(line["other_targets"][place]) for line in lines])


def with_measures(lines: list[Line], seed: int) -> list[Line]:
    """Lines with two measures over all their grids; some lines lack one, some have a value that is no number."""
    rng = np.random.default_rng(seed)
    for number, line in enumerate(lines):
        line["measures"] = {}
        for name in ("kl", "normalised"):
            grids = {k: {"values": rng.random(np.shape(g["scores"])).tolist(), "standard_error": None} for k, g in line["grids"].items()}
            line["measures"][name] = {"high": rng.random(), "low": rng.random(), "low_standard_error": None, "grids": grids}
        line["measures"]["normalised"]["of"] = "probability"
        if number % 5 == 1:
            del line["measures"]["kl"]
        if number % 5 == 2:
            line["measures"]["normalised"]["high"] = None
        if number % 5 == 3 and (state := line["measures"]["normalised"]["grids"]["state"]["values"]):
            state[0][0] = None
    return lines


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_a_fact_without_a_measure_or_without_its_numbers_is_left_out_of_it(summarise: Summarise, tmp_path: Path, direction: str) -> None:
    lines = with_measures(whole_lines(40, 3, 2, 5, direction), 6)
    found = summarise(write(tmp_path / "a.jsonl", lines))["overall"]
    assert found["facts"] == len(lines)
    for name in ("kl", "normalised"):
        check_reading(found["measures"][name], lines, [line["measures"].get(name) for line in lines])
    without = summarise(write(tmp_path / "b.jsonl", [{k: v for k, v in line.items() if k != "measures"} for line in lines]))["overall"]
    assert {k: v for k, v in found.items() if k != "measures"} == without


def test_a_measure_whose_grid_does_not_fit_is_refused(rometrace: Rometrace, tmp_path: Path) -> None:
    lines = with_measures(random_lines(3, 3, 1), 2)
    short, alone, uneven, mixed = (copy.deepcopy(lines) for _ in range(4))
    grids = "normalised"
    short[1]["measures"][grids]["grids"]["state"]["values"].append([0.1, 0.1, 0.1])
    alone[1]["measures"][grids]["grids"]["head"] = {"values": [[[0.1]]]}
    uneven[1]["measures"][grids]["grids"]["mlp"]["values"][0] = [0.1]
    mixed[1]["measures"][grids]["of"] = "logit_difference"
    for broken, words in (
        (short, 'the grid "state" of "normalised" is not of the line\'s rows and layers'),
        (alone, '"normalised" has the grid "head", which the line has not'),
        (uneven, "the rows of a grid differ in length"),
        (mixed, 'measures.normalised.of is "logit_difference"; expected "probability"'),
    ):
        done = rometrace("summary", write(tmp_path / "a.jsonl", [*broken, lines[0]]), "--json")
        assert done.returncode == 2 and words in done.stderr and "line 2" in done.stderr, done.stderr


def test_the_text_names_what_is_averaged_beside_the_probability(terminal_summary: Callable[[Path], str], tmp_path: Path) -> None:
    lines = with_measures(random_lines(6, 3, 1), 2)
    shown = terminal_summary(write(tmp_path / "a.jsonl", lines))
    assert "beside the probability: means over facts" in shown
    assert any(row.split()[:2] == ["kl", "5"] for row in shown.splitlines())
    assert "Their averages by token role and layer are in the JSON." in shown


@pytest.fixture
def terminal_summary(rometrace: Rometrace, bin_dir: Path) -> Callable[[Path], str]:
    """What `rometrace summary` shows where stdout is a terminal."""
    import os
    import pty
    import subprocess

    def run(file: Path) -> str:
        outer, inner = pty.openpty()
        process = subprocess.Popen([bin_dir / "rometrace", "summary", str(file)], stdout=inner, stderr=subprocess.PIPE, env=os.environ | {"NO_COLOR": "1"})
        os.close(inner)
        shown = b""
        while True:
            try:
                piece = os.read(outer, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(outer)
        assert process.wait(timeout=60) == 0, process.stderr.read()
        return shown.decode()

    return run


# --- settings that do not mix -------------------------------------------------------------------------------------------


def header_of(**more: Any) -> Line:
    facts = {"files": [{"name": "f", "sha256": str(more.pop("number", 0)) * 64}], "records": 9, "selected": 1}
    return {"schema": "rometrace/batch/1", "command": "trace", "model": one_line()["model"], "facts": facts} | more


def one_line(record: int = 1) -> Line:
    line = random_lines(1, 3, 1)[0]
    line["fact"]["record"] = record
    return line


def test_headers_of_another_foil_or_another_most_samples_are_refused(rometrace: Rometrace, tmp_path: Path) -> None:
    def both(a: dict[str, Any], b: dict[str, Any]) -> Any:
        files = []
        for number, more in enumerate((a, b)):
            line = one_line()
            line["run"] |= more.get("run", {})
            files.append(write(tmp_path / f"{number}.jsonl", [header_of(number=number, **more), line]))
        return rometrace("summary", *files, "--json")

    assert both({"foil": 7}, {"foil": 7}).returncode == 0
    assert both({"foil": None}, {"foil": None}).returncode == 0
    for a, b, words in (
        ({"foil": 7}, {"foil": 8}, "foil is 8; expected 7 as in"),
        ({"foil": 7}, {"foil": None}, "foil is null; expected 7 as in"),
        (
            {"run": {"precision": {"asked": 0.1, "most_samples": 100}}},
            {"run": {"precision": {"asked": 0.1, "most_samples": 200}}},
            "run.precision.most_samples is 200; expected 100 as in",
        ),
    ):
        done = both(a, b)
        assert done.returncode == 2 and words in done.stderr, done.stderr


def test_each_partners_own_foil_is_no_mixture(rometrace: Rometrace, summarise: Summarise, tmp_path: Path) -> None:
    file = tmp_path / "swap.jsonl"
    done = rometrace("--facts", FACTS, "--limit", 4, "--all", "--corrupt", "swap", "--kinds", "state", "--measures", "logit_difference", "-q", "-o", file)
    assert done.returncode == 0, done.stderr
    _, *lines = (json.loads(line) for line in file.read_text().splitlines())
    traced = [line for line in lines if line["status"] == "traced"]
    assert len({line["measures"]["logit_difference"]["foil_id"] for line in traced}) > 1
    found = summarise(file)
    assert found["run"]["foil"] is None
    check_reading(found["overall"]["measures"]["logit_difference"], traced, [line["measures"]["logit_difference"] for line in traced])


# --- one spelling of the noise ------------------------------------------------------------------------------------------


def test_two_spellings_of_a_rule_of_noise_are_one_setting(rometrace: Rometrace, tmp_path: Path) -> None:
    def batch(name: str, rule: str, *more: Any) -> Any:
        options = ("--facts", FACTS, "--limit", 4, "--kinds", "state", "--samples", 2)
        return rometrace(*options, "--noise", rule, "-o", tmp_path / name, *more)

    assert batch("a.jsonl", "s3.0").returncode == 0
    header, *lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert {json.loads(line)["run"]["noise"]["rule"] for line in (header, *lines)} == {"s3"}
    again = batch("a.jsonl", "s3")
    assert again.returncode == 0 and "done already: 4 of 4 facts" in again.stderr, again.stderr

    # Files of before there was one spelling.
    old = tmp_path / "old.jsonl"
    old.write_text("\n".join(line.replace('"rule":"s3"', '"rule":"s3.0"') for line in (header, *lines[:2])) + "\n")
    assert old.read_text().count("s3.0") == 3
    resumed = batch("old.jsonl", "s3")
    assert resumed.returncode == 0 and "done already: 2 of 4 facts" in resumed.stderr, resumed.stderr
    for part, rule in (("1/2", "s3"), ("2/2", "s3.00")):
        assert batch("part.jsonl", rule, "--shard", part, "-q").returncode == 0
    parts = [tmp_path / f"part.{n}-of-2.jsonl" for n in (1, 2)]
    parts[1].write_text(parts[1].read_text().replace('"rule":"s3"', '"rule":"s3.0"'))
    assert rometrace("merge", *parts, "-o", tmp_path / "whole.jsonl").returncode == 0
    summary = rometrace("summary", *parts, "--json")
    assert summary.returncode == 0, summary.stderr
    assert json.loads(summary.stdout)["run"]["noise"]["rule"] == "s3"
    other = batch("a.jsonl", "s2")
    assert other.returncode == 2 and 'run.noise.rule "s3", this run has "s2"' in other.stderr
