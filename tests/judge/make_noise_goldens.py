#!/usr/bin/env python3
"""Writes tests/goldens/randomstate.json: what NumPy's legacy generator draws, for the C++ test to equal bit for bit.

The first values stand there as the integers of their bit patterns; all values of a stream are held by one checksum,
the sum of (2 i + 1) * bits[i] modulo 2**64, which depends on their order.
"""

import json
from pathlib import Path

import numpy as np

COUNT = 1_000_000


def stream(seed: int, kind: str) -> dict:
    random = np.random.RandomState(seed)
    draw = {"randn": random.randn, "random_sample": random.random_sample, "uniform": lambda n: random.uniform(-1, 1, n)}
    if kind.startswith("chisquare:"):
        df = float(kind.removeprefix("chisquare:"))
        draw[kind] = lambda n: random.chisquare(df, n)
    bits = draw[kind](COUNT).view(np.uint64)
    weights = 2 * np.arange(COUNT, dtype=np.uint64) + 1
    return {
        "seed": seed,
        "kind": kind,
        "count": COUNT,
        "first_bits": [int(b) for b in bits[:8]],
        "checksum": int((weights * bits).sum(dtype=np.uint64)),
    }


def main() -> None:
    streams = [stream(seed, kind) for seed in (1, 0, 2**32 - 1) for kind in ("randn", "uniform", "random_sample")]
    # The gamma distribution behind it has three ways: shapes below, at and above 1. Noise rules use seed 2.
    streams += [stream(2, kind) for kind in ("chisquare:0.5", "chisquare:2", "chisquare:2.5", "chisquare:5")]
    golden = {"made_by": "tests/judge/make_noise_goldens.py", "versions": {"numpy": np.__version__}, "streams": streams}
    path = Path(__file__).resolve().parents[1] / "goldens/randomstate.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
