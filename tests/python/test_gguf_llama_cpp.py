"""Logits and tokens of GGUF files are those of llama.cpp, as tests/judge/make_llama_cpp_goldens.py has kept them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenizing import tokenize
from zygote import RUNNER

pytest.importorskip("gguf", reason="the Python package gguf is not there (tests/requirements.txt)")

from gguf_llama_cpp import LOGIT_CASES, POSITIONS, PRES, TEXTS, TOKEN_IDS, write_case, write_vocabulary  # noqa: E402


# Logits up to 9, float32 on both sides (measured: 8e-6).
TOLERANCE = 5e-5
# On a CPU, llama.cpp takes GELU from a table of half-precision numbers (measured: 3e-3), and where GPT-NeoX, Falcon and
# MPT have it by erf, by tanh (6e-3).
OF_GELU = 1e-2
GELU = ("gpt2", "gpt_neox", "gemma", "gemma2", "gemma3_text", "bloom", "mpt", "falcon", "gpt_bigcode", "starcoder2")
GELU += ("phi",)


@pytest.fixture(scope="module")
def goldens(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "tests/goldens/llama_cpp.json").read_text())


def test_nothing_is_kept_that_is_not_compared(goldens: dict[str, Any]) -> None:
    assert tuple(goldens["logits"]) == LOGIT_CASES and tuple(goldens["tokens"]) == PRES


def logits_of(bin_dir: Path, files: list[Path]) -> list[np.ndarray]:
    done = RUNNER.run(
        [bin_dir / "rometrace_logits", *map(str, TOKEN_IDS)],
        env=os.environ,
        encoding="utf-8",
        input="".join(f"{file}\n" for file in files),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [np.array(json.loads(line)["logits"]) for line in done.stdout.splitlines()]


def test_logits_are_those_of_llama_cpp(
    bin_dir: Path, repository: Path, goldens: dict[str, Any], tmp_path: Path
) -> None:
    files = [write_case(repository, name, tmp_path / name) for name in LOGIT_CASES]
    for name, found in zip(LOGIT_CASES, logits_of(bin_dir, files), strict=True):
        expected = np.array(goldens["logits"][name])
        family = json.loads((tmp_path / name / "config.json").read_text())["model_type"]
        tolerance = OF_GELU if family in GELU else TOLERANCE
        largest = np.abs(found[POSITIONS] - expected).max()
        assert largest < tolerance, f"{name}: {largest} apart, expected less than {tolerance}"


@pytest.mark.parametrize("pre", PRES)
def test_tokens_are_those_of_llama_cpp(
    tool: Path, shared: Path, goldens: dict[str, Any], tmp_path: Path, pre: str
) -> None:
    file = write_vocabulary(shared / "tokenizers/gpt2", tmp_path / "t.gguf", pre)
    found = [answer["ids"] for answer in tokenize(tool, file, list(TEXTS))]
    for text, ids, expected in zip(TEXTS, found, goldens["tokens"][pre], strict=True):
        assert ids == expected, text
