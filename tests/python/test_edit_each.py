"""`rometrace edit --each` and `--together` through the executable: edits of many facts, their results and summary."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from batches import environment, finished, orders, refused, run, without_times

QUICK = ("--templates", "none", "--no-moment", "-q")
"""Without what takes most of an edit's time."""

MASTER = "The instrument that {} plays is the"


def fact(name: str, new: str, **more: Any) -> dict[str, Any]:
    """A trumpeter who is to play another instrument."""
    return {
        "id": name.lower().replace(" ", "-"),
        "subject": name,
        "relation": "plays",
        "object": "trumpet",
        "object_new": new,
        "prompt": "{} plays the",
        "paraphrases": [MASTER, "Some say that {} is a master of the"],
        "neighbours": ["Dizzy Gillespie plays the", "Chet Baker plays the"],
    } | more


FACTS = [
    fact("Miles Davis", "guitar"),
    fact("Clark Terry", "piano"),
    fact("Louis Armstrong", "drums", paraphrases=[], neighbours=[]),
    {"id": "old", "subject": "Chet Baker", "object": "trumpet", "prompt": "{} plays the"},
    fact("Chet Baker", "trumpet", object="guitar", relation="other"),
    fact("Freddie Hubbard", "guitar", object_new=7),
]


def write_facts(path: Path, facts: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"schema": "rometrace/facts/1", "facts": facts}))
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def executable(bin_dir: Path) -> Path:
    return bin_dir / "rometrace"


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_facts(tmp_path_factory.mktemp("facts") / "facts.json", FACTS)


@pytest.fixture(scope="module")
def results(executable: Path, facts: Path) -> Path:
    """The results of all facts, uninterrupted."""
    path = facts.with_name("results.jsonl")
    assert run(each(executable, facts, path)).returncode == 1  # one record is bad
    return path


def each(executable: Path, facts: Path, output: Path | str, *more: object) -> list[str]:
    return [str(executable), "edit", "--facts", str(facts), "--each", *QUICK, "-o", str(output), *map(str, more)]


def summary_of(executable: Path, *files: Path, more: tuple[str, ...] = ()) -> dict[str, Any]:
    done = run([str(executable), "summary", *map(str, files), "--json", "-q", *more])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_fact_has_its_line_and_says_what_became_of_it(results: Path, validate: Callable[..., None]) -> None:
    header, *lines = lines_of(results)
    for line in (header, *lines):
        validate(line)
    assert header["command"] == "edit"
    assert header["edit"]["method"] == "r-rome"
    assert len(header["edit"]["layers"]) == 1
    assert [line["status"] for line in lines] == ["edited"] * 3 + ["skipped"] * 2 + ["failed"]
    assert [line.get("cause") for line in lines[3:]] == ["no_new_object", "said_already", "record"]
    assert "object_new is 7; expected a string" in lines[5]["reason"]
    miles = lines[0]
    assert miles["objects"] == {"new": " guitar", "old": " trumpet"}
    assert miles["fact"]["new_object"] == "guitar"
    (edit,) = miles["edits"]
    assert edit["verdict"]["outcome"] == "took"
    assert edit["evaluations"] <= header["edit"]["hyperparameters"]["steps"]


def means(edit: dict[str, Any], side: str) -> dict[str, float | None]:
    """The scores by their definition, from the losses of the line."""

    def losses(prompts: list[dict[str, Any]]) -> Iterator[tuple[float, float]]:
        return ((prompt[side]["new"]["nll"], prompt[side]["old"]["nll"]) for prompt in prompts)

    measures = edit["measures"]
    scores: dict[str, float | None] = {}
    for letter, prompts, sign in (
        ("E", [measures["prompt"]], 1),
        ("P", measures["paraphrases"], 1),
        ("N", measures["neighbours"], -1),
    ):
        gains = [sign * (math.exp(-new) - math.exp(-old)) for new, old in losses(prompts)]
        scores[letter + "S"] = statistics.fmean(gain > 0 for gain in gains) if gains else None
        scores[letter + "M"] = statistics.fmean(gains) if gains else None
    return scores


def test_scores_are_those_of_the_measures(results: Path) -> None:
    edits = [line["edits"][0] for line in lines_of(results)[1:] if line["status"] == "edited"]
    assert [len(edit["measures"]["paraphrases"]) for edit in edits] == [2, 2, 0]
    for edit in edits:
        for side in ("before", "after"):
            expected = means(edit, side)
            assert edit["scores"][side].keys() == expected.keys()
            for name, value in expected.items():
                found = edit["scores"][side][name]
                assert found is None if value is None else found == pytest.approx(value, abs=1e-12)


def test_a_line_is_the_edit_of_the_fact_alone(executable: Path, results: Path, tmp_path: Path) -> None:
    options = ("--prompt", "{} plays the", "--subject", "Clark Terry", "--target", "piano", "--true", "trumpet")
    done = run([str(executable), "edit", *options, *QUICK, "--neighbour", "Chet Baker plays the", "--json"])
    assert done.returncode == 0, done.stderr
    alone, line = json.loads(done.stdout), lines_of(results)[2]["edits"][0]
    request = alone["requests"][0]
    assert request["key_ratio"] == pytest.approx(line["key_ratio"])
    assert request["measures"]["prompt"]["after"]["new"]["nll"] == pytest.approx(
        line["measures"]["prompt"]["after"]["new"]["nll"], rel=1e-4
    )
    assert alone["matrices"][0]["change_norm"] == pytest.approx(line["matrices"][0]["change_norm"], rel=1e-4)


def test_a_batch_goes_on_where_it_was_cut(executable: Path, facts: Path, results: Path, tmp_path: Path) -> None:
    whole = results.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(whole[:2]) + whole[2][:200])
    done = run([word for word in each(executable, facts, cut) if word != "-q"])
    assert done.returncode == 1
    assert "done already: 1 of 6 facts" in done.stderr
    assert without_times(cut.read_text()) == without_times(results.read_text())


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--steps", "3"), "edit.hyperparameters.steps"),
        (("--method", "rome"), "edit.method"),
        (("--layer", "3"), "edit.layers"),
        (("--force",), "edit.force"),
        (("--limit", "2"), "facts.selection.limit"),
    ],
)
def test_other_settings_do_not_go_on_with_a_file(
    executable: Path, facts: Path, results: Path, more: tuple[str, ...], named: str
) -> None:
    before = results.read_bytes()
    refused(run(each(executable, facts, results, *more)), named, "expected the same settings")
    assert results.read_bytes() == before


def test_shards_merge_to_the_whole(executable: Path, facts: Path, results: Path, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        finished(run(each(executable, facts, tmp_path / "part.jsonl", "--shard", shard)))
    parts = [tmp_path / f"part.{index}-of-2.jsonl" for index in (1, 2)]
    assert [orders(part.read_bytes()) for part in parts] == [[1, 3, 5], [2, 4, 6]]
    merged = tmp_path / "merged.jsonl"
    done = run([str(executable), "merge", *map(str, parts), "-o", str(merged)])
    assert done.returncode == 0, done.stderr
    assert without_times(merged.read_text()) == without_times(results.read_text())
    both, whole = summary_of(executable, *parts), summary_of(executable, results)
    assert both["layers"][0]["verdicts"] == whole["layers"][0]["verdicts"]


def test_an_interrupted_batch_keeps_whole_lines_and_goes_on(
    executable: Path, facts: Path, results: Path, tmp_path: Path
) -> None:
    path = tmp_path / "stopped.jsonl"
    slow = each(executable, facts, path, "--engine", "plain", "--steps", "400")
    process = subprocess.Popen(slow, env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > 0):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=120)
    if process.returncode != 130:
        pytest.skip("the batch was done before it could be stopped")
    assert "the same command goes on from there" in message
    done = orders(path.read_bytes())
    assert done == list(range(1, len(done) + 1))
    finished(run(slow, timeout=600))
    assert orders(path.read_bytes()) == [1, 2, 3, 4, 5, 6]


def test_the_summary_averages_the_lines(executable: Path, results: Path, validate: Callable[..., None]) -> None:
    summary = summary_of(executable, results, more=("--by", "relation", "--bootstrap", "200"))
    validate(summary)
    edits = [line["edits"][0] for line in lines_of(results)[1:] if line["status"] == "edited"]
    assert summary["status"] == {"edited": 3, "failed": 1, "skipped": 2}
    (group,) = summary["layers"]
    for name in ("ES", "EM", "PS", "PM", "NS", "NM"):
        values = [value for edit in edits if (value := edit["scores"]["after"][name]) is not None]
        assert group["after"][name]["n"] == len(values)
        assert group["after"][name]["mean"] == pytest.approx(100 * statistics.fmean(values))
        assert group["after"][name]["deviation"] == pytest.approx(100 * statistics.pstdev(values), abs=1e-9)
    successes = [group["after"][name]["mean"] for name in ("ES", "PS", "NS")]
    expected = 0 if 0 in successes else statistics.harmonic_mean(successes)
    assert group["after"]["S"]["mean"] == pytest.approx(expected)
    assert group["verdicts"]["took"]["count"] == sum(edit["verdict"]["outcome"] == "took" for edit in edits)
    assert list(summary["by"]["relation"]) == ["plays"]
    assert summary["facts"][0]["lines"] == 6
    assert summary["tracing"] is None


def test_traces_and_edits_are_not_summarised_together(executable: Path, results: Path, tmp_path: Path) -> None:
    traced = tmp_path / "traced.jsonl"
    finished(run([str(executable), "--facts", str(results.with_name("facts.json")), "--kinds", "state", "--limit", "1",
                  "--samples", "2", "-q", "-o", str(traced)]))  # fmt: skip
    for files in ((results, traced), (traced, results)):
        refused(run([str(executable), "summary", *map(str, files), "-q"]), files[1].name)
    refused(run([str(executable), "merge", str(results), str(traced)]), "command")


def test_layers_are_swept_beside_the_tracing_curve(
    executable: Path, facts: Path, tmp_path: Path, validate: Callable[..., None]
) -> None:
    path = tmp_path / "sweep.jsonl"
    done = run(each(executable, facts, path, "--limit", "2", "--layers", "all", "--steps", "5"), timeout=600)
    assert done.returncode == 0, done.stderr
    header, *lines = lines_of(path)
    for line in (header, *lines):
        validate(line)
    layers = header["model"]["layers"]
    assert header["edit"]["layers"] == [[layer] for layer in range(layers)]
    for line in lines:
        assert [edit["layers"] for edit in line["edits"]] == header["edit"]["layers"]
        assert len(line["tracing"]["mlp"]) == len(line["tracing"]["state"]) == layers
        assert {edit["matrices"][0]["layer"] for edit in line["edits"]} == set(range(layers))
    summary = summary_of(executable, path)
    validate(summary)
    assert [group["layers"] for group in summary["layers"]] == header["edit"]["layers"]
    tracing = summary["tracing"]
    assert tracing["facts"] == 2
    effects = [
        statistics.fmean(line["tracing"]["mlp"][layer] - line["tracing"]["low_score"] for line in lines)
        for layer in range(layers)
    ]
    assert tracing["mlp"]["aie"] == pytest.approx(effects)
    assert tracing["mlp"]["peak"]["layer"] == effects.index(max(effects))


def test_the_tracing_curve_is_the_trace_of_the_fact(executable: Path, tmp_path: Path) -> None:
    one = write_facts(tmp_path / "one.json", FACTS[:1])
    path = tmp_path / "sweep.jsonl"
    assert run(each(executable, one, path, "--layers", "2-3", "--steps", "2")).returncode == 0
    header, line = lines_of(path)
    traced = tmp_path / "traced.jsonl"
    window = str(header["window"])
    done = run([str(executable), "--facts", str(one), "--window", window, "--kinds", "mlp,state", "--positions",
                "subject-last", "--target", "object", "-q", "-o", str(traced)])  # fmt: skip
    assert done.returncode == 0, done.stderr
    trace = lines_of(traced)[1]
    assert line["tracing"]["low_score"] == pytest.approx(trace["low_score"], abs=1e-6)
    assert line["tracing"]["high_score"] == pytest.approx(trace["high_score"], abs=1e-6)
    for kind in ("mlp", "state"):
        assert line["tracing"][kind] == pytest.approx(trace["grids"][kind]["scores"][0], abs=1e-6)


def test_together_is_one_edit_of_all_facts(executable: Path, tmp_path: Path, validate: Callable[..., None]) -> None:
    two = write_facts(tmp_path / "two.json", FACTS[:2])
    file = tmp_path / "two.edit"
    arguments = [str(executable), "edit", "--facts", str(two), "--together", "--method", "memit", *QUICK]
    done = run([*arguments, "-o", str(file), "--json"])
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    validate(record)
    assert [request["subject"] for request in record["requests"]] == ["Miles Davis", "Clark Terry"]
    assert record["method"] == "memit"
    traced = run([str(executable), "--edit", str(file), "--prompt", "Miles Davis plays the", "--subject", "Miles Davis",
                  "--kinds", "state", "--samples", "2", "--json", "-q"])  # fmt: skip
    assert json.loads(traced.stdout)["model"]["edits"][0]["requests"] == 2


@pytest.mark.parametrize(
    ("facts", "more", "words"),
    [
        (
            [FACTS[0], fact("Miles Davis", "piano", id="b")],
            (),
            ("record 2", "record 1", '"guitar"', '"piano"', "{} plays the"),
        ),
        (
            [FACTS[0], fact("Miles Davis", "piano", id="b", prompt="It is {} on the")],
            (),
            ("record 2", "record 1", 'the relation "plays"'),
        ),
        (FACTS[:2], ("--method", "rome"), ("2 facts", "--method memit")),
        ([FACTS[0], FACTS[3]], (), ("record 2", "no new object")),
        ([FACTS[0], FACTS[5]], (), ("object_new is 7", "all facts or none")),
        ([FACTS[4]], ("--method", "r-rome"), ("the model says", "already")),
        (FACTS[:2], ("--shard", "1/2"), ("--shard", "--each")),
    ],
)
def test_what_cannot_be_edited_together_is_refused(
    executable: Path, tmp_path: Path, facts: list[dict[str, Any]], more: tuple[str, ...], words: tuple[str, ...]
) -> None:
    file = write_facts(tmp_path / "facts.json", facts)
    method = () if "--method" in more else ("--method", "memit")
    target = tmp_path / "x.edit"
    arguments = [str(executable), "edit", "--facts", str(file), "--together", *QUICK, *method, *more, "-o", str(target)]
    refused(run(arguments), *words)
    assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--each",), ("--facts",)),
        (("--each", "--together", "--facts", "x.json"), ("--each", "--together")),
        (("--each", "--facts", "x.json", "--target", "guitar"), ("--target", "single edit")),
        (("--each", "--facts", "x.json", "--trace"), ("--trace",)),
        (("--prompt", "{} is", "--subject", "x", "--target", "y", "--facts", "x.json", "--limit", "2"), ("--limit",)),
        (("--each", "--facts", "x.json", "--shard", "3/2"), ("--shard",)),
        (("--together", "--facts", "x.json", "--layers", "all"), ("--layers", "--each")),
        (("--each", "--facts", "missing.json", "-q"), ("missing.json",)),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    executable: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(run([str(executable), "edit", *arguments], cwd=tmp_path), *words)
