"""`--from FILE`: a record's settings are the defaults of a new trace."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from batches import FACTS, refused
from conftest import Rometrace
from test_repeat import ONE, SETTINGS, SMALL, Written, batch, written  # noqa: F401 (a fixture)


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """All of a record that another run of it has too: the rule of its noise may be a number now."""
    record["run"].pop("seconds")
    if record["run"]["noise"]:
        record["run"]["noise"].pop("rule")
    return record


def command_of(rometrace: Rometrace, *arguments: object) -> list[str]:
    done = rometrace(*arguments, "--print-command")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    program, *words = shlex.split(done.stdout)
    assert program == "rometrace"
    return words


@pytest.mark.parametrize("name", SETTINGS)
def test_a_record_gives_its_trace_again(name: str, rometrace: Rometrace, written: Written) -> None:  # noqa: F811
    path = written(*ONE, *SETTINGS[name])
    record = json.loads(path.read_text())
    again = rometrace("--from", path, "-q")
    assert again.returncode == 0, again.stderr
    expected = comparable(record)
    if name == "an answer of several tokens":
        assert expected["settings"]["answer"] == "greedy:2"
    assert comparable(json.loads(again.stdout)) == expected
    said = rometrace(*command_of(rometrace, "--from", path), "-q")
    assert comparable(json.loads(said.stdout)) == expected


def test_what_is_given_goes_before_what_is_recorded(rometrace: Rometrace, written: Written) -> None:  # noqa: F811
    path = written(*ONE, *SMALL, "--kinds", "mlp,head", "--measures", "rank", "--seed", "3")
    recorded = ["--prompt=Miles Davis plays the", "--subject=Miles Davis", "--kinds=mlp,head", "--window=3", "--samples=2"]
    words = command_of(rometrace, "--from", path)
    assert words[:5] == recorded
    assert words[5].startswith("--noise=0.257")
    assert words[6:] == ["--seed=3", "--measures=rank"]
    other = command_of(rometrace, "--from", path, "--prompt", "Bill Evans plays the", "--subject=Bill Evans", "--kinds", "state", "--seed", "4")
    assert other[:1] == ["--samples=2"]  # a window is of no use, and left out
    assert other[2:] == ["--measures=rank", "--prompt", "Bill Evans plays the", "--subject=Bill Evans", "--kinds", "state", "--seed", "4"]
    assert "--noise=s3" in command_of(rometrace, "--from", path, "--model", "gpt2")
    assert not [word for word in command_of(rometrace, "--from", path, "--corrupt", "zero") if "noise" in word or "samples" in word]
    gradient = command_of(rometrace, "--from", path, "--engine", "gradient", "--kinds", "state")
    assert not [word for word in gradient if "measures" in word]
    plain = json.loads(rometrace("--from", path, "--engine", "plain", "-q").stdout)
    assert plain["run"]["engine"] == "plain"
    assert plain["grids"]["mlp"]["window"] == 3


def test_the_place_of_a_subject_is_kept(rometrace: Rometrace, written: Written) -> None:  # noqa: F811
    path = written("--prompt", "Miles Davis and Miles Davis play the", "--subject", "Miles Davis", "--subject-at", "last", "-q", *SMALL)
    assert "--subject-at=16:27" in command_of(rometrace, "--from", path)
    assert "--subject-at=16:27" not in command_of(rometrace, "--from", path, "--subject", "Davis")


def test_a_batch_gives_its_settings_or_a_fact(rometrace: Rometrace, written: Written) -> None:  # noqa: F811
    path = written(*batch("--limit", "3", "--target", "object", "--measures", "kl", "--positions", "subject-last"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    fact = lines[2]
    again = rometrace("--from", path, "--id", fact["fact"]["id"], "-q")
    assert again.returncode == 0, again.stderr
    record = json.loads(again.stdout)
    assert record["grids"] == fact["grids"] and record["measures"] == fact["measures"]
    words = command_of(rometrace, "--from", path, "--facts", FACTS, "--limit", "1")
    assert {"--kinds=state", "--positions=subject-last", "--samples=2", "--measures=kl", "--target=object"} <= set(words)
    refused(rometrace("--from", path, "-q"), "holds several traces; --id chooses one")
    refused(rometrace("--from", path, "--id", "nobody", "-q"), 'no record has the id "nobody"; it has')


def test_an_edited_model_needs_its_edit_and_a_text_its_file(
    rometrace: Rometrace, written: Written, tmp_path: Path  # noqa: F811
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Miles Davis plays the trumpet. " * 200)
    path = written(*ONE, "--corrupt", "mean", "--noise-text", text, "--kinds", "state")
    refused(rometrace("--from", path, "-q"), 'its corruption is of the text "text.txt"; give that file with --noise-text')
    assert rometrace("--from", path, "--noise-text", text, "-q").returncode == 0
    record = json.loads(path.read_text())
    record["model"]["edits"] = [{"sha256": "0" * 64, "method": "r-rome", "layers": [3], "requests": 1}]
    path.write_text(json.dumps(record))
    refused(rometrace("--from", path, "-q"), "was made with an edited model; give its edit files with --edit")


def test_bad_input_is_one_line(rometrace: Rometrace, written: Written, tmp_path: Path) -> None:  # noqa: F811
    path = written(*ONE, *SMALL)
    refused(rometrace("--from", tmp_path / "none.json"), "--from: ", "none.json")
    refused(rometrace("--from", ""), "--from is empty; expected a file of results")
    refused(rometrace("--from", path, "--id", "x"), "is a single trace, which has no id; leave --id out")
    refused(rometrace("--id", "x", *ONE), "--id requires --from")
    refused(rometrace("--print-command", *ONE), "--print-command requires --from")
    refused(rometrace("--from", path, "--self-check"), "--from")
    refused(rometrace("--from", path, "--head-window", "2"), "--head-window", "expected head among --kinds")
    path.write_text('{"schema": "rometrace/summary/1"}')
    refused(rometrace("--from", path), "--from: ", "a summary")
