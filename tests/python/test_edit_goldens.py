"""The goldens of edits are what tests/judge/make_edit_goldens.py makes, and hold what an editor can get wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import make_edit_goldens
from make_edit_goldens import EDITS, answer_records, fact_of, load_golden_model, make_edit, results_of, spread_of
from reference_editor import second_moments
from reference_tracer import LAYOUTS, MIXTURES

# Both sides are in float64, and the goldens are of edits that make rounding errors at most 1e4 times larger.
RELATIVE, ABSOLUTE = 1e-9, 1e-12


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def golden(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "tests/goldens/editing.json").read_text())


def assert_same(found: Any, expected: Any, where: str) -> None:
    """Equal at any depth; lists of numbers by the length of their difference."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name in expected:
            assert_same(found[name], expected[name], f"{where}.{name}")
    elif isinstance(expected, (list, tuple)) and not all(isinstance(value, float) for value in expected):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected)):
            assert_same(one, other, f"{where}[{number}]")
    elif isinstance(expected, (list, tuple, float)):
        assert np.shape(found) == np.shape(expected), where
        away = np.linalg.norm(np.array(found) - np.array(expected))
        assert away <= RELATIVE * np.linalg.norm(expected) + ABSOLUTE, f"{where}: {found}, expected {expected}"
    else:
        assert found == expected, where


def test_each_edit_has_its_entry(golden: dict[str, Any]) -> None:
    found = [(entry["about"], entry["model"], entry["method"], entry["layers"]) for entry in golden["edits"]]
    expected = [(edit.about, edit.model, edit.method, list(edit.layers)) for edit in EDITS]
    assert sorted(found) == sorted(expected)
    assert {moment["model"] for moment in golden["moments"]} == {edit.model for edit in EDITS}


def test_each_family_has_every_method(repository: Path, golden: dict[str, Any]) -> None:
    methods: dict[str, set[str]] = {}
    for entry in golden["edits"]:
        config = json.loads((repository / "tests/goldens/models" / entry["model"] / "config.json").read_text())
        methods.setdefault(config["model_type"], set()).add(entry["method"])
    assert methods == {family: {"rome", "r-rome", "memit"} for family in LAYOUTS if family not in MIXTURES}


def test_what_an_editor_can_get_wrong_occurs_twice_or_more(golden: dict[str, Any]) -> None:
    counts = spread_of(golden["edits"])
    assert len(counts) == 12
    assert min(counts.values()) >= 2, counts


@pytest.mark.parametrize("name", dict.fromkeys(edit.model for edit in EDITS))
def test_making_the_edits_again_gives_the_same_numbers(repository: Path, golden: dict[str, Any], name: str) -> None:
    model = load_golden_model(repository / "tests/goldens/models" / name)
    (stored,) = (moment for moment in golden["moments"] if moment["model"] == name)
    moments, tokens = second_moments(model, [layer["layer"] for layer in stored["layers"]], stored["texts"])
    made = make_edit_goldens.moment_record(name, stored["texts"], moments, tokens)
    assert_same(made, stored, f"moments of {name}")
    edits = {edit.about: edit for edit in EDITS if edit.model == name}
    entries = {entry["about"]: entry for entry in golden["edits"] if entry["model"] == name}
    assert edits.keys() == entries.keys()
    for about, entry in entries.items():
        facts = [fact_of(fact) for fact in entry["facts"]]
        found = make_edit(edits[about], model, moments, facts)
        assert_same(results_of(found), entry["results"], about)
        answers = answer_records(model, found, facts, tuple(entry["answers"][-1]["prompt_ids"]))
        assert_same([answer["after"] for answer in answers], [answer["after"] for answer in entry["answers"]], about)
        assert_same([answer["before"] for answer in answers], [answer["before"] for answer in entry["answers"]], about)


def test_making_a_model_again_chooses_the_same_facts(repository: Path, golden: dict[str, Any]) -> None:
    made = json.loads(json.dumps(make_edit_goldens.make_edits(repository / "tests/goldens/models", ["narrow_mlp"])))
    assert_same(made["edits"], [one for one in golden["edits"] if one["model"] == "narrow_mlp"], "edits")
    assert_same(made["moments"], [one for one in golden["moments"] if one["model"] == "narrow_mlp"], "moments")
