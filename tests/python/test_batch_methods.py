"""Severed paths, heads, knockouts, swapped subjects, whole answers and measured precision over facts files: each fact as
it is alone, through the summary and the pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from agreement import TOLERANCES, assert_close, floats_of
from batches import FACTS, environment, finished, refused, run

EVERYTHING = ("--kinds", "state,mlp,attn,head,knockout", "--sever", "mlp,attn", "--window", "3", "--samples", "2")
STATE = ("--kinds", "state", "--samples", "2")
Traced = Callable[..., dict[str, Any]]


def command(bin_dir: Path, output: Path, *options: object, limit: int = 6, facts: Path = FACTS) -> list[str]:
    words = [bin_dir / "rometrace", "--facts", facts, "--limit", limit, "-o", output, *options]
    return [*map(str, words), "-q"]


@pytest.fixture
def batch(bin_dir: Path, tmp_path: Path, validate: Callable[[dict[str, Any]], None]) -> Callable[..., Any]:
    """batch(*options) traces facts and gives the lines after the header, each checked against its schema."""

    def trace(*options: object, facts: Path = FACTS, limit: int = 6, name: str = "results.jsonl") -> list[dict[str, Any]]:
        finished(run(command(bin_dir, tmp_path / name, *options, limit=limit, facts=facts)))
        lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for line in lines:
            validate(line)
        return lines[1:]

    return trace


def alone(traced: Traced, line: dict[str, Any], *options: str) -> dict[str, Any]:
    return traced("--prompt", line["prompt"], "--subject", line["subject"], *options)


def close(line: dict[str, Any], other: dict[str, Any]) -> None:
    assert_close(floats_of(line), floats_of(other), TOLERANCES["float32"])


@pytest.mark.parametrize("more", [(), ("--direction", "noising"), ("--positions", "subject-last"),
                                  ("--measures", "log_probability,kl,rank,normalised")], ids=" ".join)
def test_everything_is_as_it_is_alone(batch: Callable[..., Any], traced: Traced, more: tuple[str, ...]) -> None:
    lines = batch(*EVERYTHING, *more, "--facts-per-sweep", "4")
    traced_lines = [line for line in lines if line["status"] == "traced"]
    assert len(traced_lines) >= 4
    for line in traced_lines[:2]:
        close(line, alone(traced, line, *EVERYTHING, *more))


def test_swapped_subjects_are_those_of_other_facts_whatever_the_shard(
    batch: Callable[..., Any], traced: Traced, bin_dir: Path, tmp_path: Path
) -> None:
    options = ("--corrupt", "swap", "--kinds", "state", "--measures", "logit_difference")
    finished(run(command(bin_dir, tmp_path / "x.jsonl", *options, limit=12)))
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()][1:]
    facts = {fact["subject"]: fact for fact in json.loads(FACTS.read_text())["facts"]}
    swapped = [line for line in lines if line["status"] == "traced"]
    assert len(swapped) >= 8
    for line in swapped:
        own, partner = facts[line["subject"]], facts[line["counter"]["subject"]]
        assert partner["relation"] == own["relation"] and partner["object"] != own["object"]
        assert len(line["counter"]["token_ids"]) == len(line["token_ids"])
        assert line["measures"]["logit_difference"]["foil"].strip() in partner["object"]
        assert line["run"]["samples"] == 1 and line["run"]["noise"] is None
    line = swapped[0]
    foil = line["measures"]["logit_difference"]["foil"]
    close(line, alone(traced, line, "--counter-subject", line["counter"]["subject"], "--kinds", "state", "--measures",
                      "logit_difference", "--foil", foil))

    for shard in ("1/2", "2/2"):
        finished(run(command(bin_dir, tmp_path / "s.jsonl", *options, "--shard", shard, limit=12)))
    merged = run([str(bin_dir / "rometrace"), "merge", *map(str, sorted(tmp_path.glob("s.*-of-*.jsonl")))])
    counters = [json.loads(line).get("counter") for line in merged.stdout.splitlines()[1:]]
    assert counters == [line.get("counter") for line in lines]


def test_a_fact_without_a_partner_is_skipped(bin_dir: Path, tmp_path: Path, validate: Callable[..., None]) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps([{"subject": "Miles Davis", "prompt": "{} plays the", "object": "trumpet", "relation": "r"}]))
    output = tmp_path / "results.jsonl"
    finished(run([str(bin_dir / "rometrace"), "--facts", str(facts), "--corrupt", "swap", "-o", str(output)]))
    line = json.loads(output.read_text().splitlines()[1])
    validate(line)
    assert (line["status"], line["cause"]) == ("skipped", "no_partner")


def test_objects_of_several_tokens_are_answers(batch: Callable[..., Any], traced: Traced, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    record = {"subject": "Miles Davis", "prompt": "{} plays the", "object": "trumpet.", "id": "several"}
    facts.write_text(json.dumps([record, record | {"object": "trumpet", "id": "one"}, record | {"object": "trumpet and", "id": "no"}]))
    first, second, third = batch(*STATE, facts=facts)
    assert (first["cause"], second["status"], third["cause"]) == ("first_token", "traced", "first_token")
    first, second, third = batch(*STATE, "--answer", "object", facts=facts, name="object.jsonl")
    assert [first["status"], second["status"], third["status"]] == ["traced", "traced", "skipped"]
    assert third["cause"] == "other_answer"
    assert first["answer"] == " trumpet." and len(first["answer_ids"]) == 2
    close(first, alone(traced, first, "--target", " trumpet.", *STATE, "--noise",
                       str(first["run"]["noise"]["sigma"])))
    followed = batch(*STATE, "--target", "object", facts=facts, name="target.jsonl")
    assert [line["answer"] for line in followed] == [" trumpet.", " trumpet", " trumpet and"]
    assert followed[0]["high_score"] == pytest.approx(first["high_score"], rel=1e-6)


def test_each_fact_draws_until_it_is_precise(batch: Callable[..., Any], bin_dir: Path, tmp_path: Path) -> None:
    options = ("--kinds", "state", "--samples", "4", "--most-samples", "300")
    lines = batch(*options, "--precision", "0.05", "--facts-per-sweep", "3")
    alone_lines = batch(*options, "--precision", "0.05", "--facts-per-sweep", "1", name="alone.jsonl")
    assert [line["run"].get("samples") for line in lines] == [line["run"].get("samples") for line in alone_lines]
    samples = [line["run"]["samples"] for line in lines if line["status"] == "traced"]
    assert len(set(samples)) > 1 and max(samples) <= 300
    for line in lines:
        if line["status"] == "traced" and line["run"]["samples"] < 300:
            errors = [error for row in line["grids"]["state"]["standard_error"] for error in row]
            assert max(errors) <= 0.05
            assert line["run"]["precision"]["reached"] == pytest.approx(max([*errors, line["low_standard_error"]]))
    refused(run(command(bin_dir, tmp_path / "results.jsonl", *options, "--precision", "0.06")), "precision")
    summary = run([str(bin_dir / "rometrace"), "summary", str(tmp_path / "results.jsonl")])
    assert json.loads(summary.stdout)["run"]["samples"] is None


def test_the_summary_and_the_pictures_take_it_all(batch: Callable[..., Any], bin_dir: Path, repository: Path, tmp_path: Path,
                                                  validate: Callable[..., None]) -> None:
    lines = [line for line in batch(*EVERYTHING, limit=8) if line["status"] == "traced"]
    done = run([str(bin_dir / "rometrace"), "summary", str(tmp_path / "results.jsonl"), "-o", str(tmp_path / "summary.json")])
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    validate(summary)
    overall = summary["overall"]
    assert list(overall["kinds"]) == ["state", "mlp", "attn", "head", "state_mlp_severed", "state_attn_severed"]
    first = [
        sum(line["grids"]["state"]["scores"][line["subject_range"][1] - 1][layer]
            - line["grids"]["state_mlp_severed"]["scores"][line["subject_range"][1] - 1][layer] for line in lines) / len(lines)
        for layer in range(8)
    ]
    assert overall["gaps"]["mlp"]["roles"]["last_subject"]["aie"] == pytest.approx(first, abs=1e-12)
    changes = [line["knockout"]["groups"]["subject"]["relative_change"] for line in lines]
    means = [sum(change[layer] for change in changes) / len(lines) for layer in range(8)]
    assert overall["knockout"]["groups"]["subject"]["relative_change"] == pytest.approx(means, abs=1e-12)

    python = repository / ".venv/bin/python"
    interpreter = str(python if python.exists() else sys.executable)
    for script, source in [("plot_severed.py", "summary.json"), ("plot_severed.py", "results.jsonl"), ("plot_summary.py", "summary.json")]:
        picture = tmp_path / f"{script}.{source}.png"
        extra = ["--record", "1"] if source == "results.jsonl" else []
        drawn = subprocess.run(
            [interpreter, str(repository / "scripts" / script), str(tmp_path / source), "-o", str(picture), *extra],
            capture_output=True, encoding="utf-8", env=environment(), timeout=300, check=False,
        )
        assert drawn.returncode == 0, drawn.stderr
        assert picture.stat().st_size > 10_000
