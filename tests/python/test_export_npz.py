"""`rometrace export --format npz`: numpy.load reads it as it reads what the ROME authors' program leaves.

Their experiments/causal_trace.py saves a dict of scores (a tensor), low_score (a Python float), high_score (a tensor of
one value), input_ids (a tensor), input_tokens (strings), subject_range (a tuple), answer, window, correct_prediction,
and kind, by numpy.savez; their notebook for averages reads these files by number.
"""

from __future__ import annotations

import json
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pytest

from batches import REPOSITORY, command, environment, refused, run
from conftest import Rometrace
from records import HIGH, LOW, make_neuron_record, make_record, make_skipped_record, make_whole_record
from waiting import PATIENCE, wait_until

KINDS = {"state": "", "mlp": "_mlp", "attn": "_attn"}


def write_lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def with_id(record: dict[str, Any], number: Any, order: int = 1) -> dict[str, Any]:
    fact = {"record": order, "order": order, "id": number, "relation": None, "object": None, "object_tokens": None}
    return record | {"fact": fact}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "cases").iterdir())


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shipped facts laid out as the authors' known_1000.json; the last one's object is not the answer."""
    shipped = json.loads((REPOSITORY / "share/rometrace/facts.json").read_text())
    facts: list[dict[str, Any]] = []
    for relation in ("plays_instrument", "lies_in_country", "lies_in_city", "written_by"):
        wording = shipped["relations"][relation]["wordings"][0]["text"]
        chosen = [fact for fact in shipped["facts"] if fact["relation"] == relation and " " in fact["subject"]][:3]
        for fact in chosen:
            prompt = wording.replace("{}", fact["subject"])
            names = {"known_id": 2 + len(facts), "relation_id": relation, "prompt": prompt}
            facts.append({"subject": fact["subject"], "attribute": fact["object"]} | names)
    facts[-1]["attribute"] = "something else"
    path = tmp_path_factory.mktemp("npz") / "known.json"
    path.write_text(json.dumps(facts))
    return path


@pytest.fixture(scope="module")
def results(bin_dir: Path, known: Path) -> Path:
    path = known.parent / "results.jsonl"
    more = ("--kinds", "state,mlp,attn,head", "--window", "4", "--noise", "0.25")
    done = run(command(bin_dir / "rometrace", path, *more, facts=known))
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def cases(bin_dir: Path, results: Path) -> Path:
    """The folder of their case files."""
    folder = results.parent / "reference"
    done = run([str(bin_dir / "rometrace"), "export", str(results), "--format", "npz", "-o", str(folder)])
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"rometrace: 12 records (1 skipped), 36 files in {folder}/cases\n"
    return folder


def test_every_field_is_what_numpy_would_have_saved(results, cases, tmp_path):
    lines = [json.loads(line) for line in results.read_text().splitlines()[1:]]
    traced = [line for line in lines if line["status"] == "traced"]
    assert len(traced) == 11
    for record in traced:
        for kind, suffix in KINDS.items():
            name = f"knowledge_{record['fact']['id']}{suffix}.npz"
            expected = {
                "scores": numpy.array(record["grids"][kind]["scores"], dtype="float32"),
                "low_score": record["low_score"],
                "high_score": numpy.array(record["high_score"], dtype="float32"),
                "input_ids": numpy.array(record["token_ids"]),
                "input_tokens": record["tokens"],
                "subject_range": tuple(record["subject_range"]),
                "answer": record["answer"],
                "window": 4,
                "correct_prediction": True,
                "kind": suffix.removeprefix("_"),
            }
            numpy.savez(tmp_path / "expected.npz", **expected)
            with numpy.load(tmp_path / "expected.npz") as theirs, numpy.load(cases / "cases" / name) as ours:
                assert ours.files == theirs.files == list(expected)
                for field in expected:
                    assert ours[field].dtype == theirs[field].dtype, field
                    assert ours[field].shape == theirs[field].shape, field
                    assert (ours[field] == theirs[field]).all(), field
            with zipfile.ZipFile(tmp_path / "expected.npz") as theirs, zipfile.ZipFile(cases / "cases" / name) as ours:
                assert ours.testzip() is None
                for entry in theirs.namelist():
                    assert ours.read(entry) == theirs.read(entry), entry


def test_a_fact_with_another_answer_says_so_and_nothing_more(results, cases):
    skipped = [json.loads(line) for line in results.read_text().splitlines()[1:] if '"status":"skipped"' in line]
    assert len(skipped) == 1
    for suffix in KINDS.values():
        with numpy.load(cases / "cases" / f"knowledge_{skipped[0]['fact']['id']}{suffix}.npz") as case:
            assert case.files == ["correct_prediction"]
            assert case["correct_prediction"].dtype == bool and not case["correct_prediction"]


def averages(folder: Path, suffix: str) -> dict[str, numpy.ndarray]:
    """What the authors' notebook averages of the files with numbers: rows of scores by the tokens' parts."""
    rows: dict[str, list[numpy.ndarray]] = {}
    for number in range(100):
        path = folder / "cases" / f"knowledge_{number}{suffix}.npz"
        if not path.exists():
            continue
        case = numpy.load(path)
        if not case["correct_prediction"]:
            continue
        scores = case["scores"]
        first, after = case["subject_range"]
        parts = {
            "first_subject": scores[first : first + 1],
            "middle_subject": scores[first + 1 : after - 1],
            "last_subject": scores[after - 1 : after],
            "first_subsequent": scores[after : after + 1],
            "further": scores[after + 1 : -1],
            "last": scores[-1:],
            "low": case["low_score"].reshape(1),
            "high": case["high_score"].reshape(1),
        }
        for part, values in parts.items():
            rows.setdefault(part, []).append(values)
    return {part: numpy.concatenate(values).mean(axis=0) for part, values in rows.items()}


def test_the_notebooks_averages_are_those_of_the_summary(rometrace, results, cases):
    """Every role is one token here: subjects have two tokens or more, and so has what follows them."""
    for line in results.read_text().splitlines()[1:]:
        record = json.loads(line)
        begin, end = record["subject_range"]
        assert end - begin >= 2 and len(record["tokens"]) - end >= 2, record["tokens"]
    done = rometrace("summary", results, "--json", "--bootstrap", 0)
    assert done.returncode == 0, done.stderr
    overall = json.loads(done.stdout)["overall"]
    for kind, suffix in KINDS.items():
        found = averages(cases, suffix)
        assert found["high"] == pytest.approx(overall["high_score"]["mean"], rel=1e-6)  # scores are float32 there
        assert found["low"] == pytest.approx(overall["low_score"]["mean"], rel=1e-12)
        for role, values in overall["kinds"][kind]["roles"].items():
            assert values["facts"] > 0
            assert found[role].tolist() == pytest.approx(values["score"], rel=1e-5), (kind, role)


def test_names_are_of_ids_and_records_without_one_are_numbered(rometrace, tmp_path):
    ids = [7, "a/b c", "5_mlp"]
    path = write_lines(
        tmp_path / "results.jsonl",
        make_record(),
        *(with_id(make_record(), number, order) for order, number in enumerate(ids, start=1)),
        make_record(),
    )
    done = rometrace("export", path, "--format", "npz", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    stems = ("knowledge_0", "knowledge_1", "knowledge_7", "knowledge_a%2Fb%20c", "knowledge_5%5Fmlp")
    assert names_in(tmp_path / "out") == sorted(stem + suffix + ".npz" for stem in stems for suffix in KINDS.values())


def test_what_the_layout_cannot_hold_is_left_out_and_told(rometrace, tmp_path):
    path = write_lines(
        tmp_path / "results.jsonl",
        with_id(make_record(), 1),
        with_id(make_whole_record(direction="noising"), 2),
        with_id(make_whole_record(), 3),
        with_id(make_whole_record(), 4),
        with_id(make_neuron_record(), 5),
        with_id(make_skipped_record() | {"cause": "not_known"}, 6),
        with_id(make_skipped_record() | {"cause": "other_answer"}, 7),
    )
    done = rometrace("export", path, "--format", "npz", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "rometrace: left out: neither state, mlp nor attn (1 record), noising (1 record), "
        "skipped, not_known (1 record), some positions alone (2 records)",
        f"rometrace: 7 records (2 skipped), 6 files in {tmp_path}/out/cases",
    ]
    assert names_in(tmp_path / "out") == sorted(f"knowledge_{i}{k}.npz" for i in (1, 7) for k in KINDS.values())
    case = numpy.load(tmp_path / "out/cases/knowledge_1_mlp.npz")
    assert (case["high_score"], case["low_score"], case["window"], case["kind"]) == (HIGH, LOW, 10, "mlp")


def test_an_answer_that_was_followed_but_not_said_is_no_correct_prediction(rometrace, tmp_path):
    other = with_id(make_record() | {"prediction": " piano", "prediction_id": 9}, 1)
    right = with_id(make_record(), 2, 2)
    right["fact"]["object"] = "trumpet"
    wrong = with_id(make_record(), 3, 3)
    wrong["fact"]["object"] = "piano"
    path = write_lines(tmp_path / "results.jsonl", other, right, wrong)
    assert rometrace("export", path, "--format", "npz", "-o", tmp_path / "out").returncode == 0
    flags = [bool(numpy.load(tmp_path / f"out/cases/knowledge_{i}.npz")["correct_prediction"]) for i in (1, 2, 3)]
    assert flags == [False, True, False]


def test_files_that_are_there_are_not_replaced_unless_told(rometrace, tmp_path):
    path = write_lines(tmp_path / "one.json", make_record())
    out = tmp_path / "out"
    (out / "cases").mkdir(parents=True)
    (out / "cases/knowledge_0.npz").write_text("of somebody else")
    (out / "cases/knowledge_9.npz").write_text("of another study")
    refused(rometrace("export", path, "--format", "npz", "-o", out), "has case files, such as knowledge_", "--force")
    assert (out / "cases/knowledge_0.npz").read_text() == "of somebody else"
    assert names_in(out) == ["knowledge_0.npz", "knowledge_9.npz"]
    assert rometrace("export", path, "--format", "npz", "-o", out, "--force").returncode == 0
    assert numpy.load(out / "cases/knowledge_0.npz")["correct_prediction"]
    assert (out / "cases/knowledge_9.npz").read_text() == "of another study"
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("kept")
    assert rometrace("export", path, "--format", "npz", "-o", other).returncode == 0
    assert (other / "notes.txt").read_text() == "kept"


def test_what_cannot_be_written_is_one_line(rometrace, tmp_path):
    path = write_lines(tmp_path / "one.json", make_record())
    npz = ("export", path, "--format", "npz")
    refused(rometrace(*npz), "--output: is missing; expected a folder")
    refused(rometrace(*npz, "-o", "-"), "--output: is missing; expected a folder")
    refused(rometrace(*npz, "-o", tmp_path / "one.json"), "one.json")
    (tmp_path / "file").write_text("")
    refused(rometrace(*npz, "-o", tmp_path / "file"), "is no folder")
    refused(rometrace(*npz, "-o", tmp_path / "out", "--what", "sets"), "--what: has no effect here")
    refused(rometrace("export", path, "--force"), "--force: has no effect here; expected --format npz")
    refused(rometrace(*npz, "-o", "/proc/out"), "/proc/out")
    twice = write_lines(tmp_path / "twice.jsonl", with_id(make_record(), 1), with_id(make_record(), 1, 2))
    refused(
        rometrace("export", twice, "--format", "npz", "-o", tmp_path / "out"),
        "twice.jsonl, line 2: another fact for knowledge_1.npz, which is of",
    )
    long = write_lines(tmp_path / "long.jsonl", with_id(make_record(), "a" * 300))
    refused(rometrace("export", long, "--format", "npz", "-o", tmp_path / "long"), "line 1", "expected at most 255")
    assert not (tmp_path / "long").exists()


def test_no_space_is_one_line_and_no_part_of_a_file_is_left(bin_dir, tmp_path):
    """A limit on the size of files stands for a full disk: a case is larger."""
    import resource

    path = write_lines(tmp_path / "one.json", make_record())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    done = subprocess.run(
        [bin_dir / "rometrace", "export", path, "--format", "npz", "-o", tmp_path / "out"],
        preexec_fn=limit,
        capture_output=True,
        encoding="utf-8",
        env=environment(),
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert "knowledge_0.npz" in done.stderr and "file too large" in done.stderr
    assert names_in(tmp_path / "out") == []


def test_an_interrupt_leaves_whole_files_and_says_how_many(bin_dir, tmp_path):
    """Standard input that does not end keeps it waiting."""
    arguments = [bin_dir / "rometrace", "export", "-", "--format", "npz", "-o", tmp_path / "out"]
    process = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=environment()
    )
    process.stdin.write(json.dumps(make_record()) + "\n")
    process.stdin.flush()
    wait_until((tmp_path / "out/cases/knowledge_0_attn.npz").exists, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130  # before standard input ends
    process.stdin.close()
    error = process.stderr.read()
    process.stderr.close()
    assert error == f"rometrace: interrupted; 3 files in {tmp_path}/out/cases so far\n"
    assert names_in(tmp_path / "out") == sorted(f"knowledge_0{suffix}.npz" for suffix in KINDS.values())
    assert all(numpy.load(tmp_path / "out/cases" / name)["correct_prediction"] for name in names_in(tmp_path / "out"))
