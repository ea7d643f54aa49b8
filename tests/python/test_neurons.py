"""Neurons through the executable: what a record has of them, what is refused, and batches of them."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any, Callable

import pytest

from agreement import TOLERANCES, assert_close, flatten
from batches import FACTS, environment, finished, refused, run
from conftest import Rometrace
from records import make_neuron_record

MILES = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis")
NEURON = ("--kinds", "neuron", "--samples", "3")
LAYERS, WIDTH = 8, 512  # of the demo model
Traced = Callable[..., dict[str, Any]]


def numbers(value: Any) -> dict[str, float | None]:
    """All that rounding may change."""
    return {name: each for name, each in flatten(value).items() if not isinstance(each, (str, int))}


def sizes(candidates: int) -> list[int]:
    """1, 2, 4, .. and all of them."""
    powers = [2**i for i in range(candidates.bit_length()) if 2**i < candidates]
    return [*powers, candidates]


def check_neurons(record: dict[str, Any]) -> None:
    """What a schema cannot say of a record's neurons."""
    neurons, run_of = record["neurons"], record["run"]
    begin, end = neurons["layers"]
    given, noising = neurons["ranked_by"] == "given", run_of["direction"] == "noising"
    runs = [*neurons["effects"], *neurons.get("sets", []), *neurons.get("sets_by_layer", []), *neurons.get("controls", [])]
    for each in runs:
        effect = record["high_score"] - each["score"] if noising else each["score"] - record["low_score"]
        assert each["indirect_effect"] == pytest.approx(effect, abs=1e-15)
        assert each["position"] in neurons["positions"]
        assert set(each.get("measures", {})) == set(record.get("measures", {}))
        others = [target["target_ids"] for target in record.get("other_targets", [])]
        assert [target["target_ids"] for target in each.get("other_targets", [])] == others
    effects = [abs(each["indirect_effect"]) for each in neurons["effects"]]
    assert effects and effects == sorted(effects, reverse=True)
    names = [(each["position"], each["layer"], each["neuron"]) for each in neurons["effects"]]
    assert len(set(names)) == len(names)
    for each in neurons["effects"]:
        assert begin <= each["layer"] < end and 0 <= each["neuron"] < WIDTH
        assert (each["estimate"] is None) == (neurons["ranked_by"] in ("given", "none"))
        assert each["row_norm"] > 0 and each["promotes"] and each["suppresses"]
        for name, sign in (("promotes", 1), ("suppresses", -1)):
            logits = [sign * token["logit"] for token in each[name]]
            assert logits == sorted(logits, reverse=True)
            assert all(bytes.fromhex(token["token_bytes"]).decode(errors="replace") == token["token"] for token in each[name])
    if not given:
        check_sets(neurons, LAYERS if neurons["layers"] == [0, LAYERS] else end - begin)


def check_sets(neurons: dict[str, Any], layers: int) -> None:
    """Sets, controls and halves fit each other."""

    def place(each: dict[str, Any]) -> tuple[int, int]:
        return each["position"], each.get("layer", -1)

    assert neurons["candidates"] == sum(half["candidates"] for half in neurons["half"] if "layer" not in half)
    sets = {where: list(each) for where, each in groupby(neurons["sets"] + neurons.get("sets_by_layer", []), place)}
    assert [place(half) for half in neurons["half"]] == list(sets)
    for half in neurons["half"]:
        here = sets[place(half)]
        assert half["candidates"] == (WIDTH if "layer" in half else WIDTH * layers)
        assert [each["neurons"] for each in here] == sizes(half["candidates"])
        for order in ("change", "random"):
            controls = [each["neurons"] for each in neurons["controls"] if place(each) == place(half) and each["order"] == order]
            assert controls in (sizes(half["candidates"]), sizes(half["candidates"])[:-1])
        whole = here[-1]["indirect_effect"]
        assert (half["neurons"] is None) == (whole <= 0)
        if half["neurons"] is None:
            continue
        at = next(i for i, each in enumerate(here) if each["indirect_effect"] >= whole / 2)
        before = here[at - 1]["neurons"] if at > 0 else 0
        assert before < half["neurons"] <= here[at]["neurons"]


CASES = {
    "alone": NEURON,
    "noising": (*NEURON, "--direction", "noising"),
    "beside grids": ("--kinds", "state,mlp,neuron", "--window", "3", "--samples", "3"),
    "some layers": (*NEURON, "--layers", "2-4", "--top", "5"),
    "one layer": (*NEURON, "--layers", "5"),
    "several positions": (*NEURON, "--positions", "0,1,3"),
    "by layer": (*NEURON, "--sets", "layer", "--layers", "0-1"),
    "integrated": (*NEURON, "--rank-by", "integrated:2"),
    "every neuron": ("--kinds", "neuron", "--rank-by", "none", "--layers", "7", "--samples", "1"),
    "given": (*NEURON, "--neurons", "3:117,0:9,3:5"),
    "without chance": ("--kinds", "neuron", "--corrupt", "zero"),
    "measures": (*NEURON, "--measures", "rank,kl,logit_difference,normalised", "--foil", " guitar"),
    "normalised without a foil": (*NEURON, "--measures", "normalised"),
    "several targets": (*NEURON, "--target", " trumpet", "--target", " guitar"),
    "an answer of two tokens": (*NEURON, "--answer", "greedy:2"),
    "to a precision": (*NEURON, "--precision", "0.05", "--most-samples", "6"),
}


@pytest.mark.parametrize("engine", ["sweep", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_a_record_of_neurons_is_whole(traced: Traced, validate: Callable[[dict[str, Any]], None], case: str, engine: str) -> None:
    record = traced(*MILES, *CASES[case], "--engine", engine, "-q")
    validate(record)
    check_neurons(record)
    assert list(record["grids"]) == (["state", "mlp"] if case == "beside grids" else [])


def test_neurons_that_are_given_have_the_scores_that_they_have_among_the_best(traced: Traced) -> None:
    best = traced(*MILES, *NEURON, "--top", "6", "-q")["neurons"]["effects"]
    names = ",".join(f"{each['layer']}:{each['neuron']}" for each in best)
    given = traced(*MILES, *NEURON, "--neurons", names, "-q")["neurons"]
    assert given["layers"] == [min(each["layer"] for each in best), max(each["layer"] for each in best) + 1]
    for one, other in zip(best, given["effects"], strict=True):
        assert_close(numbers(other | {"estimate": None}), numbers(one | {"estimate": None}), TOLERANCES["float32"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--layers", "3-8"), ("--layers: no layer 8; the model has layers 0 to 7 of 512 neurons",)),
        (("--neurons", "3:512"), ("--neurons: no neuron 3:512; the model has layers 0 to 7 of 512 neurons",)),
        (("--neurons", "8:1"), ("--neurons: no neuron 8:1;",)),
        (("--positions", "9"), ("position 9 is not in the prompt, whose 4 tokens",)),
        (("--layers", "5-3"), ("--layers: ", "ends before it begins")),
        (("--layers", "1,3"), ("--layers: ", "expected the first and the last layer")),
        (("--layers", "-3"), ("--layers",)),
        (("--neurons", "117"), ("--neurons: ", "expected layer:neuron")),
        (("--neurons", ""), ("--neurons: ", "expected layer:neuron")),
        (("--rank-by", "size"), ("--rank-by: ", "expected gradient, integrated:<steps>")),
        (("--rank-by", "integrated:0"), ("--rank-by: ", "expected gradient, integrated:<steps>")),
        (("--top", "0"), ("--top: ", "expected a whole number from 1")),
        (("--sets", "all"), ("--sets: ", "expected layer")),
        (("--engine", "gradient"), ("--kinds: neuron is not for --engine gradient", "expected --engine sweep or plain")),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(rometrace: Rometrace, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(rometrace(*MILES, *NEURON, *options, "-q"), "rometrace: ", *words)


def test_an_unknown_kind_is_told_of_neurons(rometrace: Rometrace) -> None:
    refused(rometrace(*MILES, "--kinds", "neurons"), '--kinds: "neurons"; expected state, mlp, attn, head, neuron or knockout')


def command(bin_dir: Path, output: Path, *options: str, limit: int = 4) -> list[str]:
    words = [bin_dir / "rometrace", "--facts", FACTS, "--limit", limit, "-o", output, *NEURON, *options, "-q"]
    return [str(word) for word in words]


@pytest.mark.parametrize(("options", "word"), [(("--layers", "8"), "no layer 8"), (("--neurons", "0:512"), "no neuron 0:512")])
def test_a_batch_of_layers_that_the_model_lacks_is_refused_and_leaves_no_file(
    bin_dir: Path, tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    refused(run(command(bin_dir, tmp_path / "results.jsonl", *options)), word, "the model has layers 0 to 7 of 512 neurons")
    assert list(tmp_path.iterdir()) == []


def test_the_header_says_what_was_asked(bin_dir: Path, tmp_path: Path, validate: Callable[[dict[str, Any]], None]) -> None:
    def header(*options: str) -> dict[str, Any]:
        file = tmp_path / "results.jsonl"
        finished(run(command(bin_dir, file, *options, limit=1)))
        first = json.loads(file.read_text().splitlines()[0])
        file.unlink()
        validate(first)
        return first

    plain = header()
    assert plain["kinds"] == ["neuron"] and plain["positions"] == "subject-last"
    expected = {"positions": "subject-last", "layers": None, "top": 20, "rank_by": "gradient", "given": None, "sets": None}
    assert plain["neurons"] == expected
    more = header("--layers", "2-3", "--top", "5", "--rank-by", "integrated:2", "--sets", "layer", "--positions", "last")
    expected = {"positions": "last", "layers": [2, 4], "top": 5, "rank_by": "integrated:2", "given": None, "sets": "layer"}
    assert more["neurons"] == expected
    given = header("--neurons", "5:9,3:117")
    expected = {"positions": "subject-last", "layers": None, "top": None, "rank_by": None, "given": [[3, 117], [5, 9]], "sets": None}
    assert given["neurons"] == expected


@pytest.mark.parametrize(
    ("options", "word"),
    [(("--top", "5"), "neurons.top 20, this run has 5"), (("--layers", "2-3"), "neurons.layers null, this run has [2,4]"),
     (("--rank-by", "none"), 'neurons.rank_by "gradient", this run has "none"'),
     (("--sets", "layer"), 'neurons.sets null, this run has "layer"'),
     (("--neurons", "3:117"), "neurons.given null, this run has [[3,117]]"),
     (("--positions", "last"), 'positions "subject-last", this run has "last"')],
)  # fmt: skip
def test_a_batch_of_other_neurons_does_not_go_on(bin_dir: Path, tmp_path: Path, options: tuple[str, ...], word: str) -> None:
    file = tmp_path / "results.jsonl"
    finished(run(command(bin_dir, file, limit=1)))
    before = file.read_bytes()
    refused(run(command(bin_dir, file, *options, limit=1)), "expected the same settings", word)
    assert file.read_bytes() == before


def test_shards_of_other_neurons_are_not_merged(bin_dir: Path, tmp_path: Path) -> None:
    for shard, top in (("1/2", "5"), ("2/2", "6")):
        finished(run(command(bin_dir, tmp_path / "r.jsonl", "--shard", shard, "--top", top)))
    parts = [str(tmp_path / f"r.{index}-of-2.jsonl") for index in (1, 2)]
    merged = run([str(bin_dir / "rometrace"), "merge", *parts])
    refused(merged, "was made with neurons.top 6", "with 5", "expected results of the same settings")


def test_facts_of_a_batch_are_as_they_are_alone(
    bin_dir: Path, tmp_path: Path, traced: Traced, validate: Callable[[dict[str, Any]], None]
) -> None:
    options = ("--kinds", "state,neuron", "--top", "5", "--layers", "0-2")
    words = [word for word in command(bin_dir, tmp_path / "r.jsonl", limit=6) if word not in NEURON[:2]]
    finished(run([*words, *options]))
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()][1:]
    some = [line for line in lines if line["status"] == "traced"]
    assert len(some) >= 3
    for line in some:
        validate(line)
        check_neurons(line)
    for line in some[:2]:
        alone = traced("--prompt", line["prompt"], "--subject", line["subject"], *options, *NEURON[2:], "-q")
        assert_close(numbers(line["neurons"]), numbers(alone["neurons"]), TOLERANCES["float32"])


def test_a_batch_that_was_stopped_goes_on(bin_dir: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    finished(run(command(bin_dir, whole)))
    lines = whole.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:3]))
    finished(run(command(bin_dir, part)))
    for one, other in zip(map(json.loads, lines), map(json.loads, part.read_text().splitlines()), strict=True):
        assert one.get("neurons") == other.get("neurons")


def test_what_draws_grids_says_that_there_are_none(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "neurons.json"
    file.write_text(json.dumps(make_neuron_record()))
    picture = tmp_path / "picture.png"
    script = [sys.executable, str(repository / "scripts/plot_trace.py"), str(file), "-o", str(picture)]
    done = subprocess.run(script, capture_output=True, encoding="utf-8", env=environment(), timeout=120, check=False)
    assert done.returncode == 2 and not picture.exists()
    assert len(done.stderr.splitlines()) == 1 and "is a trace of neurons alone, expected at least one of state" in done.stderr
