"""The schema that rometrace ships describes what it writes, and refuses what it must not write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import jsonschema
import pytest

from records import HEADS, make_both_record, make_neuron_record, make_neurons, make_record, make_skipped_record, make_whole_record, with_counter

PROMPT = ("--prompt", "We are never ever getting back", "--subject", "never ever")


@pytest.fixture(scope="module")
def schema(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "share/rometrace/schema/trace-1.schema.json").read_text())


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def lyrics(shared: Path) -> Path:
    return shared / "models/gpt2-lyrics"


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    """`record` less the field at the dotted path `name`."""
    *parents, last = name.split(".")
    place = record
    for parent in parents:
        place = place[parent]
    del place[last]
    return record


def with_value(record: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """`record` with another value at the dotted path `name`."""
    *parents, last = name.split(".")
    place = record
    for parent in parents:
        place = place[parent]
    place[last] = value
    return record


def required_fields(schema: dict[str, Any]) -> list[str]:
    """Dotted paths of all fields that a traced record must have."""
    definitions = schema["$defs"]
    return [
        *schema["required"],
        *schema["allOf"][0]["then"]["required"],
        *schema["allOf"][1]["else"]["required"],
        *(f"model.{name}" for name in definitions["model"]["required"]),
        *(f"run.{name}" for name in definitions["run"]["required"]),
        *(f"run.noise.{name}" for name in definitions["run"]["properties"]["noise"]["required"]),
        *(f"grids.mlp.{name}" for name in definitions["grid"]["required"]),
    ]


def assert_shapes_agree(record: dict[str, Any]) -> None:
    """What a schema cannot say: T and L are the same everywhere."""
    tokens, layers = len(record["token_ids"]), record["model"]["layers"]
    begin, end = record["subject_range"]
    assert 0 <= begin < end <= tokens
    assert len(record["tokens"]) == len(record["token_bytes"]) == tokens
    assert b"".join(map(bytes.fromhex, record["token_bytes"])) == record["prompt"].encode()
    for kind, grid in record.get("grids", {}).items():
        rows = len(grid.get("positions", range(tokens)))
        for name in ("scores", "indirect_effect", "standard_error"):
            assert [len(row) for row in grid[name]] == [layers] * rows
            if kind == "head":
                assert {len(heads) for row in grid[name] for heads in row} == {grid["heads"]}
    for group in record.get("knockout", {}).get("groups", {}).values():
        assert len(group["scores"]) == len(group["relative_change"]) == layers


def test_the_schema_is_a_valid_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


def test_every_field_of_the_schema_is_described(schema: dict[str, Any]) -> None:
    def undescribed(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        described = "description" in node or "description" in schema["$defs"].get(node.get("$ref", "")[8:], {})
        found = [] if described else [path]
        for name, child in node.get("properties", {}).items():
            found += undescribed(child, f"{path}.{name}")
        return found

    nodes = schema["properties"] | schema["$defs"]["grid"]["properties"]
    assert [path for name, node in nodes.items() for path in undescribed(node, name)] == []


def test_a_complete_record_is_accepted(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(make_record())
    validator.validate(make_skipped_record())


@pytest.mark.parametrize(
    "record",
    [
        make_whole_record(),
        make_whole_record(direction="noising"),
        make_both_record(),
        make_whole_record(corruption={"method": "zero"}, noise=None, samples=1),
        make_whole_record(
            corruption={"method": "mean", "text": {"name": "facts.json", "sha256": "0" * 64, "tokens": 9}}, noise=None
        ),
        make_whole_record(noise={"rule": "t5", "sigma": None, "replace": False}),
        make_whole_record(precision={"asked": 0.01, "reached": None, "most_samples": 1000}),
        with_counter(make_whole_record()),
        make_whole_record() | {"grids": {}},
        make_whole_record() | {"answer": " New York", "answer_bytes": b" New York".hex(), "answer_ids": [7, 8]},
    ],
    ids=["whole", "noising", "both", "zero", "mean", "student", "precision", "tokens", "knockout", "answer"],
)
def test_what_the_whole_method_adds_is_accepted(
    validator: jsonschema.Draft202012Validator, record: dict[str, Any]
) -> None:
    validator.validate(record)
    assert_shapes_agree(record)


def test_only_an_approximation_leaves_the_range_of_probabilities(validator: jsonschema.Draft202012Validator) -> None:
    for engine, approximate in (("gradient", True), ("sweep", False), ("plain", False)):
        record = make_whole_record(engine=engine, approximate=approximate)
        assert validator.is_valid(record)
        for kind, cells in (("mlp", [[1.25]]), ("head", [[[-0.5] * HEADS]])):
            wide = make_whole_record(engine=engine, approximate=approximate)
            wide["grids"][kind]["scores"] = cells
            assert validator.is_valid(wide) == approximate, (engine, kind)
    assert not validator.is_valid(make_whole_record(engine="gradient"))
    assert not validator.is_valid(make_whole_record(engine="sweep", approximate=True))


def test_fields_of_a_later_minor_version_are_accepted(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(make_record() | {"later": 1})


def test_a_record_without_any_one_required_field_is_refused(
    schema: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    accepted = [name for name in required_fields(schema) if validator.is_valid(without(make_record(), name))]
    assert accepted == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema", "rometrace/trace/2"),
        ("status", "failed"),
        ("prompt", ""),
        ("tokens", []),
        ("token_bytes", ["zz"]),
        ("token_bytes", ["abc"]),
        ("token_ids", [-1]),
        ("token_ids", ["7"]),
        ("subject_range", [0]),
        ("subject_range", [0, 1, 2]),
        ("subject_range", [-1, 2]),
        ("high_score", 1.5),
        ("high_score", None),
        ("low_score", -0.1),
        ("low_standard_error", -0.1),
        ("total_effect", "0.5"),
        ("grids", {}),
        ("grids.state.scores", [[0.5, None]]),
        ("grids.state.scores", [0.5]),
        ("grids.state.window", 0),
        ("grids.attn.indirect_effect", [[2.0]]),
        ("model.weights_sha256", "0" * 63),
        ("model.layers", 0),
        ("run.seed", 2**32),
        ("run.samples", 0),
        ("run.noise.replace", 1),
        ("run.seconds", None),
    ],
)
def test_a_wrong_value_is_refused(validator: jsonschema.Draft202012Validator, name: str, value: Any) -> None:
    assert not validator.is_valid(with_value(make_record(), name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("answer_ids", []),
        ("grids", []),
        ("grids.state.positions", []),
        ("grids.state.positions", [1, 1]),
        ("grids.state.positions", [-1]),
        ("grids.state_mlp_severed.scores", [[[0.5]]]),
        ("grids.state_attn_severed.window", 0),
        ("grids.head.scores", [[0.5]]),
        ("grids.head.scores", [[[1.5]]]),
        ("grids.head.indirect_effect", [[[None]]]),
        ("grids.head.heads", 0),
        ("knockout.window", 0),
        ("knockout.groups.behind", {"positions": [0], "scores": [0.5], "relative_change": [0.0]}),
        ("knockout.groups.last.positions", []),
        ("knockout.groups.last.scores", [1.5]),
        ("knockout.groups.last.relative_change", [-1.5]),
        ("measures", {}),
        ("measures.surprise", {"high": 1, "low": 0, "low_standard_error": 0, "grids": {}}),
        ("measures.rank.grids.mlp.values", ["1"]),
        ("measures.kl.low_standard_error", -1),
        ("measures.normalised.of", "rank"),
        ("run.direction", "sideways"),
        ("run.approximate", 1),
        ("run.corruption.method", "fire"),
        ("run.corruption.text", {"name": "facts.json"}),
        ("run.corruption", {"method": "zero"}),
        ("run.noise", None),
        ("run.precision", {"asked": 0, "reached": 0, "most_samples": 10}),
        ("counter", {"prompt": "a", "subject": None, "token_ids": [1], "tokens": ["a"]}),
    ],
)
def test_a_wrong_value_of_the_whole_method_is_refused(
    validator: jsonschema.Draft202012Validator, name: str, value: Any
) -> None:
    assert not validator.is_valid(with_value(make_whole_record(), name, value))


@pytest.mark.parametrize(
    "name",
    ["grids.head.heads", "grids.head.positions", "knockout.window", "knockout.groups.last.scores", "measures.kl.high",
     "measures.logit_difference.foil", "measures.normalised.of", "run.corruption.method"],
)  # fmt: skip
def test_a_field_of_the_whole_method_is_required(validator: jsonschema.Draft202012Validator, name: str) -> None:
    assert not validator.is_valid(without(make_whole_record(), name))


def test_a_record_without_grids_has_a_knockout(validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid(without(make_whole_record() | {"grids": {}}, "knockout"))


def test_a_record_may_have_neurons_alone_or_beside_grids(validator: jsonschema.Draft202012Validator) -> None:
    for record in (make_neuron_record(), make_neuron_record(by_layer=True), make_record() | {"neurons": make_neurons()}):
        validator.validate(record)
    assert not validator.is_valid(without(make_neuron_record(), "neurons"))
    assert not validator.is_valid(make_skipped_record() | {"neurons": make_neurons()})


def test_neurons_that_were_given_have_no_sets(validator: jsonschema.Draft202012Validator) -> None:
    record = make_neuron_record()
    neurons = record["neurons"] | {"ranked_by": "given"}
    assert not validator.is_valid(record | {"neurons": neurons})
    of_ranking = ("sets", "controls", "half")
    bare = {name: value for name, value in neurons.items() if name not in of_ranking}
    for effect in bare["effects"]:
        effect["estimate"] = None
    validator.validate(record | {"neurons": bare})
    assert not validator.is_valid(record | {"neurons": bare | {"ranked_by": "none"}})


@pytest.mark.parametrize(
    "name",
    ["positions", "layers", "ranked_by", "candidates", "effects", "sets", "controls", "half", "effects.layer",
     "effects.position", "effects.neuron", "effects.estimate", "effects.score", "effects.indirect_effect",
     "effects.standard_error", "effects.value", "effects.value.clean", "effects.row_norm", "effects.promotes",
     "effects.promotes.token", "effects.promotes.token_bytes", "effects.suppresses.id", "effects.suppresses.logit",
     "sets.position", "sets.neurons", "sets.score", "sets_by_layer.layer", "controls.order", "half.position", "half.candidates",
     "half.neurons"],
)  # fmt: skip
def test_a_field_of_neurons_is_required(validator: jsonschema.Draft202012Validator, name: str) -> None:
    record = make_neuron_record(by_layer=True)
    *parents, last = name.split(".")
    places = [record["neurons"]]
    for parent in parents:
        places = [each for place in places for each in (place[parent] if isinstance(place[parent], list) else [place[parent]])]
    del places[-1][last]
    assert not validator.is_valid(record)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [("effects", "score", 1.5), ("effects", "neuron", -1), ("controls", "order", "size"), ("sets", "neurons", 0),
     ("half", "neurons", 0), ("sets", "measures", {}), ("effects", "other_targets", [])],
)  # fmt: skip
def test_a_value_of_neurons_that_cannot_be_is_refused(validator: jsonschema.Draft202012Validator, place: str, name: str, value: Any) -> None:
    record = make_neuron_record()
    record["neurons"][place][0][name] = value
    assert not validator.is_valid(record)


def test_a_counter_prompt_stands_in_records_it_corrupted(validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid(without(with_counter(make_whole_record()), "counter"))
    target = {"target": " sax", "target_bytes": b" sax".hex(), "target_ids": [3], "high_score": 0.1, "low_score": 0.1}
    target |= {"low_standard_error": None, "grids": {"mlp": {"scores": [[0.1] * 6] * 2, "standard_error": [[None] * 6] * 2}}}
    validator.validate(make_whole_record() | {"other_targets": [target]})
    alone = make_whole_record() | {"grids": {}, "other_targets": [target | {"grids": {}}]}
    validator.validate(alone)  # a knockout has no grid of another target
    assert not validator.is_valid(make_whole_record() | {"other_targets": [without(target, "low_score")]})


def test_a_traced_record_has_no_reason(validator: jsonschema.Draft202012Validator) -> None:
    assert not validator.is_valid(make_record() | {"reason": "none"})
    assert not validator.is_valid(make_record() | {"cause": "trace"})


def test_a_failed_record_needs_no_prompt_but_fact_cause_and_reason(validator: jsonschema.Draft202012Validator) -> None:
    record = {name: make_record()[name] for name in ("schema", "rometrace", "model", "run")}
    fact = {"record": 3, "order": 2, "id": None, "relation": None, "object": None, "object_tokens": None}
    record |= {"status": "failed", "cause": "record", "reason": "facts.csv, line 3: no subject", "fact": fact}
    validator.validate(record)
    for name in ("cause", "reason", "fact", "fact.record", "fact.order"):
        assert not validator.is_valid(without(json.loads(json.dumps(record)), name)), name
    assert not validator.is_valid(record | {"cause": "weather"})


def test_a_skipped_record_has_a_reason_and_nothing_of_the_corrupted_run(
    validator: jsonschema.Draft202012Validator,
) -> None:
    assert not validator.is_valid(without(make_skipped_record(), "reason"))
    for name in ("low_score", "low_standard_error", "total_effect", "grids"):
        assert not validator.is_valid(make_skipped_record() | {name: make_record()[name]}), name


@pytest.mark.parametrize(
    "arguments",
    [
        ("--noise", "0.5"),
        ("--noise", "0.5", "--samples", "1"),
        ("--noise", "s", "--kinds", "mlp", "--window", "3"),
        ("--noise", "u0.5", "--target", " the", "--replace"),
        ("--noise", "0", "--dtype", "float64", "--seed", "4294967295"),
    ],
    ids=" ".join,
)
def test_what_rometrace_writes_is_valid(
    traced: Callable[..., dict[str, Any]],
    validator: jsonschema.Draft202012Validator,
    lyrics: Path,
    arguments: tuple[str, ...],
) -> None:
    record = traced("--model", lyrics, *PROMPT, *arguments)
    validator.validate(record)
    assert_shapes_agree(record)


def test_what_rometrace_writes_for_a_skipped_fact_is_valid(
    rometrace: Callable[..., Any], validator: jsonschema.Draft202012Validator, lyrics: Path
) -> None:
    done = rometrace("--model", lyrics, *PROMPT, "--noise", "0.5", "--expect", "apart")
    assert done.returncode == 1, done.stderr
    record = json.loads(done.stdout)
    validator.validate(record)
    assert record["status"] == "skipped"
    assert_shapes_agree(record)


def test_tokens_that_are_not_utf8_are_kept_as_bytes(
    traced: Callable[..., dict[str, Any]], validator: jsonschema.Draft202012Validator, lyrics: Path
) -> None:
    record = traced("--model", lyrics, "--prompt", "I love 東京 and", "--subject", "東京", "--noise", "0.5")
    validator.validate(record)
    assert "\ufffd" in "".join(record["tokens"])
    assert_shapes_agree(record)


def test_a_single_draw_has_null_for_its_standard_errors(
    traced: Callable[..., dict[str, Any]], lyrics: Path
) -> None:
    record = traced("--model", lyrics, *PROMPT, "--noise", "0.5", "--samples", "1")
    assert record["low_standard_error"] is None
    for grid in record["grids"].values():
        assert {value for row in grid["standard_error"] for value in row} == {None}
