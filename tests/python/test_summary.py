"""`rometrace summary` computes what NumPy computes from the same lines, and what the reference's notebook does."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import jsonschema
import numpy as np
import pytest

from conftest import Rometrace

ROLES = ("first_subject", "middle_subject", "last_subject", "first_subsequent", "further", "last")
Line = dict[str, Any]
Summarise = Callable[..., dict[str, Any]]

PROMPTS = (
    ("Miles Davis plays the", "Miles Davis"),
    ("Mike Ashley plays the", "Mike Ashley"),
    ("The instrument of the musician Miles Davis is the", "Miles Davis"),
    ("Wynton Marsalis is a master of the", "Wynton Marsalis"),
    ("The sport of Roger Federer is", "Roger Federer"),
    ("Roger Federer competes in", "Roger Federer"),
    ("Roger Federer won a title in", "Roger Federer"),
    ("A name that everybody knows is Miles Davis", "Miles Davis"),
    ("Miles Davis the", "Miles Davis"),
    ("On the record, Miles Davis is heard on the", "Miles Davis"),
    ("the plays the the", "the"),
    ("Marsalis plays", "Marsalis"),
)


def role_of(t: int, begin: int, end: int, tokens: int) -> str | None:
    if t < begin:
        return None
    for holds, role in (
        (t == tokens - 1, "last"),
        (t == end - 1, "last_subject"),
        (t == begin, "first_subject"),
        (t < end, "middle_subject"),
        (t == end, "first_subsequent"),
    ):
        if holds:
            return role
    return "further"


def bootstrap(replicates: int, seed: int) -> tuple[Any, ...]:
    """The options; without replicates a seed would be refused."""
    return ("--bootstrap", replicates, *(("--seed", seed) if replicates > 0 else ()))


def write(path: Path, lines: list[Line]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def random_lines(facts: int, layers: int, seed: int) -> list[Line]:
    """Traced lines of random shapes and scores: every coincidence of roles comes up."""
    rng = np.random.default_rng(seed)
    lines = []
    for record in range(1, facts + 1):
        tokens = int(rng.integers(1, 9))
        begin = int(rng.integers(0, tokens))
        end = int(rng.integers(begin + 1, tokens + 1))
        low, high = float(rng.random() * 0.2), float(rng.random())
        grids = {}
        for kind, window in (("attn", 4), ("mlp", 4), ("state", 1)):
            scores = low + rng.random((tokens, layers)) * 0.3 * np.linspace(0.5, 1, layers)
            grids[kind] = {"window": window, "scores": scores.tolist(), "standard_error": [[None] * layers] * tokens}
        lines.append(
            {
                "schema": "rometrace/trace/1",
                "status": "traced",
                "fact": {"record": record, "order": record, "relation": ("P1", "P\u00e9", None)[record % 3]},
                "model": {"name": "m", "layers": layers, "weights_sha256": "0" * 64},
                "run": {"dtype": "float32", "seed": 1, "samples": 1},
                "tokens": ["x"] * tokens,
                "subject_range": [begin, end],
                "high_score": high,
                "low_score": low,
                "total_effect": high - low,
                "grids": grids,
            }
        )
    return lines


KINDS = ("state", "mlp", "attn", "head", "state_mlp_severed", "state_attn_severed")
GROUPS = ("subject", "before", "after", "last")


def whole_lines(facts: int, layers: int, heads: int, seed: int, direction: str = "denoising") -> list[Line]:
    """Traced lines of all kinds, each grid with rows for some of the positions only, and a knockout."""
    rng = np.random.default_rng(seed)
    lines = random_lines(facts, layers, seed)
    for line in lines:
        tokens, high, low = len(line["tokens"]), line["high_score"], line["low_score"]
        begin, end = line["subject_range"]
        grids = {}
        for kind in rng.permutation(KINDS):
            positions = sorted(rng.choice(tokens, rng.integers(0, tokens + 1), replace=False).tolist())
            if rng.random() < 0.2:
                positions = list(range(tokens))
            shape = (len(positions), layers, heads) if kind == "head" else (len(positions), layers)
            scores = rng.random(shape)
            effects = high - scores if direction == "noising" else scores - low
            grids[str(kind)] = {
                "window": {"mlp": 4, "attn": 4, "head": 3}.get(str(kind), 1),
                "positions": positions,
                "scores": scores.tolist(),
                "indirect_effect": effects.tolist(),
                "standard_error": np.full(shape, 0.01).tolist(),
            }
        grids["head"]["heads"] = heads
        groups = {
            "subject": [t for t in range(begin, end) if t < tokens - 1],
            "before": list(range(begin)),
            "after": list(range(end, tokens - 1)),
            "last": [tokens - 1] if tokens > 1 else [],
        }
        line["grids"] = grids
        line["knockout"] = {"window": 9, "groups": {}}
        for name, group in groups.items():
            scores = rng.random(layers)
            if group:
                change = ((scores - high) / high).tolist()
                line["knockout"]["groups"][name] = {
                    "positions": group,
                    "scores": scores.tolist(),
                    "relative_change": change,
                }
        line["measures"] = {"rank": {"high": 1, "low": 2.5, "grids": {"state": {"values": grids["state"]["scores"]}}}}
        line["run"] |= {"direction": direction, "approximate": False, "corruption": {"method": "noise"}}
    return lines


@pytest.fixture
def summarise(rometrace: Rometrace) -> Summarise:
    """summarise(files and options) gives the JSON that is written to a pipe."""

    def run(*arguments: Any) -> dict[str, Any]:
        done = rometrace("summary", *arguments)
        assert done.returncode == 0, done.stderr
        assert "NaN" not in done.stdout and "Infinity" not in done.stdout
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def demo_lines(rometrace: Rometrace) -> list[Line]:
    """A dozen single prompts through the demo model, as facts."""
    lines = []
    for record, (prompt, subject) in enumerate(PROMPTS, start=1):
        done = rometrace("--prompt", prompt, "--subject", subject, "--samples", 3, "--json", "--quiet")
        assert done.returncode == 0, done.stderr
        line = json.loads(done.stdout)
        line["fact"] = {"record": record, "order": record, "id": record, "relation": "PQ"[record % 2], "object": None}
        lines.append(line)
    return lines


# The same in NumPy


def poisson_weights(seed: int, facts: int, replicates: int) -> np.ndarray:
    """[facts, B] by inverse CDF, one row of draws a fact."""
    chance, cumulated = math.exp(-1), []
    for k in range(20):
        cumulated.append(chance + (cumulated[-1] if cumulated else 0))
        chance /= k + 1
    draws = np.random.RandomState(seed).random_sample((facts, replicates))
    return np.searchsorted(cumulated, draws, side="right")


def ratio(counts: np.ndarray, sums: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    """Mean, errors and intervals over facts. counts [n], sums [n, V], weights [n, B]."""
    n, total = len(counts), counts.sum()
    if n == 0:
        return {"n": 0, "mean": None, "standard_error": None, "normal": None, "bootstrap": None, "replicates": None}
    mean = sums.sum(0) / total
    result: dict[str, Any] = {"n": n, "mean": mean, "standard_error": None, "normal": None, "bootstrap": None}
    result["replicates"] = None
    if n < 2:
        return result
    error = np.sqrt(n / (n - 1) * ((sums - counts[:, None] * mean) ** 2).sum(0)) / total
    result["standard_error"] = error
    result["normal"] = (mean - 1.959963984540054 * error, mean + 1.959963984540054 * error)
    drawn = weights.T @ counts
    if weights.shape[1] > 0:
        replicates = (weights.T @ sums)[drawn > 0] / drawn[drawn > 0, None]
        result["replicates"] = replicates
        result["bootstrap"] = np.percentile(replicates, [2.5, 97.5], axis=0)
    return result


def close(found: Any, expected: Any) -> bool:
    """Equal but for the order of sums of some hundred numbers below 1."""
    if expected is None or found is None:
        return found is None and expected is None
    return bool(np.allclose(found, expected, rtol=1e-11, atol=1e-14))


def check_estimate(found: dict[str, Any], values: list[float], weights: np.ndarray) -> None:
    column = np.array(values, dtype=float).reshape(-1, 1)
    expected = ratio(np.ones(len(values)), column, weights)
    assert found["n"] == len(values)
    for name in ("mean", "standard_error"):
        value = expected[name]
        assert close(found[name], None if value is None else value[0]), name
    for name in ("normal", "bootstrap"):
        value = expected[name]
        assert close(found[name], None if value is None else [value[0][0], value[1][0]]), name


@dataclass
class Part:
    """The tokens of a role in one fact."""

    rows: np.ndarray
    """Their scores: [tokens, cells]."""
    effects: np.ndarray
    """Of the same shape."""
    low: float


def effects_of(line: Line, scores: np.ndarray) -> np.ndarray:
    noising = line["run"].get("direction") == "noising"
    return line["high_score"] - scores if noising else scores - line["low_score"]


def check_list(found: dict[str, Any], expected: dict[str, Any], mean: str, shape: tuple[int, ...]) -> None:
    """`mean` names the list of means in `found`; the errors stand beside it."""

    def shaped(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.reshape(values, shape)

    assert close(found[mean], shaped(expected["mean"]))
    assert close(found["standard_error"], shaped(expected["standard_error"]))
    for name in ("normal", "bootstrap"):
        for side, values in zip(("low", "high"), expected[name] if expected[name] is not None else (None, None)):
            assert close(found[f"{name}_{side}"], shaped(values)), (name, side)


def check_effects(found: dict[str, Any], parts: list[Part], weights: np.ndarray, shape: tuple[int, ...]) -> None:
    """`shape`: of a cell's place, (L,) or (L, H)."""
    assert found["facts"] == len(parts)
    assert found["tokens"] == sum(len(part.rows) for part in parts)
    if not parts:
        assert found["peak"] is None
        assert all(found[name] is None for name in ("aie", "standard_error", "normal_low", "bootstrap_high"))
        return
    counts = np.array([len(part.rows) for part in parts], dtype=float)
    expected = ratio(counts, np.array([part.effects.sum(0) for part in parts]), weights)
    check_list(found, expected, "aie", shape)
    peak = found["peak"]
    largest = int(np.argmax(expected["mean"]))
    place = np.unravel_index(largest, shape)
    assert (peak["layer"], peak.get("head")) == (place[0], place[1] if len(shape) > 1 else None)
    assert peak["aie"] == np.ravel(found["aie"])[largest]
    if expected["replicates"] is None:
        assert peak["share"] is None and peak["layers"] is None
        return
    peaks = expected["replicates"].argmax(1)
    assert peak["share"] == pytest.approx((peaks == largest).mean(), abs=1e-15)
    layers = np.unravel_index(peaks, shape)[0]
    assert peak["layers"] == [
        np.percentile(layers, 2.5, method="lower"),
        np.percentile(layers, 97.5, method="higher"),
    ]


def check_role(found: dict[str, Any], parts: list[Part], weights: np.ndarray, shape: tuple[int, ...]) -> None:
    check_estimate(found["largest_score"], [part.rows.max() for part in parts], weights)
    check_estimate(found["largest_effect"], [part.effects.max() for part in parts], weights)
    check_effects(found, parts, weights, shape)
    mean = np.concatenate([part.rows for part in parts]).mean(0).reshape(shape) if parts else None
    assert close(found["score"], mean)


def rows_by_position(grid: dict[str, Any]) -> dict[int, np.ndarray]:
    """A row [cells] for each position that the grid lists."""
    positions = grid.get("positions", range(len(grid["scores"])))
    return {t: np.ravel(row) for t, row in zip(positions, grid["scores"], strict=True)}


def parts_of(
    lines: list[Line], role: str, rows: Callable[[Line], dict[int, tuple[np.ndarray, np.ndarray]]]
) -> tuple[list[Part], list[int]]:
    """The parts of the lines that have the role, and the places of these lines. `rows`: scores and effects by token."""
    parts, places = [], []
    for place, line in enumerate(lines):
        begin, end = line["subject_range"]
        chosen = [pair for t, pair in rows(line).items() if role_of(t, begin, end, len(line["tokens"])) == role]
        if chosen:
            scores, effects = (np.array(side) for side in zip(*chosen))
            parts.append(Part(scores, effects, line["low_score"]))
            places.append(place)
    return parts, places


def check_kind(found: dict[str, Any], kind: str, lines: list[Line], weights: np.ndarray) -> None:
    layers = lines[0]["model"]["layers"]
    shape: tuple[int, ...] = (layers,)
    if kind == "head":
        shape = (layers, found["heads"])
    else:
        assert "heads" not in found
    assert found["window"] == lines[0]["grids"][kind]["window"]
    chosen = [place for place, line in enumerate(lines) if rows_by_position(line["grids"][kind])]
    grids = [np.array(lines[place]["grids"][kind]["scores"]) for place in chosen]
    effects = [effects_of(lines[place], grid) for place, grid in zip(chosen, grids)]
    check_estimate(found["largest_score"], [grid.max() for grid in grids], weights[chosen])
    check_estimate(found["largest_effect"], [effect.max() for effect in effects], weights[chosen])
    assert list(found["roles"]) == list(ROLES)
    for role in ROLES:
        parts, places = parts_of(
            lines,
            role,
            lambda line: {t: (row, effects_of(line, row)) for t, row in rows_by_position(line["grids"][kind]).items()},
        )
        check_role(found["roles"][role], parts, weights[places], shape)


def check_gaps(found: dict[str, Any], path: str, lines: list[Line], weights: np.ndarray) -> None:
    def rows(line: Line) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        state, severed = (rows_by_position(line["grids"][kind]) for kind in ("state", f"state_{path}_severed"))
        both = [t for t in state if t in severed]
        return {t: (state[t], effects_of(line, state[t]) - effects_of(line, severed[t])) for t in both}

    assert list(found["roles"]) == list(ROLES)
    for role in ROLES:
        parts, places = parts_of(lines, role, rows)
        check_effects(found["roles"][role], parts, weights[places], (lines[0]["model"]["layers"],))


def check_knockout(found: dict[str, Any], lines: list[Line], weights: np.ndarray) -> None:
    assert found["window"] == lines[0]["knockout"]["window"]
    assert list(found["groups"]) == list(GROUPS)
    for name, group in found["groups"].items():
        places = [place for place, line in enumerate(lines) if name in line["knockout"]["groups"]]
        changes = [lines[place]["knockout"]["groups"][name]["relative_change"] for place in places]
        assert group["facts"] == len(places)
        expected = ratio(np.ones(len(places)), np.array(changes), weights[places])
        check_list(group, expected, "relative_change", (lines[0]["model"]["layers"],))


def check_group(found: dict[str, Any], lines: list[Line], weights: np.ndarray) -> None:
    assert found["facts"] == len(lines)
    check_estimate(found["high_score"], [line["high_score"] for line in lines], weights)
    check_estimate(found["low_score"], [line["low_score"] for line in lines], weights)
    check_estimate(found["total_effect"], [line["high_score"] - line["low_score"] for line in lines], weights)
    present = [kind for kind in KINDS if any(line["grids"].get(kind, {}).get("scores") for line in lines)]
    assert list(found["kinds"]) == present
    for kind, summary in found["kinds"].items():
        check_kind(summary, kind, lines, weights)
    severed = [path for path in ("mlp", "attn") if f"state_{path}_severed" in lines[0]["grids"]]
    assert list(found.get("gaps", {})) == severed
    for path in severed:
        check_gaps(found["gaps"][path], path, lines, weights)
    assert ("knockout" in found) == ("knockout" in lines[0])
    if "knockout" in found:
        check_knockout(found["knockout"], lines, weights)


def relation_of(line: Line) -> str:
    return line["fact"]["relation"] or "(none)"


def check(found: dict[str, Any], lines: list[Line], replicates: int = 1000, seed: int = 1) -> None:
    weights = poisson_weights(seed, len(lines), replicates)
    check_group(found["overall"], lines, weights)
    if "by" not in found:
        return
    relations = sorted({relation_of(line) for line in lines}, key=str.encode)
    assert list(found["by"]["relation"]) == relations
    for relation in relations:
        chosen = [place for place, line in enumerate(lines) if relation_of(line) == relation]
        check_group(found["by"]["relation"][relation], [lines[place] for place in chosen], weights[chosen])


def test_averages_over_traces_of_the_demo_model_are_numpys(
    demo_lines: list[Line], summarise: Summarise, tmp_path: Path
) -> None:
    found = summarise(write(tmp_path / "results.jsonl", demo_lines), "--by", "relation")
    check(found, demo_lines)
    assert found["model"] == demo_lines[0]["model"]
    assert found["run"]["noise"] == demo_lines[0]["run"]["noise"]
    assert found["status"] == {"traced": len(demo_lines), "skipped": 0, "failed": 0}


@pytest.mark.parametrize(("facts", "replicates", "seed"), [(200, 1000, 1), (60, 137, 5), (9, 50, 2), (40, 0, 1)])
def test_averages_over_prompts_of_all_shapes_are_numpys(
    facts: int, replicates: int, seed: int, summarise: Summarise, tmp_path: Path
) -> None:
    lines = random_lines(facts, 6, seed)
    file = write(tmp_path / "results.jsonl", lines)
    check(summarise(file, "--by", "relation", *bootstrap(replicates, seed)), lines, replicates, seed)


@pytest.mark.parametrize("facts", [1, 2, 3])
def test_few_facts_leave_errors_open_but_no_hole(facts: int, summarise: Summarise, tmp_path: Path) -> None:
    lines = random_lines(facts, 3, 3)
    check(summarise(write(tmp_path / "results.jsonl", lines), "--by", "relation"), lines)


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize(
    ("facts", "replicates", "seed"), [(150, 300, 1), (9, 50, 2), (2, 20, 3), (1, 20, 4), (20, 0, 5)]
)
def test_averages_over_all_kinds_at_some_positions_are_numpys(
    facts: int, replicates: int, seed: int, direction: str, summarise: Summarise, tmp_path: Path
) -> None:
    lines = whole_lines(facts, 4, 3, seed, direction)
    file = write(tmp_path / "results.jsonl", lines)
    found = summarise(file, "--by", "relation", *bootstrap(replicates, seed))
    check(found, lines, replicates, seed)
    assert found["run"]["direction"] == direction
    assert (found["run"]["window"], found["run"]["head_window"], found["run"]["knockout_window"]) == (4, 3, 9)
    assert found["run"]["kinds"] == sorted((*KINDS, "knockout"))


def test_a_knockout_alone_is_averaged(summarise: Summarise, tmp_path: Path) -> None:
    lines = whole_lines(20, 4, 3, 1)
    for line in lines:
        line["grids"] = {}
        del line["measures"]
    check(summarise(write(tmp_path / "results.jsonl", lines)), lines)


def test_draws_up_to_a_precision_differ_in_number(rometrace: Rometrace, summarise: Summarise, tmp_path: Path) -> None:
    lines = random_lines(20, 4, 1)
    for number, line in enumerate(lines):
        reached = {"asked": 0.01, "reached": 0.001 * number, "most_samples": 100}
        line["run"] |= {"samples": 10 + number, "precision": reached}
    found = summarise(write(tmp_path / "results.jsonl", lines))
    check(found, lines)
    assert found["run"]["samples"] is None
    assert found["run"]["precision"] == {"asked": 0.01, "most_samples": 100}
    del lines[7]["run"]["precision"]
    done = rometrace("summary", write(tmp_path / "results.jsonl", lines))
    assert done.returncode == 2
    assert "line 8: run.precision.asked is null; expected 0.01" in done.stderr


def test_files_are_read_one_after_another_and_from_a_pipe(
    bin_dir: Path, summarise: Summarise, tmp_path: Path
) -> None:
    lines = random_lines(30, 4, 1)
    files = [write(tmp_path / f"{i}.jsonl", lines[i::3]) for i in range(3)]
    found = summarise(*files)
    check(found, lines[0::3] + lines[1::3] + lines[2::3])
    assert found["files"] == [str(file) for file in files]
    text = "".join(file.read_text() for file in files)
    command = [str(bin_dir / "rometrace"), "summary", "-"]
    piped = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=True, timeout=60)
    assert json.loads(piped.stdout)["overall"] == found["overall"]


# The reference's notebook


def notebook(lines: list[Line], kind: str) -> dict[str, Any]:
    """What the reference's average_indirect_effect gathers from each fact, as reference.md describes it."""
    pools: dict[str, list[np.ndarray]] = {role: [] for role in ROLES}
    maxima: dict[str, list[float]] = {"all": [], "last_subject": [], "last": []}
    for line in lines:
        scores = np.array(line["grids"][kind]["scores"])
        begin, end = line["subject_range"]
        pools["first_subject"].append(scores[begin])
        pools["middle_subject"].extend(scores[begin + 1 : end - 1])
        pools["last_subject"].append(scores[end - 1])
        pools["first_subsequent"].append(scores[end])
        pools["further"].extend(scores[end + 1 : -1])
        pools["last"].append(scores[-1])
        maxima["all"].append(scores.max())
        maxima["last_subject"].append(scores[end - 1].max())
        maxima["last"].append(scores[-1].max())
    return {
        "score": {role: np.mean(rows, axis=0) if rows else None for role, rows in pools.items()},
        "maxima": {name: np.mean(values) for name, values in maxima.items()},
        "high": np.mean([line["high_score"] for line in lines]),
        "low": np.mean([line["low_score"] for line in lines]),
    }


def has_no_coincidence(line: Line) -> bool:
    """Two subject tokens or more, and two tokens or more after the subject."""
    begin, end = line["subject_range"]
    return end - begin >= 2 and len(line["tokens"]) - end >= 2


@pytest.fixture(params=["demo", "random"])
def some_lines(request: pytest.FixtureRequest) -> list[Line]:
    return request.getfixturevalue("demo_lines") if request.param == "demo" else random_lines(150, 5, 8)


def test_where_no_roles_coincide_the_notebooks_averages_are_ours(
    some_lines: list[Line], summarise: Summarise, tmp_path: Path
) -> None:
    lines = [line for line in some_lines if has_no_coincidence(line)]
    assert len(lines) >= 4
    found = summarise(write(tmp_path / "results.jsonl", lines))["overall"]
    for kind, summary in found["kinds"].items():
        theirs = notebook(lines, kind)
        assert found["total_effect"]["mean"] == pytest.approx(theirs["high"] - theirs["low"], rel=1e-12)
        assert summary["largest_score"]["mean"] == pytest.approx(theirs["maxima"]["all"], rel=1e-12)
        for role in ROLES:
            ours = summary["roles"][role]
            assert close(ours["score"], theirs["score"][role]), (kind, role)
            if role in theirs["maxima"]:
                assert ours["largest_score"]["mean"] == pytest.approx(theirs["maxima"][role], rel=1e-12)
            if ours["facts"] == len(lines) == ours["tokens"]:
                assert close(ours["aie"], theirs["score"][role] - theirs["low"]), (kind, role)


def test_where_roles_coincide_the_notebook_counts_a_token_twice(summarise: Summarise, tmp_path: Path) -> None:
    lines = [line for line in random_lines(150, 5, 8) if len(line["tokens"]) > line["subject_range"][1]]
    one_token = [line for line in lines if line["subject_range"][1] - line["subject_range"][0] == 1]
    last_follows = [line for line in lines if len(line["tokens"]) - line["subject_range"][1] == 1]
    assert len(one_token) > 5 and len(last_follows) > 5
    roles = summarise(write(tmp_path / "results.jsonl", lines))["overall"]["kinds"]["state"]["roles"]
    theirs = notebook(lines, "state")["score"]
    for role in ("middle_subject", "last_subject", "further", "last"):
        assert close(roles[role]["score"], theirs[role]), role
    for role, twice in (("first_subject", one_token), ("first_subsequent", last_follows)):
        ours = roles[role]
        assert ours["facts"] == len(lines) - len(twice)
        assert not close(ours["score"], theirs[role])
        place = (lambda line: line["subject_range"][0]) if role == "first_subject" else (lambda line: -1)
        again = np.sum([np.array(line["grids"]["state"]["scores"])[place(line)] for line in twice], axis=0)
        assert close((np.array(ours["score"]) * ours["facts"] + again) / len(lines), theirs[role])


# Settings, damage, output


def test_a_difference_of_settings_is_refused_in_one_line(rometrace: Rometrace, tmp_path: Path) -> None:
    lines = random_lines(4, 3, 1)
    lines[3]["run"]["seed"] = 2
    done = rometrace("summary", write(tmp_path / "a.jsonl", lines))
    assert done.returncode == 2
    assert done.stdout == ""
    place = f"{tmp_path}/a.jsonl, line "
    assert done.stderr == (
        f"rometrace: {place}4: run.seed is 2; expected 1 as in {place}1; summarise results of different settings apart\n"
    )


def test_the_same_file_twice_is_refused(rometrace: Rometrace, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", random_lines(2, 3, 1))
    (tmp_path / "b.jsonl").symlink_to(file)
    done = rometrace("summary", file, tmp_path / "b.jsonl")
    assert done.returncode == 2
    assert "same file twice" in done.stderr


def test_a_running_batch_is_summarised_with_a_warning(rometrace: Rometrace, tmp_path: Path) -> None:
    lines = random_lines(20, 3, 1)
    file = write(tmp_path / "a.jsonl", lines)
    text = file.read_bytes()
    file.write_bytes(text[: len(text) - 40])
    done = rometrace("summary", file)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    check(found, lines[:19])
    assert found["torn_lines"] == 1
    assert "a.jsonl: the last line is not whole" in found["warnings"][0]
    assert done.stderr.startswith("rometrace: ") and "not whole" in done.stderr


def test_damage_in_the_middle_is_refused_with_its_line(rometrace: Rometrace, tmp_path: Path) -> None:
    text = write(tmp_path / "a.jsonl", random_lines(5, 3, 1)).read_text().splitlines()
    text[2] = text[2][:100]
    (tmp_path / "a.jsonl").write_text("\n".join(text) + "\n")
    done = rometrace("summary", tmp_path / "a.jsonl", "-o", tmp_path / "old.json")
    assert done.returncode == 2
    assert "a.jsonl, line 3: byte 101: not JSON; expected one JSON object a line" in done.stderr
    assert not (tmp_path / "old.json").exists()


def test_a_finished_summary_replaces_the_old_file(rometrace: Rometrace, tmp_path: Path) -> None:
    results = write(tmp_path / "a.jsonl", random_lines(5, 3, 1))
    target = tmp_path / "summary.json"
    target.write_text("old")
    assert rometrace("summary", tmp_path / "missing.jsonl", "-o", target).returncode == 2
    assert target.read_text() == "old"
    done = rometrace("summary", results, "-o", target)
    assert done.returncode == 0 and done.stdout == ""
    both = rometrace("summary", results, "-o", target, "--json")
    assert both.stdout == target.read_text()


def test_the_schema_describes_what_is_written(
    repository: Path, summarise: Summarise, demo_lines: list[Line], tmp_path: Path
) -> None:
    schema = json.loads((repository / "share/rometrace/schema/summary-1.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    for lines in (demo_lines, random_lines(1, 3, 1), random_lines(30, 3, 1), whole_lines(30, 3, 2, 1)):
        found = summarise(write(tmp_path / "a.jsonl", lines), "--by", "relation", "--bootstrap", 20)
        validator.validate(found)
        for broken in ({**found, "records": -1}, {**found, "schema": "rometrace/summary/2"}, {**found, "overall": {}}):
            assert not validator.is_valid(broken)
    for pointer in ("gaps.mlp.roles.last", "knockout.groups.last", "kinds.head.roles.last"):
        broken = json.loads(json.dumps(found))
        place = broken["overall"]
        for name in pointer.split("."):
            place = place[name]
        del place["standard_error"]
        assert not validator.is_valid(broken), pointer


def test_memory_does_not_grow_with_the_lines(bin_dir: Path, tmp_path: Path) -> None:
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )

    def peak(lines: list[Line], times: int) -> int:
        text = "".join(json.dumps(line) + "\n" for line in lines) * times
        (tmp_path / "a.jsonl").write_text(text)
        command = ["python3", "-c", script, str(bin_dir / "rometrace"), "summary", str(tmp_path / "a.jsonl")]
        return int(subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=120).stdout)

    lines = random_lines(100, 12, 1)
    few, many = peak(lines, 2), peak(lines, 60)
    assert many < few + 8 * 1024  # KiB; the file of the many is some 25 MB larger
