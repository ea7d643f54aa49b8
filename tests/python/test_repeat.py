"""`rometrace repeat`: what a results file holds is run again with its own settings, and compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest

from batches import FACTS, refused
from conftest import Rometrace

ONE = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "-q")
SMALL = ("--samples", "2", "--window", "3")
SETTINGS: dict[str, tuple[str, ...]] = {
    "the default": (*SMALL,),
    "all kinds at some positions": (
        *SMALL, "--kinds", "state,mlp,attn,head,knockout", "--sever", "mlp,attn", "--positions", "1,3", "--head-window", "2"),
    "measures and targets": (
        *SMALL, "--measures", "log_probability,logit,logit_difference,normalised,rank,kl", "--foil", " piano",
        "--target", " trumpet", "--target", " guitar"),
    "a logit difference that is normalised alone": (*SMALL, "--measures", "normalised", "--foil", " piano"),
    "noising by uniform noise, plain": (
        "--samples", "2", "--direction", "noising", "--noise", "u0.4", "--engine", "plain", "--kinds", "state", "--seed", "7"),
    "a Gaussian of a text": ("--samples", "2", "--noise", "m", "--kinds", "state", "--replace"),
    "a mean": ("--corrupt", "mean", "--kinds", "state"),
    "another subject": ("--counter-subject", "Ray Brown", "--kinds", "state"),
    "an answer of several tokens": (*SMALL, "--answer", "greedy:2"),
    "draws until it is precise": ("--samples", "2", "--kinds", "state", "--precision", "0.05", "--most-samples", "8"),
    "a gradient": (*SMALL, "--engine", "gradient"),
    "float64": (*SMALL, "--dtype", "float64", "--kinds", "mlp"),
    "neurons": ("--samples", "2", "--kinds", "neuron", "--layers", "2-4", "--top", "5", "--sets", "layer"),
    "given neurons": ("--samples", "2", "--kinds", "neuron", "--neurons", "3:117,5:9", "--positions", "0,1"),
}
Written = Callable[..., Path]


@pytest.fixture
def written(rometrace: Rometrace, tmp_path: Path) -> Written:
    """written(*arguments) gives the file of results that the program wrote."""

    def write(*arguments: object) -> Path:
        path = tmp_path / "results.json"
        path.unlink(missing_ok=True)
        done = rometrace(*arguments, "-o", path)
        assert done.returncode in (0, 1), done.stderr
        return path

    return write


def report_of(rometrace: Rometrace, *arguments: object, status: int = 0) -> dict[str, Any]:
    done = rometrace("repeat", *arguments, "-q")
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def batch(*more: object) -> tuple[object, ...]:
    return ("--facts", FACTS, "--kinds", "state", "--samples", "2", "-q", *more)


def change(path: Path, edit: Callable[[dict[str, Any]], object], line: int = 0) -> None:
    lines = path.read_text().splitlines()
    record = json.loads(lines[line])
    edit(record)
    lines[line] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_trace_is_the_same_again(
    name: str, rometrace: Rometrace, written: Written, validate: Callable[[dict[str, Any]], None]
) -> None:
    report = report_of(rometrace, written(*ONE, *SETTINGS[name]))
    validate(report)
    assert (report["records"], report["equal"], report["different"]) == (1, 1, 0)
    assert report["results"][0]["numbers"] > 10
    assert not report["results"][0]["others"]


def test_other_threads_and_less_memory_change_nothing_beyond_rounding(rometrace: Rometrace, written: Written) -> None:
    path = written(*ONE, *SMALL)
    report = report_of(rometrace, path, "--threads", "3", "--memory", "30M")
    assert report["run"]["threads"] == 3
    assert report["equal"] == 1


def test_a_batch_is_repeated_with_what_was_skipped_and_without_what_failed(
    rometrace: Rometrace, written: Written, tmp_path: Path, validate: Callable[[dict[str, Any]], None]
) -> None:
    facts = tmp_path / "facts.jsonl"
    rows = [
        {"id": "miles", "subject": "Miles Davis", "object": "trumpet", "prompt": "{} plays the"},
        {"id": "other", "subject": "Miles Davis", "object": "kazoo", "prompt": "{} plays the"},
        {"id": "none", "subject": "Bill Evans", "object": "piano", "prompt": "Miles Davis plays the"},
    ]
    facts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = written("--facts", facts, "--noise", "0.25", "--kinds", "state", "--samples", "2", "-q")
    report = report_of(rometrace, path, "--facts", facts)
    validate(report)
    assert [result["status"] for result in report["results"]] == ["traced", "skipped", "failed"]
    assert (report["equal"], report["not_repeated"], report["facts_checked"]) == (2, 1, True)
    assert "it failed: " in report["results"][2]["reason"]
    only = report_of(rometrace, path, "--ids", "other")
    assert [result["fact"]["id"] for result in only["results"]] == ["other"]
    refused(rometrace("repeat", path, "--ids", "miles,else", "-q"), "--ids: ", 'no record has the id "else"; it has')
    facts.write_text(facts.read_text() + "\n")
    refused(rometrace("repeat", path, "--facts", facts, "-q"), "--facts: ", "has the fingerprint", "unchanged")


def test_a_number_that_was_changed_is_found(rometrace: Rometrace, written: Written) -> None:
    path = written(*ONE, *SMALL)
    was = json.loads(path.read_text())["grids"]["mlp"]["scores"][1][2]
    change(path, lambda record: record["grids"]["mlp"]["scores"][1].__setitem__(2, was + 1e-3))
    report = report_of(rometrace, path, status=1)
    assert [cell["path"] for cell in report["results"][0]["cells"]] == ["grids.mlp.scores[1][2]"]
    assert report["largest"]["was"] == pytest.approx(was + 1e-3)
    assert report["largest"]["is"] == pytest.approx(was, rel=1e-4)
    assert report_of(rometrace, path, "--tolerance", "0.1")["equal"] == 1
    text = rometrace("repeat", path, "-q", "-o", "/dev/null")
    assert text.returncode == 1


def test_an_answer_that_is_another_is_found(rometrace: Rometrace, written: Written) -> None:
    path = written(*ONE, *SMALL)
    change(path, lambda record: record.update(prediction_id=17))
    report = report_of(rometrace, path, status=1)
    assert report["results"][0]["others"][0].startswith("the model's answer was")


def test_a_file_of_an_older_version_has_all_that_is_needed(rometrace: Rometrace, written: Written) -> None:
    path = written(*ONE, *SMALL)

    def age(record: dict[str, Any]) -> None:
        for name in ("settings", "subject_span", "answer_ids"):
            del record[name]
        for name in ("direction", "corruption", "approximate"):
            del record["run"][name]
        for grid in record["grids"].values():
            del grid["positions"]

    change(path, age)
    assert report_of(rometrace, path)["equal"] == 1


def test_a_torn_file_is_repeated_up_to_there(rometrace: Rometrace, written: Written) -> None:
    path = written(*batch("--limit", "3"))
    path.write_text(path.read_text()[:-100])
    done = rometrace("repeat", path)
    assert done.returncode == 0, done.stderr
    assert "line 4 is cut short; it was left out" in done.stderr
    assert json.loads(done.stdout)["records"] == 2


def test_another_model_is_refused(rometrace: Rometrace, written: Written, tmp_path: Path, demo: Path) -> None:
    path = written(*ONE, *SMALL)
    other = shutil.copytree(demo, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    refused(rometrace("repeat", path, "--model", other, "-q"), "was made with weights of the fingerprint", "--model names the same model")
    change(path, lambda record: record["model"].update(name="nowhere/model"))
    refused(rometrace("repeat", path, "-q"), 'was made with the model "nowhere/model"', "--model says where it is")
    assert report_of(rometrace, path, "--model", demo)["equal"] == 1


def test_an_edited_model_needs_its_edit(rometrace: Rometrace, written: Written, tmp_path: Path) -> None:
    edit = tmp_path / "miles.edit"
    done = rometrace("edit", "--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--target", "guitar", "--templates", "none",
                     "-q", "-o", edit)
    assert done.returncode == 0, done.stderr
    path = written(*ONE, *SMALL, "--edit", edit)
    refused(rometrace("repeat", path, "-q"), "was made with an edited model; expected --edit with the files of the fingerprints")
    assert report_of(rometrace, path, "--edit", edit)["equal"] == 1
    plain = written(*ONE, *SMALL)
    refused(rometrace("repeat", plain, "--edit", edit, "-q"), "was made with a model without edits; leave it out")


def test_a_text_is_asked_for_by_its_fingerprint(rometrace: Rometrace, written: Written, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Miles Davis plays the trumpet. " * 200)
    path = written(*ONE, "--corrupt", "mean", "--noise-text", text, "--kinds", "state")
    refused(rometrace("repeat", path, "-q"), 'its corruption is of the text "text.txt"', "--noise-text names the same file")
    assert report_of(rometrace, path, "--noise-text", text)["equal"] == 1


def test_bad_input_is_one_line(rometrace: Rometrace, written: Written, tmp_path: Path) -> None:
    refused(rometrace("repeat", tmp_path / "none.json", "-q"), "none.json")
    empty = tmp_path / "empty.json"
    empty.write_text("")
    refused(rometrace("repeat", empty, "-q"), "is empty; expected traces")
    path = written(*ONE, *SMALL)
    before = path.read_bytes()
    refused(rometrace("repeat", path, "-o", path, "-q"), "is to be read and written; name another file with -o")
    assert path.read_bytes() == before
    refused(rometrace("repeat", path, "-o", "/dev/full", "-q"), "/dev/full", "space")
    refused(rometrace("repeat", path, "--facts", FACTS, "-q"), "holds no batch, and names no facts files; leave it out")
    change(path, lambda record: record["run"].update(device="cuda"))
    done = rometrace("repeat", path, "-q")
    assert done.returncode in (0, 2)  # 0 where there is a GPU
    assert report_of(rometrace, path, "--device", "cpu")["equal"] == 1
    probe = written(*batch()[:2], "--limit", "2", "--probe", "-q")
    refused(rometrace("repeat", probe, "-q"), "results of a probe")
    two = tmp_path / "two.json"
    lines = [written(*ONE, *SMALL).read_text(), written(*ONE, *SMALL, "--dtype", "float64").read_text()]
    two.write_text("".join(lines))
    refused(rometrace("repeat", two, "-q"), "has another dtype than", "repeat files of one run each")
