"""`rometrace --facts`: every record gets a line, and a fact's line does not depend on how it was run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Callable

import pytest

Rometrace = Callable[..., Any]
QUICK = ("--kinds", "state", "--samples", "3", "--noise", "0.5")


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Path:
    """The facts that the demo model knows."""
    return repository / "share/rometrace/facts.json"


@pytest.fixture
def batch(rometrace: Rometrace, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """batch(*arguments, status=0) runs a batch into a new file and gives its lines."""
    runs = iter(range(1000))

    def run(*arguments: Any, status: int = 0) -> list[dict[str, Any]]:
        output = tmp_path / f"results-{next(runs)}.jsonl"
        done = rometrace(*arguments, "-o", output)
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        return [json.loads(line) for line in output.read_text().splitlines()]

    return run


def write_facts(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(records))
    return path


def fact(subject: str = "Miles Davis", object: str | None = "trumpet", **fields: Any) -> dict[str, Any]:
    """A tuple that the demo model knows, or a change of it."""
    record = {"subject": subject, "object": object, "prompt": "{} plays the"} | fields
    return {name: value for name, value in record.items() if value is not None}


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    """A line less what differs from run to run."""
    return line | {"run": {name: value for name, value in line["run"].items() if name not in ("seconds", "threads")}}


def assert_same_numbers(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name in ("high_score", "low_score"):
        assert one[name] == pytest.approx(other[name], rel=1e-5, abs=1e-7)
    for kind, grid in one["grids"].items():
        for row, expected in zip(grid["scores"], other["grids"][kind]["scores"], strict=True):
            assert row == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_each_record_gets_a_line_after_the_header(
    batch: Callable[..., list[dict[str, Any]]], validate: Callable[[dict[str, Any]], None], shipped: Path
) -> None:
    header, *lines = batch("--facts", shipped, "--limit", "12", *QUICK)
    for line in (header, *lines):
        validate(line)
    assert header["facts"]["selected"] == 12
    assert header["facts"]["records"] == 12  # reading stops at the limit
    assert [line["fact"]["order"] for line in lines] == list(range(1, 13))
    assert [line["fact"]["id"] for line in lines] == [f["id"] for f in json.loads(shipped.read_text())["facts"][:12]]
    assert {line["status"] for line in lines} <= {"traced", "skipped"}
    assert sum(line["status"] == "traced" for line in lines) >= 10


@pytest.mark.parametrize("options", [(), ("--facts-per-sweep", "1"), ("--facts-per-sweep", "7"), ("--threads", "2"),
                                     ("--memory", "3M"), ("--engine", "plain")], ids=" ".join)
def test_a_fact_has_the_scores_that_it_has_alone(
    batch: Callable[..., list[dict[str, Any]]], traced: Callable[..., dict[str, Any]], shipped: Path, options: tuple[str, ...]
) -> None:
    kinds = ("--kinds", "state,mlp,attn", "--samples", "3", "--window", "3")
    _, *lines = batch("--facts", shipped, "--sample", "14", *kinds, *options)
    compared = 0
    for line in lines:
        if line["status"] != "traced":
            continue
        compared += 1
        if compared % 4 == 1:
            alone = traced("--prompt", line["prompt"], "--subject", line["subject"], *kinds)
            assert_same_numbers(line, alone)
            assert line["run"]["noise"] == alone["run"]["noise"]  # both from the subjects of the shipped facts
    assert compared >= 10


@pytest.mark.parametrize("options", [("--direction", "noising"), ("--answer", "word"), ("--answer", "greedy:2", "--direction", "noising")],
                         ids=" ".join)
def test_facts_that_share_the_reading_of_streamed_layers_have_the_scores_of_layers_in_memory(
    batch: Callable[..., list[dict[str, Any]]], shipped: Path, options: tuple[str, ...]
) -> None:
    arguments = ("--facts", shipped, "--sample", "10", "--all", "--samples", "2", "--kinds", "state,mlp", "--window", "2", *options)
    _, *held = batch(*arguments)
    _, *streamed = batch(*arguments, "--memory", "3M")
    assert len({line["answer"] for line in held}) > 3
    for line, expected in zip(streamed, held, strict=True):
        assert line["status"] == expected["status"] == "traced"
        assert line["answer"] == expected["answer"]
        assert_same_numbers(line, expected)


def test_a_fact_whose_answer_is_not_its_object_is_skipped_unless_all_are_wanted(
    batch: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    facts = write_facts(
        tmp_path / "facts.json",
        [fact(), fact(object="piano", id="wrong"), fact(object=None, id="open"), fact(object="trumpet concerto", id="long")],
    )
    _, *lines = batch("--facts", facts, *QUICK)
    assert [line["status"] for line in lines] == ["traced", "skipped", "traced", "skipped"]
    assert [line.get("cause") for line in lines] == [None, "other_answer", None, "first_token"]
    assert lines[1]["reason"] == 'the model\'s answer is " trumpet", not "piano"'
    assert lines[3]["reason"].startswith('the model\'s answer is " trumpet", the first of ')
    assert [line["fact"]["object_tokens"] for line in lines][:3] == [1, 1, None]

    _, *lines = batch("--facts", facts, *QUICK, "--all")
    assert [line["status"] for line in lines] == ["traced"] * 4
    assert {line["answer"] for line in lines} == {" trumpet"}

    _, *lines = batch("--facts", facts, *QUICK, "--target", "object")
    assert [line["status"] for line in lines] == ["traced", "traced", "skipped", "traced"]
    assert lines[1]["answer"] == " piano"
    assert lines[1]["high_score"] < 0.5
    assert lines[2]["cause"] == "no_object"


def test_bad_records_are_named_and_do_not_stop_the_rest(
    rometrace: Rometrace, tmp_path: Path, validate: Callable[[dict[str, Any]], None]
) -> None:
    facts = tmp_path / "facts.csv"
    with facts.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject", "prompt", "object"])
        writer.writerow(["Miles Davis", "{} plays the", "trumpet"])
        writer.writerow(["", "{} plays the", "trumpet"])
        writer.writerow(["Chet Baker", "The trumpet is played by nobody", "trumpet"])
        writer.writerow(["Miles Davis", "{} plays the " + "very " * 200 + "old", "trumpet"])
    output = tmp_path / "results.jsonl"
    done = rometrace("--facts", facts, *QUICK, "-o", output)
    assert done.returncode == 1
    _, *lines = [json.loads(line) for line in output.read_text().splitlines()]
    for line in lines:
        validate(line)
    assert [line["status"] for line in lines] == ["traced", "failed", "failed", "failed"]
    assert [line.get("cause") for line in lines][1:] == ["record", "record", "prompt"]
    assert "facts.csv, line 3" in lines[1]["reason"]
    assert "Chet Baker" in lines[2]["reason"]
    assert "64 at most" in lines[3]["reason"]
    for line in lines[1:]:
        assert f"rometrace: failed: {line['reason']}\n" in done.stderr
    assert "4 facts: 1 traced, 3 failed" in done.stderr
    assert "further" not in done.stderr

    strict = tmp_path / "strict.jsonl"
    done = rometrace("--facts", facts, *QUICK, "-o", strict, "--strict")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "facts.csv, line 3" in done.stderr
    assert not strict.exists()


def test_of_many_failures_the_first_are_told_and_the_rest_are_in_the_results(rometrace: Rometrace, tmp_path: Path) -> None:
    bad = [fact(subject="Chopin", prompt="Miles Davis plays the", id=str(i)) for i in range(23)]
    output = tmp_path / "results.jsonl"
    done = rometrace("--facts", write_facts(tmp_path / "facts.json", [fact(), *bad]), *QUICK, "-o", output)
    assert done.returncode == 1
    assert done.stderr.count("failed: ") == 20
    assert done.stderr.count("rometrace: further failures are in the results only\n") == 1
    assert sum('"status":"failed"' in line.replace(" ", "") for line in output.read_text().splitlines()) == 23


def test_strict_finds_a_prompt_that_is_too_long_before_it_traces(rometrace: Rometrace, tmp_path: Path) -> None:
    facts = write_facts(tmp_path / "facts.json", [fact(), fact(prompt="{} plays the " + "very " * 200 + "old", id="b")])
    done = rometrace("--facts", facts, *QUICK, "-o", tmp_path / "results.jsonl", "--strict")
    assert done.returncode == 2
    assert "record 2" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "results.jsonl").exists()


def test_facts_come_from_stdin_and_results_go_to_a_pipe(bin_dir: Path) -> None:
    import subprocess

    facts = "\n".join(json.dumps(fact(id=name)) for name in ("a", "b"))
    done = subprocess.run(
        [bin_dir / "rometrace", "--facts", "-", *QUICK, "--quiet"], input=facts, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    header, *lines = map(json.loads, done.stdout.splitlines())
    assert header["facts"]["files"][0]["name"] == "standard input"
    assert [line["fact"]["id"] for line in lines] == ["a", "b"]


def test_the_selection_is_what_was_asked_for(batch: Callable[..., list[dict[str, Any]]], shipped: Path) -> None:
    ids = "native_language/victor-hugo,plays_instrument/miles-davis"
    names = [f["id"] for f in json.loads(shipped.read_text())["facts"]]
    wanted = [name for name in names if name in ids.split(",")]
    _, *lines = batch("--facts", shipped, *QUICK, "--ids", ids)
    assert [line["fact"]["id"] for line in lines] == wanted
    sampled = [batch("--facts", shipped, *QUICK, "--sample", "5", "--sample-seed", seed)[1:] for seed in ("7", "7", "8")]
    records = [[line["fact"]["record"] for line in lines] for lines in sampled]
    assert records[0] == records[1] == sorted(records[0])
    assert records[0] != records[2]


def test_the_parts_of_all_shards_are_the_whole(
    rometrace: Rometrace, batch: Callable[..., list[dict[str, Any]]], shipped: Path, tmp_path: Path
) -> None:
    arguments = ("--facts", shipped, "--limit", "10", *QUICK)
    whole = batch(*arguments)
    for shard in ("1/3", "2/3", "3/3"):
        assert rometrace(*arguments, "--shard", shard, "-o", tmp_path / "part.jsonl").returncode == 0
    parts = [tmp_path / f"part.{i}-of-3.jsonl" for i in (1, 2, 3)]
    assert [len(part.read_text().splitlines()) for part in parts] == [5, 4, 4]
    done = rometrace("merge", *parts, "-o", tmp_path / "merged.jsonl")
    assert done.returncode == 0, done.stderr
    merged = [json.loads(line) for line in (tmp_path / "merged.jsonl").read_text().splitlines()]
    assert merged[0] == whole[0]
    for line, expected in zip(merged[1:], whole[1:], strict=True):
        assert without_times(line)["fact"] == without_times(expected)["fact"]
        assert line["status"] == expected["status"]
        if line["status"] == "traced":
            assert_same_numbers(line, expected)


def test_only_what_is_known_is_traced(batch: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    relations = {"plays": {"wordings": [{"text": "{} plays the"}, {"text": "{} is a master of the"}]}}
    records = [
        {"subject": "Miles Davis", "relation": "plays", "object": "trumpet", "id": "known"},
        {"subject": "Miles Davis", "relation": "plays", "object": "piano", "id": "not"},
    ]
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({"schema": "rometrace/facts/1", "relations": relations, "facts": records}))
    header, *lines = batch("--facts", facts, *QUICK, "--only", "known")
    assert [(line["status"], line.get("cause")) for line in lines] == [("traced", None), ("skipped", "not_known")]
    assert header["only"]["known_by"]["rule"] == "said:2"
    _, *lines = batch("--facts", facts, *QUICK, "--only", "known", "--known-by", "recall:5000", "--all")
    assert [line["status"] for line in lines] == ["traced", "traced"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--facts", "nowhere.json"), "nowhere.json"),
        (("--facts", "FACTS", "--prompt", "a"), "--prompt excludes --facts"),
        (("--facts", "FACTS", "--expect", "a"), "--facts"),
        (("--facts", "FACTS", "--target", " piano"), 'expected object beside --facts'),
        (("--facts", "FACTS", "--ids", "nobody"), "nobody"),
        (("--facts", "FACTS", "--shard", "3/2"), "--shard"),
        (("--facts", "FACTS", "--shard", "auto"), "--shard"),
        (("--facts", "FACTS", "--only", "said"), "expected known"),
        (("--facts", "FACTS", "--known-by", "guess"), "--known-by"),
        (("--facts", "FACTS", "--limit", "0"), "--limit"),
        (("--all", "--prompt", "a", "--subject", "a"), "--all requires --facts"),
        (("--subject", "a"), "--prompt"),
        ((), "--facts"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_command_line_is_one_line(
    rometrace: Rometrace, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    facts = write_facts(tmp_path / "facts.json", [fact()])
    output = tmp_path / "results.jsonl"
    done = rometrace(*(str(facts) if word == "FACTS" else word for word in arguments), "-o", output)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not output.exists()


def test_the_papers_facts_are_traced_by_any_model(
    rometrace: Rometrace, shared: Path, tmp_path: Path, validate: Callable[[dict[str, Any]], None]
) -> None:
    for facts in ("known_1000.json", "counterfact-edit-1k.json", "lre/city_in_country.json"):
        output = tmp_path / f"{Path(facts).stem}.jsonl"
        done = rometrace(
            "--facts", shared / "facts" / facts, "--sample", "6", "--all", *QUICK, "-o", output,
            "--model", shared / "models/gpt2-lyrics",
        )  # fmt: skip
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert done.returncode == (1 if any(line.get("status") == "failed" for line in lines) else 0), done.stderr
        assert len(lines) == 7
        for line in lines:
            validate(line)


# --- the subject's place ------------------------------------------------------------------------------------------


def span_text(line: dict[str, Any]) -> str:
    begin, end = line["subject_span"]
    return line["prompt"].encode()[begin:end].decode()


def test_a_slot_is_the_subjects_place_in_the_trace_and_in_a_swap(batch, tmp_path):
    template = "The sentiment of '{}' is"
    facts = [
        fact("time", "positive", prompt=template, relation="feels"),
        fact("rain", "negative", prompt=template, relation="feels"),
    ]
    file = write_facts(tmp_path / "facts.json", facts)
    _, first, _ = batch("--facts", file, "--all", *QUICK)
    assert span_text(first) == "time" and first["subject_span"] == [18, 22]
    begin, end = first["subject_range"]
    corrupted = b"".join(bytes.fromhex(token) for token in first["token_bytes"][begin:end]).decode()
    assert "time" in corrupted and "sen" not in corrupted
    # the same as where the place is given by hand in the whole text
    whole = write_facts(tmp_path / "whole.json", [facts[0] | {"prompt": first["prompt"], "subject_at": "last"}])
    _, by_hand = batch("--facts", whole, "--all", *QUICK)
    assert by_hand["grids"] == first["grids"]
    _, *swapped = batch("--facts", file, "--all", "--corrupt", "swap", "--kinds", "state")
    for line in swapped:
        if line["status"] == "traced":
            assert line["counter"]["prompt"] == template.replace("{}", line["counter"]["subject"])


def test_a_choice_that_was_left_open_is_said_once(rometrace, tmp_path):
    twice = fact(prompt="Miles Davis, Miles Davis plays the")
    file = write_facts(tmp_path / "facts.json", [twice | {"id": "a"}, twice | {"id": "b"}, fact(id="c")])
    done = rometrace("--facts", file, "--all", *QUICK, "-o", tmp_path / "results.jsonl")
    lines = [line for line in done.stderr.splitlines() if "2 times; the first was taken" in line]
    assert len(lines) == 1 and lines[0].endswith("likewise in 1 further fact"), done.stderr


def test_white_space_around_a_subject_is_left_off(batch, tmp_path):
    spaced, plain = (write_facts(tmp_path / f"{i}.json", [fact(text)]) for i, text in enumerate((" Miles Davis\t", "Miles Davis")))
    (_, one), (_, other) = batch("--facts", spaced, *QUICK), batch("--facts", plain, *QUICK)
    assert without_times(one) == without_times(other)
