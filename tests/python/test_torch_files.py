"""Files of torch.save, judged by torch.load."""

from __future__ import annotations

import collections
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import torch

from make_torch_fixtures import make
from zygote import RUNNER

TORCH_TYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "C128": torch.complex128,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
FILES = [f"{kind}_{protocol}.bin" for kind, protocols in {"zip": "2345", "old": "24"}.items() for protocol in protocols]
FILES += [f"sharded/pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]


def run_tool(bin_dir: Path, file: Path) -> subprocess.CompletedProcess[str]:
    return RUNNER.run([bin_dir / "rometrace_tensors", file], env=os.environ, encoding="utf-8", timeout=300)


def tensors_of(bin_dir: Path, file: Path) -> dict[str, torch.Tensor]:
    """What rometrace reads, with nothing of PyTorch's reader in the way."""
    done = run_tool(bin_dir, file)
    assert done.returncode == 0, done.stderr
    return {entry["name"]: to_tensor(entry) for entry in map(json.loads, done.stdout.splitlines())}


def to_tensor(entry: dict[str, Any]) -> torch.Tensor:
    data = bytearray.fromhex(entry["bytes"])
    dtype = TORCH_TYPES[entry["dtype"]]
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    if entry["strides"] is None:
        return flat.reshape(entry["shape"])
    return flat.as_strided(entry["shape"], entry["strides"])


def bits(tensor: torch.Tensor) -> bytes:
    """The elements in row-major order; works for types that cannot be compared."""
    contiguous = tensor.detach().contiguous()
    return bytes(contiguous.reshape(-1).view(torch.uint8).tolist()) if contiguous.numel() else b""


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("are_fresh", [True, False], ids=["fresh", "kept"])
def test_tensors_are_those_that_torch_load_gives(
    bin_dir: Path, repository: Path, tmp_path: Path, file: str, are_fresh: bool
) -> None:
    folder = tmp_path / "torch" if are_fresh else repository / "tests/fixtures/torch"
    if are_fresh:
        make(folder)
    # Our own files, so nothing speaks against weights_only=False: PyTorch's restricted reader knows no protocol 4.
    values = torch.load(folder / file, weights_only=False)
    expected = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    found = tensors_of(bin_dir, folder / file)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert bits(found[name]) == bits(tensor), name


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old"])
def test_parameters_attributes_and_other_entries_are_no_obstacle(bin_dir: Path, tmp_path: Path, is_zip: bool) -> None:
    tagged, parameter = torch.arange(4.0), torch.nn.Parameter(torch.arange(3.0))
    tagged.note, parameter.note = {"from": "elsewhere"}, "trained"
    state: dict[Any, Any] = {"step": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(5)}}, "param_groups": []}}
    state |= {"milestones": collections.Counter([3, 3]), "device": torch.device("cpu"), 7: "seven"}
    state |= {"tagged": tagged, "parameter": parameter, "half": torch.nn.Parameter(tagged.half())}
    file = tmp_path / "pytorch_model.bin"
    torch.save(state, file, _use_new_zipfile_serialization=is_zip)
    found = tensors_of(bin_dir, file)
    assert list(found) == ["tagged", "parameter", "half"]
    for name, tensor in found.items():
        assert bits(tensor) == bits(torch.load(file, weights_only=False)[name]), name


class Attack:
    """What a hostile file does when PyTorch or Python loads it: makes a file."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize(("protocol", "is_zip"), [(2, True), (4, False)], ids=["zip_2", "old_4"])
@pytest.mark.parametrize("function", [os.mkdir, os.system, eval])
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(
    bin_dir: Path, tmp_path: Path, function: Callable[..., Any], protocol: int, is_zip: bool
) -> None:
    canary = tmp_path / "canary"
    arguments = {os.mkdir: str(canary), os.system: f"mkdir {canary}", eval: f"__import__('os').mkdir({str(canary)!r})"}
    file = tmp_path / "pytorch_model.bin"
    state = {"a": torch.ones(1), "b": Attack(function, arguments[function])}
    torch.save(state, file, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    done = run_tool(bin_dir, file)
    assert done.returncode == 2 and done.stdout == ""
    assert f'.{function.__name__}"' in done.stderr and "nothing was run" in done.stderr
    assert not canary.exists()
    # It is a real attack: Python's own reader falls for it.
    torch.load(file, weights_only=False)
    assert canary.exists()


def test_a_whole_module_and_a_plain_pickle_are_refused_by_name(bin_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "module.bin"
    torch.save(torch.nn.Linear(2, 2), file)
    assert '"torch.nn.modules.linear.Linear"' in run_tool(bin_dir, file).stderr
    file.write_bytes(pickle.dumps({"a": 1}))
    assert "expected the magic number of torch.save" in run_tool(bin_dir, file).stderr


def test_a_training_checkpoint_is_refused_and_the_advice_helps(bin_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.bin"
    torch.save({"epoch": 3, "state_dict": {"a": torch.arange(3.0)}, "optimizer": {"state": {}}}, file)
    message = run_tool(bin_dir, file).stderr.strip()
    assert 'holds its tensors inside "state_dict"' in message
    script = message.partition('python -c "')[2].removesuffix('"').replace("FILE", str(file))
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    assert tensors_of(bin_dir, file)["a"].tolist() == [0, 1, 2]


PROMPT = ("--prompt", "Miles Davis plays the", "--subject", "Miles Davis", "--kinds", "state", "--samples", "2")
FORMATS = ["model.safetensors", "pytorch_model.bin", "old", "sharded"]


def put_weights(folder: Path, source: Path, kind: str) -> None:
    """Puts a model's weights into `folder`, in one of the formats."""
    if kind in FORMATS[:2]:
        shutil.copy(source / kind, folder)
        return
    weights = torch.load(source / "pytorch_model.bin", weights_only=True)
    if kind == "old":
        torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        return
    names = sorted(weights)
    parts = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in parts.items():
        torch.save({name: weights[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_model_traces_the_same_from_each_of_its_formats(
    traced: Callable[..., dict[str, Any]], shared: Path, tmp_path: Path
) -> None:
    source = shared / "models/gpt2-lyrics"
    records = {}
    for kind in FORMATS:
        folder = tmp_path / kind
        folder.mkdir()
        for name in ("config.json", "vocab.json", "merges.txt"):
            shutil.copy(source / name, folder)
        put_weights(folder, source, kind)
        records[kind] = traced(*PROMPT, "--model", folder)
    expected = records.pop("model.safetensors")
    digests = {expected["model"]["weights_sha256"]}
    for kind, record in records.items():
        digests.add(record["model"]["weights_sha256"])
        for part in set(expected) - {"model", "run"}:
            assert record[part] == expected[part], (kind, part)
    assert len(digests) == len(FORMATS)
