"""Edit files made here from random numbers, by what docs/formats.md says of them and nothing of rometrace's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Sequence

import safetensors.torch
import torch

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
LAST_OF_MLP = ("mlp.c_proj", "mlp.fc_out", "mlp.dense_4h_to_h", "fc2", "mlp.down_proj")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a model folder."""
    if (folder / "pytorch_model.bin").exists():
        return dict(torch.load(folder / "pytorch_model.bin", weights_only=True))
    files = sorted(folder.glob("*.safetensors"))
    return {name: value for file in files for name, value in safetensors.torch.load_file(file).items()}


def weights_sha256(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors")) or [folder / "pytorch_model.bin"]
    if len(files) == 1:
        return sha256(files[0].read_bytes())
    return sha256("".join(f"{sha256(file.read_bytes())}  {file.name}\n" for file in files).encode())


def matrix_name(names: Sequence[str], layer: int) -> str:
    """The tensor that leads out of a layer's MLP."""
    (name,) = (name for name in names for part in LAST_OF_MLP if name.endswith(f".{layer}.{part}.weight"))
    return name


def hash_of(matrix: torch.Tensor) -> str:
    """Of a line with dtype and shape, and the elements."""
    head = f"{NAMES[matrix.dtype]} [{','.join(map(str, matrix.shape))}]\n".encode()
    return sha256(head + matrix.contiguous().view(torch.uint8).numpy().tobytes())


def changed(matrix: torch.Tensor, u: torch.Tensor, r: torch.Tensor, transposed: bool) -> torch.Tensor:
    """The matrix and r^T u, summed in order in float64, rounded to the matrix's dtype."""
    total = torch.zeros(matrix.shape, dtype=torch.float64)
    for row_u, row_r in zip(u.double(), r.double(), strict=True):
        total += torch.outer(row_r, row_u) if transposed else torch.outer(row_u, row_r)
    return (matrix.double() + total).to(matrix.dtype)


def make_edit(
    model: Path,
    path: Path,
    layers: Sequence[int] = (1,),
    n: int = 1,
    *,
    seed: int = 1,
    scale: float = 0.3,
    base: dict[str, torch.Tensor] | None = None,
    made_on: Sequence[Path] = (),
    **more: Any,
) -> dict[str, torch.Tensor]:
    """Writes an edit file of random numbers; gives the matrices that it makes. `base`: those of the edits under it."""
    generator = torch.Generator().manual_seed(seed)
    config = json.loads((model / "config.json").read_text())
    transposed = config.get("model_type") != "gpt2"
    weights = tensors_of(model) | (base or {})
    factors, matrices, after = {}, [], {}
    for layer in layers:
        name = matrix_name(list(weights), layer)
        before = weights[name]
        out, into = before.shape if transposed else before.shape[::-1]
        u = torch.randn(n, into, generator=generator) * scale
        r = torch.randn(n, out, generator=generator) * scale
        after[name] = changed(before, u, r, transposed)
        factors |= {f"{name}.u": u, f"{name}.r": r}
        matrices.append(
            {
                "tensor": name,
                "layer": layer,
                "sha256_before": hash_of(before),
                "sha256_after": hash_of(after[name]),
                "change_norm": float((after[name].double() - before.double()).norm()),
                "original_norm": float(before.double().norm()),
            }
        )
    request = {
        "prompt": "Miles Davis plays the",
        "subject": "Miles Davis",
        "objects": {"new": " guitar", "old": " trumpet"},
    }
    record = {
        "schema": "rometrace/edit/1",
        "rometrace": "0.1.0",
        "method": "r-rome",
        "templates": ["{}", "The {}"],
        "seed": 1,
        "hyperparameters": {"steps": 20, "rate": 0.5},
        "moment": {"name": "text.txt", "sha256": "c" * 64, "tokens": 1234},
        "model": {
            "name": model.name,
            "architecture": "GPT2LMHeadModel",
            "layers": max(layers) + 1,
            "width": 8,
            "heads": 2,
            "parameters": 1000,
            "weights_sha256": weights_sha256(model),
        },
        "made_on": [sha256(file.read_bytes()) for file in made_on],
        "requests": [request] * n,
        "matrices": matrices,
    }
    safetensors.torch.save_file(factors, path, metadata={"rometrace": json.dumps(record | more)})
    return after


def record_of(path: Path) -> dict[str, Any]:
    """The record of an edit file."""
    with safetensors.safe_open(path, "pt") as file:
        return json.loads(file.metadata()["rometrace"])
