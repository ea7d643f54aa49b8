"""Small results files and summaries for the tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

from records import make_record

ROLES = ("first_subject", "middle_subject", "last_subject", "first_subsequent", "further", "last")
LAYERS = 6


def make_header(**changes: Any) -> dict[str, Any]:
    """The header of a batch of make_record()'s model."""
    record = make_record(layers=LAYERS)
    run = {name: value for name, value in record["run"].items() if name not in ("seconds", "threads")}
    header = {
        "schema": "rometrace/batch/1",
        "rometrace": "0.1.0",
        "command": "trace",
        "model": record["model"],
        "run": run,
        "kinds": ["state", "mlp", "attn"],
        "window": 10,
        "target": "prediction",
        "all": False,
        "special_tokens": False,
        "only": None,
        "facts": {
            "files": [{"name": "facts.json", "sha256": "f" * 64}],
            "records": 9,
            "selection": {"limit": None, "ids": None, "sample": None, "sample_seed": None},
            "selected": 9,
        },
        "shard": None,
    }
    return header | changes


def make_traced(number: int, fact_id: Any = None, relation: str | None = "P30", **changes: Any) -> dict[str, Any]:
    """A traced record of a batch; its total effect is 0.1 for record 1, 0.2 for record 2, ..."""
    record = make_record(layers=LAYERS) | {"total_effect": number / 10} | changes
    fact = {
        "record": number,
        "order": number,
        "id": fact_id if fact_id is not None else f"id/{number}",
        "relation": relation,
    }
    return record | {"fact": fact | {"object": "trumpet", "object_tokens": 1}}


def make_untraced(number: int, status: str, cause: str) -> dict[str, Any]:
    """A skipped or failed record; one with cause "record" has little else."""
    record = make_traced(number, relation="P31")
    for name in ("low_score", "low_standard_error", "total_effect", "grids"):
        del record[name]
    told = {"status": status, "cause": cause, "reason": f"told why of {number}"}
    if cause != "record":
        return record | told
    fact = {"record": number, "order": number}
    return {"schema": record["schema"], "rometrace": "0.1.0", "fact": fact} | told


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def make_estimate(mean: float, facts: int) -> dict[str, Any]:
    return {
        "mean": mean,
        "n": facts,
        "standard_error": 0.01,
        "normal": [mean - 0.02, mean + 0.02],
        "bootstrap": [mean - 0.03, mean + 0.03],
    }


def make_role(aie: Sequence[float] | None, facts: int, tokens: int) -> dict[str, Any]:
    """A role's averages, the bootstrap interval 0.03 to each side, the normal one 0.02."""
    names = ("score", "aie", "standard_error", "normal_low", "normal_high", "bootstrap_low", "bootstrap_high")
    if aie is None:
        return {
            "facts": 0,
            "tokens": 0,
            "peak": None,
            "largest_effect": make_estimate(0, 0) | {"mean": None},
        } | dict.fromkeys(names)
    moved = dict(zip(names, (0.1, 0.0, None, -0.02, 0.02, -0.03, 0.03)))
    lists = {name: [0.01] * len(aie) if by is None else [value + by for value in aie] for name, by in moved.items()}
    peak = {
        "layer": max(range(len(aie)), key=lambda layer: aie[layer]),
        "aie": max(aie),
        "share": 0.8,
        "layers": [0, 1],
    }
    return {"facts": facts, "tokens": tokens, "peak": peak, "largest_effect": make_estimate(0.3, facts)} | lists


def make_group(facts: int, scale: float = 1.0, layers: int = LAYERS) -> dict[str, Any]:
    """Averages: middle_subject has no token, first_subsequent is in one fact less."""

    def roles(kind: int) -> dict[str, Any]:
        return {
            role: make_role(
                (
                    None
                    if role == "middle_subject"
                    else [scale * (0.01 * (kind + 1) * (place + 1) - 0.002 * layer) for layer in range(layers)]
                ),
                facts - (role == "first_subsequent"),
                2 * facts,
            )
            for place, role in enumerate(ROLES)
        }

    largest = {"largest_score": make_estimate(0.7, facts), "largest_effect": make_estimate(0.4, facts)}
    kinds = {
        kind: {"window": 1 if kind == "state" else 10, "roles": roles(number)} | largest
        for number, kind in enumerate(("state", "mlp", "attn"))
    }
    estimates = {
        name: make_estimate(mean, facts)
        for name, mean in (("high_score", 0.7), ("low_score", 0.1), ("total_effect", 0.6))
    }
    return {"facts": facts} | estimates | {"kinds": kinds}


def make_summary(traced: int = 3, skipped: int = 1, failed: int = 1, layers: int = LAYERS) -> dict[str, Any]:
    """A valid summary with relations P30 and <b>."""
    header = make_header()
    return {
        "schema": "rometrace/summary/1",
        "rometrace": "0.1.0",
        "files": ["results.jsonl"],
        "model": header["model"] | {"layers": layers},
        "run": header["run"],
        "records": traced + skipped + failed,
        "status": {"traced": traced, "skipped": skipped, "failed": failed},
        "causes": {"other_answer": skipped, "record": failed},
        "bootstrap": {"replicates": 1000, "seed": 1, "method": "Poisson bootstrap by fact", "level": 0.95},
        "roles": {"rule": "the first that fits"},
        "overall": make_group(traced, layers=layers),
        "by": {"relation": {"P30": make_group(2, 0.5, layers), "<b>": make_group(1, 0.25, layers)}},
    }


def make_whole_group(facts: int, layers: int = LAYERS, heads: int = 2) -> dict[str, Any]:
    """make_group() with severed states, heads, gaps and knockout; head 1 is the strongest in layer 2."""
    group = make_group(facts, layers=layers)
    kinds = group["kinds"]
    largest = {name: kinds["state"][name] for name in ("largest_score", "largest_effect")}
    for number, severed in enumerate(("mlp", "attn")):
        share = (0.25, 0.75)[number]
        roles = {
            role: make_role(averages["aie"] and [share * v for v in averages["aie"]], averages["facts"], 2 * facts)
            for role, averages in kinds["state"]["roles"].items()
        }
        kinds[f"state_{severed}_severed"] = {"window": 1, "roles": roles} | largest
    kinds["head"] = {"window": 1, "heads": heads, "roles": make_head_roles(facts, layers, heads)} | largest
    group["gaps"] = {severed: make_gap(group, severed) for severed in ("mlp", "attn")}
    groups = {"subject": (-0.5, facts), "before": (-0.1, facts - 1), "after": (-0.2, facts), "last": (0.05, facts)}
    group["knockout"] = {
        "window": 9,
        "groups": {name: make_change(most, n, layers) for name, (most, n) in groups.items()},
    }
    return group


def make_gap(group: dict[str, Any], severed: str) -> dict[str, Any]:
    """The state's AIE less that of the severed one."""
    kinds = group["kinds"]
    roles = {}
    for role, plain in kinds["state"]["roles"].items():
        pairs = zip(plain["aie"] or [], kinds[f"state_{severed}_severed"]["roles"][role]["aie"] or [])
        roles[role] = make_role([a - b for a, b in pairs] or None, plain["facts"], plain["tokens"])
    return {"roles": roles}


def make_head_roles(facts: int, layers: int, heads: int) -> dict[str, Any]:
    """Each role's averages of heads, lists [L][H]."""
    lists = ("score", "aie", "standard_error", "normal_low", "normal_high", "bootstrap_low", "bootstrap_high")
    roles = {}
    for place, role in enumerate(ROLES):
        empty = role == "middle_subject"
        peak = (min(2, layers - 1), 1)
        aie = [[0.02 + place if (layer, h) == peak else 0.001 * h for h in range(heads)] for layer in range(layers)]
        found = {"facts": 0 if empty else facts, "tokens": 0 if empty else facts, "peak": None}
        if not empty:
            found["peak"] = {"layer": peak[0], "head": peak[1], "aie": 0.02 + place, "share": 0.8, "layers": [1, 3]}
        found["largest_effect"] = make_estimate(0.3, facts)
        roles[role] = found | {name: None if empty else aie for name in lists}
    return roles


def make_change(most: float, facts: int, layers: int) -> dict[str, Any]:
    """A group's relative change, which grows with the layer up to `most`, with the intervals of make_role()."""
    change = [most * (layer + 1) / layers for layer in range(layers)]
    moved = {"normal_low": -0.02, "normal_high": 0.02, "bootstrap_low": -0.03, "bootstrap_high": 0.03}
    bands = {name: [value + by for value in change] for name, by in moved.items()}
    return {"facts": facts, "relative_change": change, "standard_error": [0.01] * layers} | bands


def make_neuron_role(facts: int) -> dict[str, Any]:
    """What `facts` facts' neurons have in common; the curve of random sets half that of the best."""

    def curve(share: float) -> dict[str, Any]:
        effects = [share * value for value in (0.01, 0.02, 0.08, 0.4)]
        moved = {"standard_error": None, "normal_low": -0.02, "normal_high": 0.02, "bootstrap_low": -0.03}
        lists = {name: [0.01] * 4 if by is None else [value + by for value in effects] for name, by in moved.items()}
        return {"effect": effects} | lists | {"bootstrap_high": [value + 0.03 for value in effects]}

    overlap = {"pairs": 3, "shared": 0.5, "share": 0.25, "chance": 0.0625}
    best = {"layer": 2, "neuron": 5, "facts": 2, "share": 2 / facts, "promotes": " jazz"}
    return {
        "facts": facts,
        "tokens": facts,
        "told": 2,
        "distinct": 5,
        "best": [best | {"indirect_effect": make_estimate(0.1, 2)}],
        "overlap": {
            "same_relation": overlap,
            "same_subject": {"pairs": 0, "shared": None, "share": None, "chance": None},
            "neither": overlap | {"share": 0.125},
        },
        "neurons": [1, 2, 4, 32],
        "sets": curve(1),
        "controls": {"change": curve(0.75), "random": curve(0.5)},
        "half": {"tokens": facts, "none": 1, "share": make_estimate(0.3, facts - 1), "median": 0.25},
    }


def make_neuron_summary(facts: int = 3) -> dict[str, Any]:
    """A valid summary of neurons alone, at the last subject token."""
    summary = make_summary(traced=facts)
    absent = {"facts": 0, "tokens": 0, "told": 0, "distinct": 0, "best": []}
    for group in (summary["overall"], *summary["by"]["relation"].values()):
        group["kinds"] = {}
        roles = {role: make_neuron_role(group["facts"]) if role == "last_subject" else absent for role in ROLES}
        group["neurons"] = {"candidates": 32, "roles": roles}
    return summary


def make_whole_summary(traced: int = 3, layers: int = LAYERS, heads: int = 2, **run: Any) -> dict[str, Any]:
    """make_summary() with every kind; `run` over the run's settings."""
    summary = make_summary(traced, layers=layers)
    summary["overall"] = make_whole_group(traced, layers, heads)
    summary["by"]["relation"]["P30"] = make_whole_group(2, layers, heads)
    summary["run"] = summary["run"] | run
    return summary


def make_both_summary(traced: int = 3, layers: int = LAYERS, heads: int = 2) -> dict[str, Any]:
    """make_whole_summary() of both directions: corrupting takes away 0.05 more than restoring brings back in the last
    layer and 0.05 less in the first, with the intervals of make_role()."""
    summary = make_whole_summary(traced, layers, heads, direction="both")
    for group in (summary["overall"], *summary["by"]["relation"].values()):
        group["noising"], group["interactions"] = {}, {}
        for kind, averages in group["kinds"].items():
            roles = {role: make_interaction(of) for role, of in averages["roles"].items()}
            group["interactions"][kind] = {
                name: averages[name] for name in ("window", "heads") if name in averages
            } | {"roles": roles}
            group["noising"][kind] = averages | {"roles": {
                role: of if of["aie"] is None else of | {"aie": plus(of["aie"], roles[role]["interaction"])}
                for role, of in averages["roles"].items()
            }}  # fmt: skip
    return summary


def make_interaction(role: dict[str, Any]) -> dict[str, Any]:
    """A role's mean interaction, from -0.05 in the first layer to 0.05 in the last."""
    found = {name: role[name] for name in ("facts", "tokens")}
    names = ("interaction", "standard_error", "normal_low", "normal_high", "bootstrap_low", "bootstrap_high")
    if role["aie"] is None:
        return found | dict.fromkeys(names)
    layers = len(role["aie"])
    steps = [0.1 * layer / max(1, layers - 1) - 0.05 for layer in range(layers)]

    def moved(by: float) -> list[Any]:
        heads = len(role["aie"][0]) if isinstance(role["aie"][0], list) else 0
        return [[step + by] * heads if heads else step + by for step in steps]

    return found | dict(zip(names, map(moved, (0.0, 0.06, -0.02, 0.02, -0.03, 0.03))))


def plus(values: Any, others: Any) -> Any:
    """Sums of nested values."""
    return [plus(*pair) for pair in zip(values, others)] if isinstance(values, list) else values + others
