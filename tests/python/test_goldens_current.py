"""The goldens in the tree are what tests/judge/make_goldens.py makes."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import make_goldens
from reference_tracer import KINDS, LAYOUTS, load_tokenizer, weights_sha256

# Both sides are float64 sums of a few hundred terms; another version of torch may add them up in another order.
RELATIVE, ABSOLUTE = 1e-9, 1e-12


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # as the script does; two threads of a tiny model wait for each other most of the time


def assert_same(found: Any, expected: Any, where: str) -> None:
    """Equal at any depth; floats within the tolerance."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name in expected:
            assert_same(found[name], expected[name], f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected)):
            assert_same(one, other, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert abs(found - expected) <= RELATIVE * abs(expected) + ABSOLUTE, f"{where}: {found}, expected {expected}"
    else:
        assert found == expected, where


def test_each_case_has_its_folder_and_each_folder_its_case(repository: Path) -> None:
    folders = {folder.name for folder in (repository / "tests/goldens/models").iterdir()}
    assert folders == {case.name for case in make_goldens.CASES}


def test_the_options_of_the_goldens_are_spread_over_all_values(repository: Path) -> None:
    paths = (repository / "tests/goldens/models").glob("*/golden.json")
    make_goldens.check_spread(json.loads(path.read_text()) for path in paths)


@pytest.mark.parametrize(
    "name", ["narrow_mlp", "stored_bf16", "sharded", "gpt_neox", "opt_norm_after", "llama_llama3", "gemma3_multimodal"]
)
def test_making_a_case_again_gives_the_same_weights_and_numbers(repository: Path, tmp_path: Path, name: str) -> None:
    committed = repository / "tests/goldens/models" / name
    (case,) = (case for case in make_goldens.CASES if case.name == name)
    described = deepcopy(case.config)
    golden = make_goldens.make_case(case, tmp_path)
    assert case.config == described
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in committed.iterdir())
    for path in committed.glob("*.safetensors"):
        found, expected = load_file(tmp_path / path.name), load_file(path)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[tensor], expected[tensor]) for tensor in expected)
    for path in [committed / "config.json", *committed.glob("*.index.json")]:
        assert (tmp_path / path.name).read_text() == path.read_text()
    expected = json.loads((committed / "golden.json").read_text())
    make_goldens.check_counts(case, tmp_path, golden)
    assert_same(
        {field: golden[field] for field in ("about", "dtype", "logits", "traces")},
        {field: expected[field] for field in ("about", "dtype", "logits", "traces")},
        name,
    )


def test_a_case_whose_numbers_do_not_show_what_it_is_about_is_refused(repository: Path) -> None:
    folder = repository / "tests/goldens/models/qwen2"
    golden = json.loads((folder / "golden.json").read_text())
    (case,) = (case for case in make_goldens.CASES if case.name == "qwen2")
    unused = replace(case, counts=({"sliding_window": 2},))  # use_sliding_window is false
    with pytest.raises(ValueError, match="qwen2: .*'sliding_window': 2.* changes nothing"):
        make_goldens.check_counts(unused, folder, golden)


def test_each_family_has_its_methods_of_every_kind(repository: Path) -> None:
    golden = json.loads((repository / "tests/goldens/methods.json").read_text())
    kinds: dict[str, set[str]] = {}
    for entry in golden["traces"]:
        config = json.loads((repository / "tests/goldens/models" / entry["model"] / "config.json").read_text())
        kinds.setdefault(config["model_type"], set()).update(entry["options"]["kinds"])
    assert kinds.keys() == LAYOUTS.keys()
    assert all(found == set(KINDS) for found in kinds.values()), kinds


def test_each_method_has_its_trace_and_its_model(repository: Path) -> None:
    golden = json.loads((repository / "tests/goldens/methods.json").read_text())
    found = [(entry["about"], entry["model"]) for entry in golden["traces"]]
    assert found == [(method.about, method.model) for method in make_goldens.METHODS]
    assert {model for _, model in found} <= {case.name for case in make_goldens.CASES}


def test_making_methods_again_gives_the_same_numbers(repository: Path, tmp_path: Path) -> None:
    names = ("heads in a window", "an answer of two tokens, subject last", "Student noise")
    names += ("tokens, noising, an answer of two tokens, measures", "draws up to a cap")
    names += ("GPT-NeoX, sequential", "OPT, norms after, noising", "Llama 3, noising")
    made = make_goldens.make_methods(repository / "tests/goldens/models", tmp_path / "methods.json", names)
    golden = json.loads((repository / "tests/goldens/methods.json").read_text())
    expected = {entry["about"]: entry for entry in golden["traces"] if entry["about"] in names}
    assert_same({entry["about"]: entry for entry in made["traces"]}, expected, "methods")
    assert len(expected) == len(names)


def test_the_demos_golden_is_of_the_demo_that_is_shipped(repository: Path, demo: Path) -> None:
    path = repository / "tests/goldens/demo.json"
    if not path.exists() or not demo.is_dir():
        pytest.skip("the demo model or its golden is not there")
    golden = json.loads(path.read_text())
    assert golden["model_sha256"] == weights_sha256(demo), "run tests/judge/make_goldens.py --demo again"
    tokenizer = load_tokenizer(demo)
    for fact in golden["facts"]:
        assert tokenizer.encode(fact["prompt"]).ids == fact["token_ids"]
        assert int(np.argmax(fact["logits"])) == fact["traces"][0]["prediction_id"]
