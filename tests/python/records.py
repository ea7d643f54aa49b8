"""Small records of schema "rometrace/trace/1" for the tests of what reads them."""

from __future__ import annotations

from typing import Any, Sequence

LOW, HIGH = 0.125, 0.75


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
