"""Small records of schema "rometrace/trace/1" for the tests of what reads them."""

from __future__ import annotations

import math
from typing import Any, Sequence

LOW, HIGH = 0.125, 0.75
HEADS = 2
SEVERED = ("state_mlp_severed", "state_attn_severed")


def make_grid(tokens: int, layers: int, window: int, peak: tuple[int, int]) -> dict[str, Any]:
    """A grid [T][L] that is LOW everywhere and HIGH at `peak` (position, layer)."""
    scores = [[HIGH if (t, layer) == peak else LOW for layer in range(layers)] for t in range(tokens)]
    return {
        "window": window,
        "scores": scores,
        "indirect_effect": [[score - LOW for score in row] for row in scores],
        "standard_error": [[0.01] * layers for _ in range(tokens)],
    }


def make_record(
    tokens: Sequence[bytes] = (b"Miles", b" Davis", b" plays", b" the"), layers: int = 6, answer: bytes = b" trumpet"
) -> dict[str, Any]:
    """A valid record of a traced fact, subject [0, 2), all three kinds."""
    text = [token.decode(errors="replace") for token in tokens]
    last = len(tokens) - 1
    return {
        "schema": "rometrace/trace/1",
        "rometrace": "0.1.0",
        "status": "traced",
        "model": {
            "name": "some/tiny-model",
            "architecture": "GPT2LMHeadModel",
            "layers": layers,
            "width": 8,
            "heads": 2,
            "parameters": 1000,
            "weights_sha256": "0" * 64,
        },
        "run": {
            "device": "cpu",
            "dtype": "float32",
            "threads": 1,
            "engine": "plain",
            "seed": 1,
            "samples": 10,
            "noise": {"rule": "s3", "sigma": 0.25, "replace": False},
            "seconds": 0.5,
        },
        "prompt": b"".join(tokens).decode(errors="replace"),
        "subject": b"".join(tokens[:2]).decode(errors="replace"),
        "tokens": text,
        "token_bytes": [token.hex() for token in tokens],
        "token_ids": list(range(len(tokens))),
        "subject_range": [0, min(2, len(tokens))],
        "answer": answer.decode(errors="replace"),
        "answer_bytes": answer.hex(),
        "answer_id": 7,
        "prediction": answer.decode(errors="replace"),
        "prediction_bytes": answer.hex(),
        "prediction_id": 7,
        "prediction_score": HIGH,
        "high_score": HIGH,
        "low_score": LOW,
        "low_standard_error": 0.01,
        "total_effect": HIGH - LOW,
        "grids": {
            "state": make_grid(len(tokens), layers, 1, (last, layers - 1)),
            "mlp": make_grid(len(tokens), layers, 10, (0, 0)),
            "attn": make_grid(len(tokens), layers, 10, (last, 0)),
        },
    }


def make_skipped_record() -> dict[str, Any]:
    """A valid record of a fact whose prediction was not the expected answer."""
    traced_only = ("low_score", "low_standard_error", "total_effect", "grids")
    record = {name: value for name, value in make_record().items() if name not in traced_only}
    return record | {"status": "skipped", "reason": 'the model predicts " trumpet", expected "piano"'}


def make_listed_grid(positions: Sequence[int], layers: int, window: int, share: float) -> dict[str, Any]:
    """A grid [P][L] of listed positions: effects rise and fall with the layer, at most `share` of the total effect."""
    bell = [math.exp(-(((layer - layers / 3) / (layers / 4)) ** 2)) for layer in range(layers)]
    effects = [[share * (HIGH - LOW) * value / (1 + p) for value in bell] for p in range(len(positions))]
    return {
        "window": window,
        "positions": list(positions),
        "scores": [[LOW + effect for effect in row] for row in effects],
        "indirect_effect": effects,
        "standard_error": [[0.01] * layers for _ in positions],
    }


def make_head_grid(positions: Sequence[int], layers: int, peak: tuple[int, int, int]) -> dict[str, Any]:
    """A grid [P][L][H] that is LOW but for a slight slope and HIGH at `peak` (row, layer, head)."""
    effects = [
        [[HIGH - LOW if (p, layer, h) == peak else 0.01 * (layer - h) for h in range(HEADS)] for layer in range(layers)]
        for p in range(len(positions))
    ]
    return {
        "window": 1,
        "positions": list(positions),
        "heads": HEADS,
        "scores": [[[LOW + effect for effect in heads] for heads in row] for row in effects],
        "indirect_effect": effects,
        "standard_error": [[[0.01] * HEADS for _ in range(layers)] for _ in positions],
    }


def make_neurons(layers: int = 6, position: int = 1, width: int = 8, by_layer: bool = False) -> dict[str, Any]:
    """What a trace of neurons has: the two best of `layers` of `width` each, and sets that grow with the root of k."""
    candidates = layers * width

    def run(effect: float) -> dict[str, Any]:
        return {"score": LOW + effect, "indirect_effect": effect, "standard_error": 0.01}

    def token(text: bytes, number: int, logit: float) -> dict[str, Any]:
        return {"token": text.decode(), "token_bytes": text.hex(), "id": number, "logit": logit}

    def effect(layer: int, neuron: int, value: float) -> dict[str, Any]:
        place = {"layer": layer, "position": position, "neuron": neuron, "estimate": 0.8 * value}
        row = {"value": {"clean": 1.5, "corrupted": -0.25}, "row_norm": 2.0}
        tokens = {"promotes": [token(b" trumpet", 7, 1.5)], "suppresses": [token(b" piano", 9, -1.25)]}
        return place | run(value) | row | tokens

    def sizes(count: int) -> list[int]:
        return [*(2**i for i in range(count.bit_length()) if 2**i < count), count]

    def sets(count: int, most: float, **place: Any) -> list[dict[str, Any]]:
        return [{"position": position} | place | {"neurons": k} | run(most * math.sqrt(k / count)) for k in sizes(count)]

    def half(count: int, **place: int) -> dict[str, Any]:
        return {"position": position} | place | {"candidates": count, "neurons": -(-count // 4)}

    total = HIGH - LOW
    neurons = {
        "positions": [position],
        "layers": [0, layers],
        "ranked_by": "gradient",
        "candidates": candidates,
        "effects": [effect(layers - 1, 3, 0.5 * total), effect(0, width - 1, -0.1 * total)],
        "sets": sets(candidates, 0.8 * total),
        "controls": [
            {"order": order} | each
            for order, share in (("change", 0.4), ("random", 0.1))
            for each in sets(candidates, share * total)
        ],
        "half": [half(candidates)],
    }
    if by_layer:
        neurons["sets_by_layer"] = [each for layer in range(layers) for each in sets(width, 0.3 * total, layer=layer)]
        neurons["controls"] += [
            {"order": order} | each
            for order in ("change", "random")
            for layer in range(layers)
            for each in sets(width, 0.1 * total, layer=layer)
        ]
        neurons["half"] += [half(width, layer=layer) for layer in range(layers)]
    return neurons


def make_neuron_record(**neurons: Any) -> dict[str, Any]:
    """A valid record of a trace of neurons alone."""
    record = make_record()
    return record | {"grids": {}, "neurons": make_neurons(record["model"]["layers"], **neurons)}


def make_knockout(layers: int) -> dict[str, Any]:
    """Attention cut from the groups of make_record()'s prompt, which has nothing before its subject."""
    groups = {"subject": ([0, 1], -0.6), "after": ([2], -0.1), "last": ([3], 0.05)}
    slope = [layer / max(1, layers - 1) for layer in range(layers)]
    changes = {name: [most * share for share in slope] for name, (_, most) in groups.items()}
    return {
        "window": 9,
        "groups": {
            name: {
                "positions": positions,
                "scores": [HIGH * (1 + change) for change in changes[name]],
                "relative_change": changes[name],
            }
            for name, (positions, _) in groups.items()
        },
    }


def make_measures(record: dict[str, Any]) -> dict[str, Any]:
    """Measures for all of the record's grids: each cell's is a line through the measure's low and high."""

    def along(scores: Any, low: float, high: float) -> Any:
        if isinstance(scores, list):
            return [along(score, low, high) for score in scores]
        return low + (high - low) * (scores - LOW) / (HIGH - LOW)

    ends = {
        "log_probability": (math.log(LOW), math.log(HIGH)),
        "logit": (1.0, 6.0),
        "logit_difference": (-1.5, 4.0),
        "rank": (12.5, 1.0),
        "kl": (2.0, 0.0),
        "normalised": (0.0, 1.0),
    }
    measures: dict[str, Any] = {
        name: {
            "high": high,
            "low": low,
            "low_standard_error": 0.1,
            "grids": {
                kind: {
                    "values": along(grid["scores"], low, high),
                    "standard_error": None if name == "normalised" else along(grid["scores"], 0.0, 0.1),
                }
                for kind, grid in record["grids"].items()
            },
        }
        for name, (low, high) in ends.items()
    }
    measures["logit_difference"] |= {"foil": " piano", "foil_bytes": b" piano".hex(), "foil_id": 9}
    measures["normalised"] |= {"of": "logit_difference", "low_standard_error": None}
    return measures


def make_whole_record(layers: int = 6, positions: Sequence[int] = (1, 3), **run: Any) -> dict[str, Any]:
    """A valid record with every kind and measure, rows for `positions` alone, `run` over the run's settings."""
    record = make_record(layers=layers)
    settings = {"approximate": False, "direction": "denoising", "corruption": {"method": "noise"}}
    record["run"] |= settings | run
    record["answer_ids"] = [record["answer_id"]]
    shares = {"state": 1.0, "mlp": 0.6, "attn": 0.3, "state_mlp_severed": 0.25, "state_attn_severed": 0.8}
    record["grids"] = {
        kind: make_listed_grid(positions, layers, 10 if kind in ("mlp", "attn") else 1, share)
        for kind, share in shares.items()
    } | {"head": make_head_grid(positions, layers, (0, 2, 1))}
    record["knockout"] = make_knockout(layers)
    record["measures"] = make_measures(record)
    if record["run"]["direction"] == "noising":
        for grid in record["grids"].values():
            grid["scores"] = lost(grid["indirect_effect"])
    return record


def lost(effects: Any) -> Any:
    """The scores of a noising run with these effects."""
    return [lost(effect) for effect in effects] if isinstance(effects, list) else HIGH - effects


def with_counter(record: dict[str, Any]) -> dict[str, Any]:
    """The record as if it were corrupted by another prompt, which differs in the second token alone."""
    ids = record["token_ids"]
    counter = {
        "prompt": "Miles Smiles plays the",
        "subject": "Miles Smiles",
        "token_ids": [ids[0], 99, *ids[2:]],
        "tokens": ["Miles", " Smiles", *record["tokens"][2:]],
    }
    run = record["run"] | {"corruption": {"method": "tokens"}, "noise": None, "samples": 1}
    return record | {"counter": counter, "run": run}


def make_both_record(layers: int = 6, positions: Sequence[int] = (1, 3), **run: Any) -> dict[str, Any]:
    """make_whole_record() of both directions: in the first layers corrupting takes away less than restoring
    brings back, in the last ones more."""
    record = make_whole_record(layers, positions, **run | {"direction": "both"})

    def noised(effects: Any, layer: int) -> Any:
        if isinstance(effects, list):
            return [noised(effect, layer) for effect in effects]
        return min(HIGH, max(-0.25, effects + 0.02 * (layer - 2)))

    grids = {}
    for kind, grid in record["grids"].items():
        effects = [[noised(cell, layer) for layer, cell in enumerate(row)] for row in grid["indirect_effect"]]
        grids[kind] = grid | {
            "scores": lost(effects),
            "indirect_effect": effects,
            "interaction": less(effects, grid["indirect_effect"]),
            "interaction_standard_error": grid["standard_error"],
        }
    measures = make_measures(record | {"grids": grids})
    record["noising"] = {
        "grids": grids,
        "measures": {name: {"grids": measure["grids"]} for name, measure in measures.items()},
    }
    return record


def less(values: Any, others: Any) -> Any:
    """Nested values less others."""
    if isinstance(values, list):
        return [less(value, other) for value, other in zip(values, others, strict=True)]
    return values - others
