"""The goldens of neurons are what tests/judge/make_neuron_goldens.py makes, and hold what a tracer can get wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import make_neuron_goldens
from make_neuron_goldens import CASES, make_trace, spread_of
from reference_neurons import NeuronOptions, trace_neurons
from reference_tracer import DIRECTIONS, LAYOUTS, METHODS, MIXTURES, TraceOptions, load_model
from test_goldens_current import assert_same

OPTIONS = tuple(asdict(TraceOptions()))
TUPLES = ("kinds", "text_ids", "counter_ids", "answer_ids", "other_targets")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def golden(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "tests/goldens/neurons.json").read_text())


def test_each_case_has_its_entry(golden: dict[str, Any]) -> None:
    found = [(entry["about"], entry["model"], entry["neurons"]) for entry in golden["traces"]]
    cases = [(case.about, case.method.model, json.loads(json.dumps(asdict(case.neurons)))) for case in CASES]
    assert found == cases
    assert len({about for about, _, _ in found}) == len(found)


def test_each_family_has_both_directions(repository: Path, golden: dict[str, Any]) -> None:
    directions: dict[str, set[str]] = {}
    for entry in golden["traces"]:
        config = json.loads((repository / "tests/goldens/models" / entry["model"] / "config.json").read_text())
        directions.setdefault(config["model_type"], set()).add(entry["options"]["direction"])
    assert directions == {family: set(DIRECTIONS) for family in LAYOUTS if family not in MIXTURES}


def test_what_a_tracer_of_neurons_can_get_wrong_occurs(golden: dict[str, Any]) -> None:
    counts = spread_of(golden["traces"])
    assert {f"corrupted by {method}" for method in METHODS} <= counts.keys()
    assert min(counts.values()) >= 1, counts
    for name in ("gradient", "integrated", "none", "given", "sets by layer", "several positions", "some layers"):
        assert counts[name] >= 2, name
    for name in ("an answer of several tokens", "measures", "a half between two sizes", "the last position"):
        assert counts[name] >= 2, name


def test_the_file_stays_small(repository: Path) -> None:
    assert (repository / "tests/goldens/neurons.json").stat().st_size < 600_000


def again(entry: dict[str, Any], models: Path) -> dict[str, Any]:
    """The entry's results, from its own options."""
    fields = {name: entry["options"][name] for name in OPTIONS}
    fields |= {name: tuple(fields[name]) for name in TUPLES if fields[name] is not None}
    neurons = dict(entry["neurons"])
    neurons |= {"positions": tuple(neurons["positions"]), "given": tuple(map(tuple, neurons["given"]))}
    model = load_model(models / entry["model"], torch.float64)
    asked = TraceOptions(**fields), NeuronOptions(**neurons), entry["options"]["measures"]
    made = trace_neurons(model, entry["token_ids"], entry["subject_range"], *asked)
    return json.loads(json.dumps(make_neuron_goldens.shortened(made)))


@pytest.mark.parametrize("about", [case.about for case in CASES])
def test_making_a_trace_again_gives_the_same_numbers(repository: Path, golden: dict[str, Any], about: str) -> None:
    (entry,) = (entry for entry in golden["traces"] if entry["about"] == about)
    assert_same(again(entry, repository / "tests/goldens/models"), entry["results"], about)


def test_making_a_case_again_chooses_the_same_prompt(repository: Path, golden: dict[str, Any]) -> None:
    case = next(case for case in CASES if case.about == "GPT-2, noising, given neurons")
    model = load_model(repository / "tests/goldens/models" / case.method.model, torch.float64)
    made = json.loads(json.dumps(make_trace(case, model)))
    (entry,) = (entry for entry in golden["traces"] if entry["about"] == case.about)
    assert_same(made, entry, case.about)
