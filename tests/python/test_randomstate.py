"""The generator draws what numpy.random.RandomState draws, bit for bit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from zygote import RUNNER

COUNT = 2_000_000  # many times the generator's state of 624 words
CHISQUARES = ["chisquare:0.3", "chisquare:2", "chisquare:2.5", "chisquare:7"]  # gamma of a shape below, at, above 1


def draw_with_numpy(seed: int, kind: str) -> np.ndarray:
    """Float64 [COUNT]."""
    random = np.random.RandomState(seed)
    if kind.startswith("chisquare:"):
        return random.chisquare(float(kind.removeprefix("chisquare:")), COUNT)
    return random.uniform(-1, 1, COUNT) if kind == "uniform" else getattr(random, kind)(COUNT)


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", ["randn", "uniform", "random_sample", *CHISQUARES])
def test_every_bit_of_millions_of_values_is_numpys(bin_dir: Path, seed: int, kind: str) -> None:
    program = bin_dir / "rometrace_randomstate"
    done = RUNNER.run([program, seed, kind, COUNT], env=os.environ, timeout=120)
    assert done.returncode == 0, done.stderr
    found = np.frombuffer(done.stdout, dtype="<f8")
    expected = draw_with_numpy(seed, kind)
    assert found.shape == expected.shape
    different = np.flatnonzero(found.view(np.uint64) != expected.view(np.uint64))
    assert different.size == 0, (
        f"{different.size} of {COUNT} differ, the first at {different[0]}: "
        f"{found[different[0]]!r}, expected {expected[different[0]]!r}"
    )
