"""`--direction both`: the two directions beside each other, and their interaction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest

from batches import FACTS, refused
from conftest import Rometrace

ONE = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--samples", "3", "--window", "3", "-q")
KINDS = ("--kinds", "state,mlp,head,knockout", "--sever", "mlp")
Traced = Callable[..., dict[str, Any]]


def array(values: Any) -> np.ndarray:
    return np.array(values, dtype=float)


def assert_close(found: Any, expected: Any) -> None:
    """Within the rounding of float32: other rows share the products."""
    assert array(found) == pytest.approx(array(expected), rel=1e-4, abs=1e-5)


def numbers_of(value: Any) -> Iterator[tuple[str, Any]]:
    """All that JSON has at its ends, with where it stands."""
    if isinstance(value, (dict, list)):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            for place, number in numbers_of(inner):
                yield f"/{name}{place}", number
    else:
        yield "", value


@pytest.mark.parametrize("engine", ["sweep", "plain", "gradient"])
def test_a_record_has_what_either_direction_has(engine: str, traced: Traced, validate: Callable[[dict[str, Any]], None]) -> None:
    asked = (*ONE, "--engine", engine, *(() if engine == "gradient" else (*KINDS, "--measures", "kl,normalised", "--target", " trumpet", "--target", " guitar")))
    both = traced(*asked, "--direction", "both")
    validate(both)
    denoised, noised = traced(*asked), traced(*asked, "--direction", "noising")
    assert both["run"]["direction"] == "both"
    for name in ("grids", "knockout", "measures", "other_targets", "high_score", "low_score"):  # the same sweep
        assert both.get(name) == denoised.get(name), name
    for kind, grid in noised["grids"].items():
        found = both["noising"]["grids"][kind]
        assert (found["window"], found["positions"]) == (grid["window"], grid["positions"])
        for name in ("scores", "indirect_effect", "standard_error"):
            assert_close(found[name], grid[name])
        interaction = array(grid["indirect_effect"]) - array(denoised["grids"][kind]["indirect_effect"])
        assert array(found["interaction"]) == pytest.approx(interaction, abs=1e-6)
        assert (array(found["interaction_standard_error"]) >= 0).all()
    if engine != "gradient":
        for name in ("kl", "normalised"):
            for kind, grid in noised["measures"][name]["grids"].items():
                assert_close(both["noising"]["measures"][name]["grids"][kind]["values"], grid["values"])
        for kind, grid in noised["other_targets"][0]["grids"].items():
            assert_close(both["noising"]["other_targets"][0]["grids"][kind]["scores"], grid["scores"])


def test_a_summary_averages_both_and_the_interactions(
    rometrace: Rometrace, tmp_path: Path, validate: Callable[[dict[str, Any]], None]
) -> None:
    summaries = {}
    for direction in ("both", "denoising", "noising"):
        path = tmp_path / f"{direction}.jsonl"
        done = rometrace("--facts", FACTS, "--limit", "12", "--samples", "2", "--kinds", "state,head", "--direction", direction, "-q", "-o", path)
        assert done.returncode == 0, done.stderr
        summary = rometrace("summary", path, "--by", "relation")
        assert summary.returncode == 0, summary.stderr
        summaries[direction] = json.loads(summary.stdout)
    both = summaries["both"]
    validate(both)
    for line in (tmp_path / "both.jsonl").read_text().splitlines():
        validate(json.loads(line))
    assert both["overall"]["kinds"] == summaries["denoising"]["overall"]["kinds"]
    found, expected = (dict(numbers_of(kinds)) for kinds in (both["overall"]["noising"], summaries["noising"]["overall"]["kinds"]))
    # The corrupted runs went with other rows; a share of resamplings changes by one where two layers are as large.
    near = {
        place: number if number is None else pytest.approx(number, rel=1e-3, abs=0.01 if place.endswith("share") else 1e-5)
        for place, number in expected.items()
    }
    assert found == near
    assert both["by"]["relation"].keys() == summaries["noising"]["by"]["relation"].keys()
    for kind, interaction in both["overall"]["interactions"].items():
        for role, values in interaction["roles"].items():
            noised = both["overall"]["noising"][kind]["roles"][role]["aie"]
            if noised is None:
                assert values["interaction"] is None
                continue
            expected = array(noised) - array(both["overall"]["kinds"][kind]["roles"][role]["aie"])
            assert array(values["interaction"]) == pytest.approx(expected, abs=1e-12)
            low, high = array(values["bootstrap_low"]), array(values["bootstrap_high"])
            assert (low <= array(values["interaction"]) + 1e-12).all() and (array(values["interaction"]) <= high + 1e-12).all()


def test_a_summary_refuses_directions_together_and_noising_that_does_not_fit(rometrace: Rometrace, traced: Traced, tmp_path: Path) -> None:
    paths = []
    for direction in ("both", "denoising"):
        paths.append(tmp_path / f"{direction}.jsonl")
        done = rometrace("--facts", FACTS, "--limit", "2", "--samples", "2", "--kinds", "state", "--direction", direction, "-q", "-o", paths[-1])
        assert done.returncode == 0, done.stderr
    assert rometrace("summary", *paths).returncode == 2
    record = traced(*ONE, "--direction", "both", "--kinds", "mlp")
    record["noising"]["grids"]["mlp"]["scores"].pop()
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(record))
    refused(rometrace("summary", broken), 'the grid "mlp" of "noising" is not of the rows and layers')


def test_a_terminal_shows_either_direction_and_where_they_differ(rometrace: Rometrace) -> None:
    import os
    import pty
    import subprocess

    from conftest import REPOSITORY

    program = Path(os.environ.get("ROMETRACE_BIN_DIR", REPOSITORY / "build/release/bin")) / "rometrace"
    for columns in (40, 80, 200):
        leader, follower = pty.openpty()
        environment = os.environ | {"COLUMNS": str(columns), "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        subprocess.run([program, *ONE, "--kinds", "state,mlp,head", "--direction", "both"], stdout=follower, env=environment, check=True,
                       stderr=subprocess.DEVNULL, preexec_fn=lambda: __import__("fcntl").ioctl(follower, __import__("termios").TIOCSWINSZ,
                                                                                              __import__("struct").pack("HHHH", 50, columns, 0, 0)))
        os.close(follower)
        text = b""
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:
                break
            text += chunk
        lines = text.decode().replace("\r", "").splitlines()
        assert max(map(len, lines)) <= columns
        flat = " ".join(" ".join(lines).split())
        assert "one thing is restored" in flat and "one thing is corrupted" in flat
        for kind in ("state", "mlp", "head"):
            assert f"Strongest interaction of {kind}:" in flat
        assert flat.count(", interaction: what corrupting") == 2  # of heads there is a sentence


def test_what_has_one_direction_is_refused(rometrace: Rometrace) -> None:
    refused(rometrace(*ONE, "--direction", "both", "--kinds", "neuron"), "--kinds", "neuron is of one direction")
    refused(rometrace(*ONE, "--direction", "both", "--precision", "0.1"), "--precision", "is of one direction")
    refused(rometrace(*ONE, "--direction", "both", "--kinds", "knockout"), "--direction", "has no effect here")
    refused(rometrace(*ONE, "--direction", "up"), "expected denoising, noising or both")


def test_both_directions_are_repeated_and_taken_from_a_file(rometrace: Rometrace, traced: Traced, tmp_path: Path) -> None:
    path = tmp_path / "both.json"
    assert rometrace(*ONE, *KINDS, "--direction", "both", "-o", path).returncode == 0
    report = traced("repeat", path, "-q")
    assert report["equal"] == 1 and report["results"][0]["numbers"] > 500
    again = traced("--from", path, "-q")
    assert again["noising"] == json.loads(path.read_text())["noising"]


def test_a_table_has_the_lines_of_either_direction(rometrace: Rometrace, traced: Traced, tmp_path: Path) -> None:
    import csv
    import io

    path = tmp_path / "both.json"
    assert rometrace(*ONE, "--kinds", "mlp,knockout", "--direction", "both", "-o", path).returncode == 0
    record = json.loads(path.read_text())
    done = rometrace("export", path, "-q")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    cells = sum(len(row) for row in record["grids"]["mlp"]["scores"])
    groups = len(record["knockout"]["groups"]) * record["model"]["layers"]
    counts = {(way, kind): sum(row["direction"] == way and row["kind"] == kind for row in rows)
              for way in ("denoising", "noising", "both") for kind in ("mlp", "knockout")}
    assert counts == {("denoising", "mlp"): cells, ("noising", "mlp"): cells, ("denoising", "knockout"): groups, ("noising", "knockout"): 0,
                      ("both", "mlp"): cells, ("both", "knockout"): 0}
    apart = [float(row["effect"]) for row in rows if row["direction"] == "both"]
    assert apart == pytest.approx([value for row in record["noising"]["grids"]["mlp"]["interaction"] for value in row])
    lost = [float(row["effect"]) for row in rows if row["direction"] == "noising"]
    assert lost == pytest.approx([value for row in record["noising"]["grids"]["mlp"]["indirect_effect"] for value in row])
