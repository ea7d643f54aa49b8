"""`rometrace summary` says which neurons facts have in common as NumPy does, which looks at every pair of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from batches import FACTS
from conftest import Rometrace
from records import make_neuron_record
from summaries import REPLICATES, SEED, Summarise, summarise  # noqa: F401
from test_summary import ROLES, check_list, close, poisson_weights, random_lines, ratio, role_of, write

Line = dict[str, Any]
LAYERS, WIDTH = 3, 5
SIZES = [1, 2, 4, 8, LAYERS * WIDTH]


def neuron_lines(facts: int, seed: int) -> list[Line]:
    """Traced lines of neurons alone at some of the positions, of few subjects, so that all sorts of pairs come up."""
    rng = np.random.default_rng(seed)
    lines = random_lines(facts, LAYERS, seed)
    for line in lines:
        tokens = len(line["tokens"])
        positions = sorted(rng.choice(tokens, rng.integers(1, tokens + 1), replace=False).tolist())
        places = [(layer, p, i) for layer in range(LAYERS) for p in positions for i in range(WIDTH)]
        told = rng.permutation(len(places))[: int(rng.integers(1, 7))]

        def run(size: int) -> dict[str, Any]:
            return {"neurons": size, "indirect_effect": float(rng.normal()), "score": 0.5, "standard_error": None}

        line["subject"] = ("Ada", "Bo")[int(rng.integers(0, 2))]
        line["grids"] = {}
        line["neurons"] = {
            "positions": positions,
            "layers": [0, LAYERS],
            "ranked_by": "gradient",
            "candidates": len(places),
            "effects": [
                dict(zip(("layer", "position", "neuron"), places[place]))
                | {"indirect_effect": float(rng.normal()), "promotes": [{"token": f" t{places[place][2]}"}]}
                for place in told
            ],
            "sets": [{"position": p} | run(k) for p in positions for k in SIZES],
            "sets_by_layer": [{"position": p, "layer": 0} | run(k) for p in positions for k in (1, 2)],
            "controls": [
                {"order": order, "position": p} | run(k)
                for order in ("change", "random")
                for p in positions
                for k in SIZES
            ]
            + [{"order": "change", "position": positions[0], "layer": 0} | run(1)],
            "half": [{"position": positions[0], "layer": 0, "candidates": WIDTH, "neurons": 1}]
            + [
                {"position": p, "candidates": LAYERS * WIDTH, "neurons": None if rng.random() < 0.3 else int(rng.integers(1, 15))}
                for p in positions
            ],
        }  # fmt: skip
    return lines


def at_role(line: Line, role: str, name: str) -> list[dict[str, Any]]:
    """Entries of a list of the line's neurons at tokens of the role."""
    begin, end = line["subject_range"]
    tokens = len(line["tokens"])
    return [
        each
        for each in line["neurons"][name]
        if "layer" not in each or name == "effects"
        if role_of(each["position"], begin, end, tokens) == role
    ]


def places_of(line: Line, role: str) -> list[int]:
    begin, end = line["subject_range"]
    return [p for p in line["neurons"]["positions"] if role_of(p, begin, end, len(line["tokens"])) == role]


def told_of(line: Line, role: str) -> set[tuple[int, int]]:
    return {(each["layer"], each["neuron"]) for each in at_role(line, role, "effects")}


def sort_of(one: Line, other: Line) -> str | None:
    """What two facts have in common; None for both."""
    relation = one["fact"]["relation"]
    same = (relation is not None and relation == other["fact"]["relation"], one["subject"] == other["subject"])
    return {(True, False): "same_relation", (False, True): "same_subject", (False, False): "neither"}.get(same)


def check_overlap(found: dict[str, Any], lines: list[Line], role: str, is_mine: Callable[[Line], bool]) -> None:
    pairs: dict[str | None, list[tuple[int, float, float]]] = {name: [] for name in (*found, None)}
    for one, other in itertools.combinations(lines, 2):
        if places_of(one, role) and places_of(other, role) and (is_mine(one) or is_mine(other)):
            a, b = told_of(one, role), told_of(other, role)
            pairs[sort_of(one, other)].append((len(a & b), (len(a) + len(b)) / 2, len(a) * len(b) / (LAYERS * WIDTH)))
    for name, overlap in found.items():
        shared, sizes, chance = np.array(pairs[name], dtype=float).reshape(-1, 3).T
        assert overlap["pairs"] == len(shared), name
        assert close(overlap["shared"], shared.mean() if len(shared) else None), name
        assert close(overlap["share"], shared.sum() / sizes.sum() if sizes.sum() else None), name
        assert close(overlap["chance"], chance.sum() / sizes.sum() if sizes.sum() else None), name


def check_best(found: dict[str, Any], lines: list[Line], weights: np.ndarray, role: str) -> None:
    """The neurons, their order, and their intervals over the facts that tell of them."""
    effects: dict[tuple[int, int], dict[int, list[float]]] = {}
    for place, line in enumerate(lines):
        for each in at_role(line, role, "effects"):
            name = each["layer"], each["neuron"]
            effects.setdefault(name, {}).setdefault(place, []).append(each["indirect_effect"])
    expected = {
        name: ratio(
            np.array([len(values) for values in by.values()], dtype=float),
            np.array([[sum(values)] for values in by.values()]),
            weights[list(by)],
        )
        for name, by in effects.items()
    }
    assert found["distinct"] == len(effects)
    order = sorted(expected, key=lambda name: (-expected[name]["n"], -abs(expected[name]["mean"][0]), name))
    assert [(each["layer"], each["neuron"]) for each in found["best"]] == order[:20]
    for each, name in zip(found["best"], order):
        wanted, effect = expected[name], each["indirect_effect"]
        assert each["facts"] == effect["n"] == wanted["n"]
        assert close(each["share"], wanted["n"] / found["facts"])
        assert close(effect["mean"], wanted["mean"][0])
        for end in ("normal", "bootstrap"):
            assert close(effect[end], None if wanted[end] is None else [wanted[end][0][0], wanted[end][1][0]]), name
        assert each["promotes"] == f" t{name[1]}"


def check_sets(found: dict[str, Any], lines: list[Line], weights: np.ndarray, role: str) -> None:
    """Curves and halves, tokens of a fact pooled."""
    assert found["neurons"] == SIZES
    curves = {"sets": [], "change": [], "random": []}
    counts, halves, half_counts, half_sums, half_places = [], [], [], [], []
    none = 0
    for place, line in enumerate(lines):
        counts.append(len(places_of(line, role)))
        for name, sums in curves.items():
            runs = at_role(line, role, "sets" if name == "sets" else "controls")
            mine = [each["indirect_effect"] for each in runs if each.get("order", name) == name]
            sums.append(np.reshape(mine, (-1, len(SIZES))).sum(0))
        own = [each["neurons"] for each in at_role(line, role, "half")]
        none += own.count(None)
        shares = [k / (LAYERS * WIDTH) for k in own if k is not None]
        if shares:
            half_counts.append(len(shares)), half_sums.append([sum(shares)]), half_places.append(place)
        halves += shares
    for name, sums in curves.items():
        expected = ratio(np.array(counts, dtype=float), np.array(sums), weights)
        check_list(found["sets"] if name == "sets" else found["controls"][name], expected, "effect", (len(SIZES),))
    half = found["half"]
    assert half["tokens"] == found["tokens"] == sum(counts) and half["none"] == none
    assert close(half["median"], np.median(halves) if halves else None)
    expected = ratio(np.array(half_counts, dtype=float), np.array(half_sums).reshape(-1, 1), weights[half_places])
    assert half["share"]["n"] == expected["n"]
    assert close(half["share"]["mean"], None if expected["mean"] is None else expected["mean"][0])


def check_group(group: dict[str, Any], lines: list[Line], weights: np.ndarray, is_mine: Callable[[Line], bool]) -> None:
    assert group["neurons"]["candidates"] == LAYERS * WIDTH
    assert list(group["neurons"]["roles"]) == list(ROLES)
    for role, found in group["neurons"]["roles"].items():
        places = [i for i, line in enumerate(lines) if is_mine(line) and places_of(line, role)]
        mine = [lines[i] for i in places]
        assert found["facts"] == len(mine)
        if not mine:
            assert found["best"] == [] and found["neurons"] is None and found["sets"]["effect"] is None
            continue
        assert close(found["told"], np.mean([len(told_of(line, role)) for line in mine]))
        check_best(found, mine, weights[places], role)
        check_overlap(found["overlap"], lines, role, is_mine)
        check_sets(found, mine, weights[places], role)


@pytest.mark.parametrize("seed", [1, 2])
def test_neurons_of_many_facts_are_those_that_numpy_finds(summarise: Summarise, tmp_path: Path, seed: int) -> None:
    lines = neuron_lines(30, seed)
    found = summarise(write(tmp_path / "results.jsonl", lines), "--by", "relation")
    weights = poisson_weights(SEED, len(lines), REPLICATES)
    check_group(found["overall"], lines, weights, lambda line: True)
    assert len(found["by"]["relation"]) == 3
    for name, group in found["by"]["relation"].items():
        check_group(group, lines, weights, lambda line: (line["fact"]["relation"] or "(none)") == name)
    assert found["run"]["neurons"] == {"ranked_by": "gradient", "layers": [0, LAYERS], "top": None}
    overlaps = [role["overlap"] for role in found["overall"]["neurons"]["roles"].values()]
    assert all(any(overlap[name]["pairs"] for overlap in overlaps) for name in overlaps[0])  # all sorts came up


def test_neurons_of_a_batch_are_summarised_with_its_grids(rometrace: Rometrace, summarise: Summarise, tmp_path: Path) -> None:
    """What the program has written, in the direction in which effects are losses."""
    file = tmp_path / "results.jsonl"
    done = rometrace(
        "--facts", FACTS, "--sample", 3, "--all", "--kinds", "state,neuron", "--positions", "subject", "--top", 8,
        "--layers", "1-2", "--samples", 2, "--direction", "noising", "-q", "-o", file,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    _, *lines = (json.loads(line) for line in file.read_text().splitlines())
    found = summarise(file)
    assert found["run"]["neurons"] == {"ranked_by": "gradient", "layers": [1, 3], "top": 8}
    assert set(found["overall"]["kinds"]) == {"state"}
    weights = poisson_weights(SEED, len(lines), REPLICATES)
    roles = found["overall"]["neurons"]["roles"]
    for role in ("first_subject", "last_subject"):
        part = roles[role]
        places = [i for i, line in enumerate(lines) if places_of(line, role)]
        assert part["facts"] == len(places)
        told = [told_of(lines[i], role) for i in places]
        assert part["distinct"] == len(set().union(*told)) and close(part["told"], np.mean([len(each) for each in told]))
        sums = [[each["indirect_effect"] for each in at_role(lines[i], role, "sets")] for i in places]
        check_list(part["sets"], ratio(np.ones(len(places)), np.array(sums), weights[places]), "effect", (len(part["neurons"]),))  # fmt: skip
        assert part["neurons"] == [each["neurons"] for each in at_role(lines[places[0]], role, "sets")]
    assert sum(roles[role]["facts"] for role in ("first_subsequent", "further", "last")) == 0


def test_given_neurons_have_effects_and_no_overlap(summarise: Summarise, tmp_path: Path) -> None:
    lines = neuron_lines(4, 1)
    for line in lines:
        line["tokens"], line["subject_range"] = ["x"] * 4, [0, 2]
        effects = [{"layer": 2, "position": 1, "neuron": i, "indirect_effect": i + line["fact"]["record"]} for i in (1, 3)]
        line["neurons"] = {"positions": [1], "layers": [0, LAYERS], "ranked_by": "given", "candidates": 2, "effects": effects}
    role = summarise(write(tmp_path / "results.jsonl", lines))["overall"]["neurons"]["roles"]["last_subject"]
    assert [(each["neuron"], each["share"], each["indirect_effect"]["mean"]) for each in role["best"]] == [(3, 1, 5.5), (1, 1, 3.5)]
    assert not {"overlap", "sets", "half"} & set(role)


def test_an_effect_that_is_no_number_fails_its_fact(summarise: Summarise, tmp_path: Path) -> None:
    lines = neuron_lines(3, 1)
    lines[1]["neurons"]["effects"][0]["indirect_effect"] = None
    lines[2]["neurons"]["sets"][0]["indirect_effect"] = None
    found = summarise(write(tmp_path / "results.jsonl", lines))
    assert found["status"] == {"traced": 1, "skipped": 0, "failed": 2}


@pytest.mark.parametrize(
    "change, phrase",
    [
        (lambda n: n.pop("effects"), 'no "effects"'),
        (lambda n: n["positions"].append(99), "neurons at position 99 of"),
        (lambda n: n["effects"][0].update(position=98), "a neuron at position 98, which is none of those"),
        (lambda n: n["effects"][0].update(layer=LAYERS), f"of a model of {LAYERS} layers"),
        (lambda n: n["sets"].pop(), "are not of the sizes of the others"),
        (lambda n: n["half"].clear(), 'no "half" of the neurons at position'),
        (lambda n: n.update(candidates=0), "neurons of no candidates"),
        (lambda n: n.update(ranked_by="none"), "neurons.ranked_by is"),
        (lambda n: n.update(layers=[0, 1]), "layers of neurons is"),
    ],
)
def test_lines_that_do_not_fit_are_refused_in_one_line(
    rometrace: Rometrace, tmp_path: Path, change: Callable[[dict[str, Any]], Any], phrase: str
) -> None:
    lines = neuron_lines(3, 1)
    change(lines[1]["neurons"])
    done = rometrace("summary", write(tmp_path / "results.jsonl", lines))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "results.jsonl, line 2: " in done.stderr and phrase in done.stderr, done.stderr


def test_a_single_record_is_a_summary_of_one_fact(summarise: Summarise, tmp_path: Path) -> None:
    role = summarise(write(tmp_path / "one.json", [make_neuron_record()]))["overall"]["neurons"]["roles"]["last_subject"]
    assert role["facts"] == 1 and role["overlap"]["neither"]["pairs"] == 0 and role["half"]["median"] == 0.25
