"""--probe against Hugging Face transformers on the demo model, and against its schema."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable

import jsonschema
import pytest

for _module in ("torch", "transformers", "tokenizers", "numpy"):
    pytest.importorskip(_module)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import train_demo  # noqa: E402
from transformers import GPT2LMHeadModel  # noqa: E402

Line = dict[str, Any]
FACTS_EACH = 3  # of each relation, at least


@pytest.fixture(scope="module")
def facts(repository: Path) -> Path:
    return repository / "share/rometrace/facts.json"


def probe(rometrace: Callable[..., Any], output: Path, *arguments: Any, status: int = 0) -> list[Line]:
    """The record lines that `rometrace --probe` writes, without a header."""
    done = rometrace("--probe", "-o", output, *arguments)
    assert done.returncode == status, done.stderr
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["schema"] == "rometrace/probe/1"]


@pytest.fixture(scope="module")
def lines(rometrace: Callable[..., Any], facts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    """All shipped facts, probed."""
    return probe(rometrace, tmp_path_factory.mktemp("probe") / "probe.jsonl", "--facts", facts)


@pytest.fixture(scope="module")
def fewer_facts(facts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every ninth of the shipped facts."""
    document = json.loads(facts.read_text(encoding="utf-8"))
    file = tmp_path_factory.mktemp("facts") / "facts.json"
    file.write_text(json.dumps(document | {"facts": document["facts"][::9]}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def validator(repository: Path) -> jsonschema.Draft202012Validator:
    schema = json.loads((repository / "share/rometrace/schema/probe-1.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def some(lines: list[Line]) -> list[Line]:
    """A few facts of each relation, spread over it."""
    by_relation = defaultdict(list)
    for line in lines:
        by_relation[line["fact"]["relation"]].append(line)
    return [line for group in by_relation.values() for line in group[:: len(group) // FACTS_EACH]]


@pytest.fixture(scope="module")
def logits_of(demo: Path) -> Callable[[str], np.ndarray]:
    """Logits [V] after a prompt, float32, one prompt at a time."""
    torch.set_num_threads(1)  # more of them wait for each other in a tiny model
    tokenizer = train_demo.load_tokenizer(demo)
    model = GPT2LMHeadModel.from_pretrained(demo, attn_implementation="eager").eval()

    def run(prompt: str) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.tensor([tokenizer.encode(prompt).ids])).logits[0, -1].double().numpy()

    return run


@pytest.fixture(scope="module")
def candidates(demo: Path, facts: Path) -> dict[str, list[int]]:
    """First tokens of the objects of each relation."""
    tokenizer = train_demo.load_tokenizer(demo)
    found = defaultdict(set)
    for fact in json.loads(facts.read_text(encoding="utf-8"))["facts"]:
        found[fact["relation"]].add(tokenizer.encode(" " + fact["object"]).ids[0])
    return {relation: sorted(ids) for relation, ids in found.items()}


def place_between(values: np.ndarray, own: float, slack: float) -> tuple[int, int]:
    """The best and the worst rank that `own` has among `values`, which hold it, if each is off by `slack`."""
    return int((values > own + slack).sum()) + 1, int((values > own - slack).sum())


def test_every_fact_is_probed_in_every_wording(lines: list[Line], facts: Path) -> None:
    document = json.loads(facts.read_text(encoding="utf-8"))
    assert [line["fact"]["id"] for line in lines] == [fact["id"] for fact in document["facts"]]
    for line, fact in zip(lines, document["facts"]):
        texts = document["relations"][fact["relation"]]["wordings"]
        expected = {(text["text"].format(fact["subject"]), text.get("held_out", False)) for text in texts}
        assert {(w["prompt"], w["held_out"]) for w in line["wordings"]} == expected


def test_probabilities_ranks_and_answers_are_those_of_transformers(
    some: list[Line], logits_of: Callable[[str], np.ndarray], candidates: dict[str, list[int]]
) -> None:
    slack = 1e-4  # logits are of order 10 in float32, summed in another order
    worst = 0.0
    compared = {True: 0, False: 0}
    for line in some:
        own_id = line["object_token_id"]
        relation = candidates[line["fact"]["relation"]]
        assert line["candidates"] == len(relation)
        for wording in line["wordings"]:
            logits = logits_of(wording["prompt"])
            p = np.exp(logits - np.logaddexp.reduce(logits))
            answer = wording["answer_id"]
            worst = max(worst, abs(wording["probability"] - p[own_id]), abs(wording["answer_probability"] - p[answer]))
            best, last = place_between(logits, logits[own_id], slack)
            assert best <= wording["rank"] <= last, wording
            best, last = place_between(logits[relation], logits[own_id], slack)
            assert best <= wording["choice_rank"] <= last, wording
            assert logits[answer] >= logits.max() - slack, wording
            assert wording["said"] == (wording["rank"] == 1), wording
            compared[wording["held_out"]] += 1
    assert min(compared.values()) >= 9 * FACTS_EACH * 4, compared
    assert worst < 1e-5, worst


def test_what_a_record_counts_is_what_its_wordings_say(lines: list[Line]) -> None:
    for line in lines:
        wordings = line["wordings"]
        assert line["said"] == wordings[0]["said"]
        assert line["said_in"] == sum(w["said"] for w in wordings)
        assert line["choice_in"] == sum(w["choice_rank"] == 1 for w in wordings)
        assert line["best_rank"] == min(w["rank"] for w in wordings)
        assert line["known"] == (line["said_in"] >= 2)
        assert bytes.fromhex(line["object_token_bytes"]).decode() == " " + line["fact"]["object"]


def test_what_is_known_is_not_always_said_in_a_held_out_wording(lines: list[Line]) -> None:
    known = [line for line in lines if line["known"]]
    assert len(known) >= 0.95 * len(lines)
    said = {held_out: [] for held_out in (False, True)}
    for line in known:
        for wording in line["wordings"]:
            said[wording["held_out"]].append(wording["said"])
    assert np.mean(said[False]) > 0.95
    assert 0.2 < np.mean(said[True]) < 0.85


def test_lines_are_of_the_schema(lines: list[Line], validator: jsonschema.Draft202012Validator) -> None:
    for line in lines[::50]:
        validator.validate(line)


def test_the_schema_refuses_what_is_never_written(
    lines: list[Line], validator: jsonschema.Draft202012Validator
) -> None:
    line = lines[0]
    wording = line["wordings"][0]
    for wrong in (
        {"schema": "rometrace/probe/2"},
        {"status": "traced"},
        {"status": "skipped"},
        {"cause": "no_object"},
        {"reason": "why"},
        {"known": None},
        {"best_rank": 0},
        {"candidates": 0},
        {"wordings": []},
        {"wordings": [wording | {"rank": 0}]},
        {"wordings": [wording | {"probability": 1.5}]},
        {"wordings": [{name: value for name, value in wording.items() if name != "said"}]},
        {"known_by": line["known_by"] | {"rule": "said"}},
        {"fact": {"record": 1, "order": 1}},
    ):
        assert not validator.is_valid(line | wrong), wrong
    for name in ("model", "run", "known_by", "subject", "candidates", "known", "wordings"):
        assert not validator.is_valid({key: value for key, value in line.items() if key != name}), name


def test_facts_that_cannot_be_probed_have_a_cause(
    rometrace: Callable[..., Any], tmp_path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    relations = {"plays": {"wordings": [{"text": "{} plays the"}, {"text": "{} is heard on the"}]}}
    facts = [
        {"id": "a", "subject": "Miles Davis", "relation": "plays", "object": "trumpet"},
        {"id": "b", "subject": "Miles Davis", "relation": "plays"},
        {"id": "c", "subject": "Miles Davis " * 40, "relation": "plays", "object": "trumpet"},
    ]
    file = tmp_path / "facts.json"
    file.write_text(json.dumps({"schema": "rometrace/facts/1", "relations": relations, "facts": facts}))
    found = probe(rometrace, tmp_path / "probe.jsonl", "--facts", file, status=1)
    assert [(line["status"], line.get("cause")) for line in found] == [
        ("probed", None),
        ("skipped", "no_object"),
        ("failed", "prompt"),
    ]
    for line in found:
        validator.validate(line)


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("said:7", lambda line: line["said_in"] >= 7),
        ("choice:7", lambda line: line["choice_in"] >= 7),
        ("recall:5:8", lambda line: all(w["rank"] <= 5 for w in line["wordings"])),
        ("said:9", lambda line: False),
    ],
)
def test_known_is_by_the_rule_that_was_asked_for(
    rometrace: Callable[..., Any], fewer_facts: Path, tmp_path: Path, rule: str, holds: Callable[[Line], bool]
) -> None:
    found = probe(rometrace, tmp_path / "probe.jsonl", "--facts", fewer_facts, "--known-by", rule)
    assert {line["known_by"]["rule"] for line in found} == {rule}
    known = [line["known"] for line in found]
    assert known == [holds(line) for line in found]
    assert rule == "said:9" or 0 < sum(known) < len(known)


@pytest.mark.parametrize("rule", ["", "said:0", "known:2", "recall"])
def test_a_wrong_rule_is_refused_in_one_line(
    rometrace: Callable[..., Any], facts: Path, tmp_path: Path, rule: str
) -> None:
    done = rometrace("--facts", facts, "--probe", "-o", tmp_path / "probe.jsonl", "--known-by", rule)
    assert done.returncode == 2
    assert "expected said:K" in done.stderr and done.stderr.count("\n") == 1


def test_the_summary_counts_the_lines(
    rometrace: Callable[..., Any], lines: list[Line], tmp_path: Path
) -> None:
    file = tmp_path / "probe.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = rometrace("summary", file, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["schema"] == "rometrace/probe-summary/1"

    def four(cases: list[tuple[bool, bool]]) -> dict[str, int]:
        return {
            "said": sum(said for said, known in cases),
            "known": sum(known for said, known in cases),
            "known_not_said": sum(known and not said for said, known in cases),
            "said_not_known": sum(said and not known for said, known in cases),
        }

    def check(group: dict[str, Any], cases: list[tuple[bool, bool]]) -> None:
        for name, count in four(cases).items():
            found = group[name]
            assert (found["count"], found["n"]) == (count, len(cases)), name
            assert found["share"] == pytest.approx(count / len(cases))
            assert found["low"] <= found["share"] <= found["high"]
            assert 1 <= found["effective_n"] <= len(cases)

    def cases_of(some: list[Line], held_out: bool) -> list[tuple[bool, bool]]:
        return [(w["said"], line["known"]) for line in some for w in line["wordings"] if w["held_out"] == held_out]

    check(summary["overall"], [(line["said"], line["known"]) for line in lines])
    check(summary["overall"]["held_out_wordings"], cases_of(lines, True))
    check(summary["overall"]["other_wordings"], cases_of(lines, False))
    for name, group in summary["by"]["relation"].items():
        own = [line for line in lines if line["fact"]["relation"] == name]
        check(group, [(line["said"], line["known"]) for line in own])
        check(group["held_out_wordings"], cases_of(own, True))
        for wording in group["wordings"]:
            asked = [
                (w["said"], line["known"])
                for line in own
                for w in line["wordings"]
                if w["prompt"].replace(line["subject"], "{}", 1) == wording["wording"]
            ]
            check(wording, asked)
    assert len(summary["by"]["relation"]) == 9


def test_pooled_intervals_are_wilsons_over_the_effective_cases(
    rometrace: Callable[..., Any], lines: list[Line], tmp_path: Path
) -> None:
    file = tmp_path / "probe.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pooled = json.loads(rometrace("summary", file, "--json").stdout)["overall"]["held_out_wordings"]["said"]
    hits = np.array([sum(w["said"] for w in line["wordings"] if w["held_out"]) for line in lines])
    cases = np.array([sum(w["held_out"] for w in line["wordings"]) for line in lines])
    p = hits.sum() / cases.sum()
    variance = ((hits - p * cases) ** 2).sum() / cases.sum() ** 2
    n = min(cases.sum(), p * (1 - p) / variance)
    assert pooled["effective_n"] == pytest.approx(n)
    z = 1.959963984540054
    # Wilson's bounds are where |p - x| = z sqrt(x (1 - x) / n).
    for bound in (pooled["low"], pooled["high"]):
        assert abs(p - bound) == pytest.approx(z * np.sqrt(bound * (1 - bound) / n))
