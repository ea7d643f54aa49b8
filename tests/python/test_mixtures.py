"""What is said of mixtures of experts, and what holds of no single golden: the layout that transformers writes, memory
that holds a part of the experts only, and refusals in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from golden_families import PUBLIC_NAMES
from reference_tracer import MIXTURES
from test_against_transformers import write_letter_tokenizer

Rometrace = Callable[..., Any]
PROMPT = ("--prompt", "ab cdef", "--subject", "cd", "--noise", "1.5", "--samples", "3", "-q")


@pytest.fixture
def folder_of(repository: Path, tmp_path: Path) -> Callable[[str], Path]:
    """folder_of(case) gives a copy of a golden's model with a tokeniser of letters."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(repository / "tests/goldens/models" / name, folder)
        write_letter_tokenizer(folder, json.loads((folder / "config.json").read_text())["vocab_size"])
        return folder

    return make


@pytest.mark.parametrize("family", MIXTURES)
def test_what_transformers_saves_has_the_names_that_are_read(repository: Path, tmp_path: Path, family: str) -> None:
    golden = repository / "tests/goldens/models" / family
    AutoModelForCausalLM.from_pretrained(golden, dtype=torch.float32).save_pretrained(tmp_path)
    saved, read = load_file(tmp_path / "model.safetensors"), load_file(golden / "model.safetensors")
    assert {name: tensor.shape for name, tensor in saved.items()} == {name: tensor.shape for name, tensor in read.items()}
    assert all(torch.equal(saved[name], read[name].float()) for name in read)
    assert set(PUBLIC_NAMES) <= set(MIXTURES)


@pytest.mark.parametrize("name", ["qwen3_moe", "granitemoe"])
def test_memory_that_does_not_hold_the_experts_changes_no_digit_that_counts(
    rometrace: Rometrace, folder_of: Callable[[str], Path], name: str
) -> None:
    folder, traces = folder_of(name), []
    for memory in ((), ("--memory", "60K")):
        done = rometrace("--model", folder, *PROMPT, "--json", *memory)
        assert done.returncode == 0, done.stderr
        traces.append(json.loads(done.stdout)["grids"])
    held, streamed = traces
    for kind, grid in held.items():
        scores = (torch.tensor(each["scores"]) for each in (grid, streamed[kind]))
        torch.testing.assert_close(*scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((*PROMPT, "--kinds", "neuron"), "neurons are"),
        (("edit", "--prompt", "ab cdef", "--subject", "cd", "--target", "x"), "edits are"),
        (("moments", "--layers", "0", "--text", "TEXT"), "second moments are"),
    ],
    ids=["neuron", "edit", "moments"],
)
def test_what_a_mixture_has_not_is_refused_in_one_line(
    rometrace: Rometrace, folder_of: Callable[[str], Path], tmp_path: Path, arguments: tuple[str, ...], what: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("ab cdef " * 50)
    folder = folder_of("mixtral")
    arguments = tuple(str(text) if each == "TEXT" else each for each in arguments)
    command, rest = (arguments[:1], arguments[1:]) if arguments[0] in ("edit", "moments") else ((), arguments)
    done = rometrace(*command, "--model", folder, *rest)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "not to be had" in line]
    assert line.startswith(f"rometrace: {what} not to be had of mixtral")
    assert done.stdout == ""
