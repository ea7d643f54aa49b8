"""Small records of schema "rometrace/edit/1", as rometrace edit prints them, for the tests of what reads them."""

from __future__ import annotations

import math
from typing import Any, Sequence

from records import HIGH, LOW, make_listed_grid, make_record

LAYER = 2
STEPS = 5
LEAKING = 1


def make_sides(before: tuple[float, float], after: tuple[float, float]) -> dict[str, Any]:
    """A measured prompt's two models; each pair is p of the new and of the old object."""

    def score(p: float) -> dict[str, Any]:
        return {"probability": p**2, "mean_by_token": p, "nll": -math.log(p), "by_token": [p, p]}

    def side(new: float, old: float) -> dict[str, Any]:
        top = {"token": " guitar", "id": 5, "probability": max(new, old)}
        return {"new": score(new), "old": score(old), "top": top, "greedy": " guitar in the band"}

    return {"before": side(*before), "after": side(*after)}


def make_request(prompt: str = "Miles Davis plays the", neighbours: int = 3) -> dict[str, Any]:
    """A request whose neighbour LEAKING leaks."""
    share = [step / (STEPS - 1) for step in range(STEPS)]
    losses = {
        "nll": [6.0 * (1 - s) + 0.02 for s in share],
        "kl": [0.001 * s for s in share],
        "decay": [0.05 * s for s in share],
        "total": [6.0 * (1 - s) + 0.02 + 0.001 * s + 0.05 * s for s in share],
        "delta_norm": [8.0 * s for s in share],
        "gradient_norm": [1.0 - 0.9 * s for s in share],
    }
    return {
        "prompt": prompt,
        "subject": "Miles Davis",
        "subject_span": [0, 11],
        "objects": {"new": " guitar", "old": " trumpet"},
        "object_ids": {"new": [5], "old": [7]},
        "losses": losses,
        "delta_norm": 8.0,
        "init_norm": 2.5,
        "divisor": 1.5,
        "key_ratio": 0.9,
        "measures": {
            "prompt": {"prompt": prompt} | make_sides((0.01, 0.6), (0.9, 0.02)),
            "paraphrases": [
                {"prompt": "The instrument of Miles Davis is the"} | make_sides((0.02, 0.5), (0.7, 0.1)),
                {"prompt": "On stage, Miles Davis holds a"} | make_sides((0.03, 0.4), (0.6, 0.2)),
            ],
            "neighbours": [
                {"prompt": f"Neighbour {n} plays the"}
                | make_sides((0.01, 0.5), (0.6, 0.3) if n == LEAKING else (0.05, 0.45))
                for n in range(neighbours)
            ],
            "behind_templates": {"took": 18, "of": 20},
        },
        "verdict": {"outcome": "took", "leaks": [LEAKING], "text": "took; leaks to 1 of 3 neighbours"},
    }


def make_trace(answer: bytes, share: float, layers: int = 6) -> dict[str, Any]:
    """A trace whose effects are `share` of the largest, in rows for all four tokens."""
    record = make_record(layers=layers, answer=answer)
    record["grids"] = {
        kind: make_listed_grid(range(4), layers, window, share * part)
        for kind, window, part in (("state", 1, 1.0), ("mlp", 10, 0.7), ("attn", 10, 0.3))
    }
    return record | {"answer_ids": [record["answer_id"]], "low_score": LOW, "high_score": LOW + share * (HIGH - LOW)}


def make_edit(requests: Sequence[dict[str, Any]] = (), traces: bool = False, layers: int = 6) -> dict[str, Any]:
    """A record of one layer's edit, of one request unless others are given."""
    model = make_record(layers=layers)["model"]
    record = {
        "schema": "rometrace/edit/1",
        "rometrace": "0.1.0",
        "method": "r-rome",
        "templates": ["Because it was late. {}"],
        "seed": 1,
        "hyperparameters": {"layers": [LAYER], "steps": 20, "rate": 0.5, "decay": 0.5, "clamp": 4.0, "kl": 0.0625},
        "moment": {"name": "facts.json", "sha256": "1" * 64, "tokens": 900},
        "model": model,
        "made_on": [],
        "requests": list(requests) or [make_request()],
        "matrices": [
            {
                "tensor": f"h.{LAYER}.mlp.c_proj.weight",
                "layer": LAYER,
                "sha256_before": "2" * 64,
                "sha256_after": "3" * 64,
                "change_norm": 0.5,
                "original_norm": 10.0,
            }
        ],
        "perplexity": {"text": "facts.json", "before": 20.5, "after": 21.25},
        "seconds": {"templates": 0.5, "moments": 1.5, "value": 2.0, "measures": 0.25},
    }
    if traces:
        record["traces"] = {
            "before": {"new": make_trace(b" guitar", 0.1, layers), "old": make_trace(b" trumpet", 1.0, layers)},
            "after": {"new": make_trace(b" guitar", 0.9, layers), "old": make_trace(b" trumpet", 0.2, layers)},
        }
        for trace in record["traces"]["after"].values():
            trace["model"]["edits"] = [{"sha256": "4" * 64, "method": "r-rome", "layers": [LAYER], "requests": 1}]
    return record


def make_means(success: float, neighbours: float = 80.0) -> dict[str, Any]:
    """Means of scores, percent, with intervals of 8 to both sides."""

    def of(value: float) -> dict[str, Any]:
        return {"mean": value, "bootstrap": [max(0.0, value - 8), min(100.0, value + 8)]}

    scores = {"ES": success, "PS": 0.8 * success, "NS": neighbours}
    means = {name: of(value) | {"deviation": 30.0, "n": 40} for name, value in scores.items()}
    return means | {"S": of(3 / sum(1 / max(1e-9, value) for value in scores.values()))}


def make_edit_summary(layers: int = 6, edited: Sequence[int] | None = None) -> dict[str, Any]:
    """A summary of facts edited in one layer after the other, of the fields that are drawn."""
    edited = list(range(layers)) if edited is None else edited
    groups = [
        {
            "layers": [layer],
            "facts": 40,
            "refused": 0,
            "before": make_means(5.0),
            "after": make_means(95.0 - 60.0 * abs(layer - layers / 3) / layers),
        }
        for layer in edited
    ]

    best = max(groups, key=lambda group: group["after"]["S"]["mean"])

    def curve(peak: int, high: float) -> dict[str, Any]:
        effects = [high * math.exp(-(((layer - peak) / (layers / 4)) ** 2)) for layer in range(layers)]
        return {
            "aie": effects,
            "bootstrap_low": [effect - 0.02 for effect in effects],
            "bootstrap_high": [effect + 0.02 for effect in effects],
            "peak": {"layer": peak, "aie": high, "share": 0.9, "layers": [peak, peak]},
        }

    return {
        "schema": "rometrace/edit-summary/1",
        "rometrace": "0.1.0",
        "files": ["edits.jsonl"],
        "model": make_record(layers=layers)["model"],
        "run": {"direction": "denoising", "corruption": {"method": "noise"}},
        "edit": {"method": "rome", "layers": edited},
        "layers": groups,
        "best": {
            "layer": best["layers"][0],
            "S": best["after"]["S"]["mean"],
            "share": 0.7,
            "layers": [best["layers"][0], best["layers"][0] + 1],
        },
        "by": None,
        "tracing": {"facts": 40, "window": 5, "mlp": curve(layers // 3, 0.25), "state": curve(1, 0.15)},
    }
