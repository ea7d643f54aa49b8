"""scripts/benchmarks/make_random_checkpoint.py writes what transformers and PyTorch read."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from checkpoint_shapes import SHAPES, field_of, tensors_of, with_size
from golden_families import public_names, tensor_shapes
from reference_tracer import LAYOUTS

SMALL = ("--layers", "1", "--vocab", "300", "--positions", "32")


@pytest.fixture
def make(repository: Path, tmp_path: Path) -> Any:
    """make(name, *options) writes a checkpoint and gives its folder; a refusal's line if it has another status."""

    def run(name: str, *options: str) -> Any:
        command = [sys.executable, str(repository / "scripts/benchmarks/make_random_checkpoint.py"), str(tmp_path / name)]
        done = subprocess.run([*command, *options], capture_output=True, encoding="utf-8")
        return tmp_path / name if done.returncode == 0 else done.stderr.splitlines()[-1]

    return run


def stored_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's weight files."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    for path in sorted(folder.glob("*.bin")):
        tensors |= torch.load(path, weights_only=True)
    return tensors


def test_there_is_a_shape_of_every_family() -> None:
    assert {config["model_type"] for config in SHAPES.values()} == set(LAYOUTS) - {"gemma3"}  # text only


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shapes_tensors_are_those_of_transformers_module(shape: str) -> None:
    config = with_size(SHAPES[shape], "layers", 2)
    found = {name.replace("embed_out.", "lm_head."): size for name, size, _, _ in tensors_of(config)}
    assert len(found) == len(tensors_of(config))
    expected = {name: torch.empty(size, device="meta") for name, size in tensor_shapes(config).items()}
    expected = public_names(config["model_type"], expected)
    assert found == {name: tuple(tensor.shape) for name, tensor in expected.items()}


def test_layers_are_cut_where_a_family_lists_them() -> None:
    for layers, types in ((1, ["global"]), (3, ["global", "local", "global"])):
        config = with_size(SHAPES["gpt-neo-125m"], "layers", layers)
        assert config[field_of(config, "layers")] == layers
        assert [kind for kinds, count in config["attention_types"] for _ in range(count) for kind in kinds] == types


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
@pytest.mark.parametrize("shape", ["pythia-70m", "opt-350m"])
def test_transformers_loads_all_of_it(make: Any, shape: str, file_format: str) -> None:
    folder = make("model", "--shape", shape, "--format", file_format, "--shards", "2", "--dtype", "BF16", *SMALL)
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    assert model.dtype == torch.bfloat16 and model.config.num_hidden_layers == 1
    written = {name.replace("embed_out.", "lm_head."): tensor for name, tensor in stored_tensors(folder).items()}
    parameters = dict(model.named_parameters())
    assert written.keys() == parameters.keys()
    assert all(torch.equal(written[name], parameters[name]) for name in written)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_bin_file_holds_the_same_numbers_at_multiples_of_64(make: Any, dtype: str) -> None:
    small = ("--layers", "2", "--width", "24", "--heads", "4", "--vocab", "300", "--positions", "32", "--dtype", dtype)
    folder = make("bin", *small, "--format", "bin")
    found, expected = stored_tensors(folder), stored_tensors(make("safetensors", *small, "--shards", "3"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    path = folder / "pytorch_model.bin"
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            name, extra = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
            assert (entry.header_offset + 30 + name + extra) % 64 == 0, entry.filename


def test_a_folder_written_again_has_the_new_format_alone(make: Any) -> None:
    small = ("--layers", "1", "--width", "8", "--heads", "1", "--vocab", "300", "--positions", "4")
    make("model", *small, "--shards", "2")
    folder = make("model", *small, "--format", "bin")
    assert [path.name for path in folder.iterdir() if "model" in path.name] == ["pytorch_model.bin"]
    assert json.loads((folder / "config.json").read_text())["n_layer"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shape", "llama-3-8b", "--width", "64"), "--width and --heads are for the shapes of GPT-2"),
        (("--width", "10", "--heads", "3"), "--heads 3 does not divide the width 10"),
        (("--shape", "pythia-70m", "--layers", "1", "--shards", "99"), "--shards 99: the model has 16 tensors"),
        (("--vocab", "100"), "--vocab 100: the tokeniser has 257 tokens"),
    ],
)
def test_options_that_make_no_model_are_refused(make: Any, options: tuple[str, ...], message: str) -> None:
    assert message in make("model", *options)
