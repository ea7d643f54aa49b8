"""What the tests of `rometrace summary` that check against NumPy share."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest

from conftest import Rometrace

Summarise = Callable[..., dict[str, Any]]
SEED, REPLICATES = 3, 40


@pytest.fixture
def summarise(rometrace: Rometrace, validate: Callable[[dict[str, Any]], None]) -> Summarise:
    """summarise(files and options) gives the JSON that is written to a pipe, held against its schema."""

    def run(*arguments: Any) -> dict[str, Any]:
        done = rometrace("summary", *arguments, "--seed", SEED, "--bootstrap", REPLICATES)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        validate(found)
        return found

    return run
