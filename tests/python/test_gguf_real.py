"""Real models as GGUF files, beside the folders in which transformers dequantised them. $ROMETRACE_REAL_MODELS names
the folder of both: NAME.gguf and NAME/. Skipped elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agreement import TOLERANCES, assert_close, floats_of
from zygote import RUNNER

MODELS = ("smollm2-135m", "gemma3-270m")
PROMPT, SUBJECT, ANSWER = "The Eiffel Tower is located in the city of", "The Eiffel Tower", " Paris"


@pytest.fixture(params=MODELS)
def real(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """The file and the folder of a model."""
    where = os.environ.get("ROMETRACE_REAL_MODELS")
    if where is None:
        pytest.skip("ROMETRACE_REAL_MODELS does not name the folder of the real models")
    file, folder = Path(where) / f"{request.param}.gguf", Path(where) / request.param
    if not file.exists() or not folder.is_dir():
        pytest.skip(f"{request.param} is not in {where}")
    return file, folder


def test_logits_are_those_of_transformers(bin_dir: Path, real: tuple[Path, Path]) -> None:
    file, folder = real
    ids = AutoTokenizer.from_pretrained(folder)(PROMPT).input_ids
    command = [bin_dir / "rometrace_logits", *map(str, ids)]
    done = RUNNER.run(command, env=os.environ, encoding="utf-8", input=f"{file}\n", timeout=300)
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout)["logits"])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0].numpy()
    # Logits up to 30, sums of hundreds of products through 18 to 30 layers, both sides in float32 (measured: 9e-5).
    assert np.abs(found - expected).max() < 5e-4


def test_a_trace_is_that_of_the_folder(traced: Callable[..., dict[str, Any]], real: tuple[Path, Path]) -> None:
    file, folder = real
    options = ("--prompt", PROMPT, "--subject", SUBJECT, "--noise", "0.1", "--samples", "2")
    options += ("--positions", "subject-last", "--window", "5")
    found, expected = traced("--model", file, *options), traced("--model", folder, *options)
    assert found["answer"] == expected["answer"] == ANSWER
    assert found["token_ids"] == expected["token_ids"]
    assert_close(floats_of(found), floats_of(expected), TOLERANCES["float32"])
