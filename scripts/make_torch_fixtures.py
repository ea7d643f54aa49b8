#!/usr/bin/env python3
"""Makes small files of torch.save, for the tests of what reads them (tests/fixtures/torch).

    scripts/make_torch_fixtures.py FOLDER

Both formats, pickle protocols 2 to 5, every dtype, tensors that share a storage, that are transposed, sliced, empty,
scalars and parameters; plain values between them; and the same weights in two shards. Needs PyTorch only.
"""

import argparse
import collections
import json
import pathlib

import torch

FLOATING = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
WHOLE = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
# Those that have no class of storages: torch.save describes them in another way.
LATE = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]


def of_early_dtypes():
    """A tensor of each dtype that has a class of storages, named by it."""
    values = torch.arange(6).reshape(2, 3)
    tensors = {str(dtype).removeprefix("torch."): (values - 2.5).to(dtype) for dtype in FLOATING}
    tensors |= {str(dtype).removeprefix("torch."): values.to(dtype) for dtype in WHOLE}
    tensors["bool"] = values % 2 == 0
    tensors["complex64"] = torch.complex(values.float(), -values.float())
    tensors["complex128"] = torch.complex(values.double(), -values.double())
    return tensors


def of_late_dtypes():
    """A tensor of each of the other dtypes. In the old format, PyTorch writes them and cannot read them."""
    return {str(dtype).removeprefix("torch."): torch.arange(6).reshape(2, 3).to(dtype) for dtype in LATE}


def of_every_shape():
    """Tensors that differ in how their elements lie in the storage."""
    matrix = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    cube = torch.arange(24, dtype=torch.float16).reshape(2, 3, 4)
    return {
        "whole": matrix,
        "same": matrix,
        "row": matrix[1],
        "transposed": matrix.t(),
        "column": matrix[:, 2],
        "every_other": matrix[::2, 1::2],
        "permuted": cube.permute(2, 0, 1),
        "expanded": torch.tensor([1.5, 2.5])[:, None].expand(2, 3),
        "scalar": torch.tensor(7.25),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.tensor([1.0, -1.0])),
        "frozen": torch.nn.Parameter(torch.tensor([[3.0], [4.0]]), requires_grad=False),
    }


def state_dict(tensors, plain):
    """As torch.nn.Module.state_dict gives them, `_metadata` and all."""
    result = collections.OrderedDict(tensors)
    result.update(plain)
    result._metadata = collections.OrderedDict({"": {"version": 1}, "part": {"version": 2}})
    return result


def make_single_files(folder):
    """The same state dict in each format and protocol."""
    plain = {"steps": 3, "rate": 0.5, "name": "é", "nothing": None, "flag": True, "large": 1 << 80}
    plain |= {"shape": torch.Size([2, 3]), "type": torch.float16}
    tensors = of_early_dtypes() | of_every_shape()
    for protocol in (2, 3, 4, 5):
        torch.save(state_dict(tensors | of_late_dtypes(), plain), folder / f"zip_{protocol}.bin", pickle_protocol=protocol)
    for protocol in (2, 4):
        path = folder / f"old_{protocol}.bin"
        torch.save(state_dict(tensors, plain), path, pickle_protocol=protocol, _use_new_zipfile_serialization=False)


def make_shards(folder):
    """Two shards, one in each format, and their index."""
    folder.mkdir(exist_ok=True)
    shards = {
        "pytorch_model-00001-of-00002.bin": {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0, 4.0]])},
        "pytorch_model-00002-of-00002.bin": {"c": torch.tensor([5.0, 6.0], dtype=torch.float16)},
    }
    for number, (name, tensors) in enumerate(shards.items()):
        torch.save(tensors, folder / name, _use_new_zipfile_serialization=number == 0)
    weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    index = {"metadata": {"total_size": 20}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def make(folder):
    """All of them, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    make_single_files(folder)
    make_shards(folder / "sharded")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    make(parser.parse_args().folder)
