#!/usr/bin/env python3
"""ROME over Hugging Face transformers, timed: the Python side of scripts/benchmarks/benchmark_editing.py.

It does what the reference does (kmeng01/rome, arXiv 2202.05262): each evaluation of the loss runs the whole model on
one padded batch, the rows with the object and the subject alone, and differentiates down to the edited layer; Adam
moves delta. It is careful in the rest: weights need no gradient, so that nothing is kept below the layer; keys and
values are taken from the first evaluation, where the reference runs the model twice more; log p is taken where the
object is said, the reference takes it everywhere; C is factored by Cholesky in float64 and solved for one key, where
the reference inverts it.

The program answers requests, one JSON object a line on stdin, with one a line on stdout. Times are in seconds:

    {"op": "load", "folder", "device", "threads"} -> {"seconds"}
    {"op": "warm", EDIT} -> {}: one evaluation, which is not timed
    {"op": "edit", EDIT}
        -> {"seconds": {"moments", "value"}, "losses": [of each evaluation], "u": [F], "r": [D]}
    {"op": "peak"} -> {"bytes"}

EDIT is "prompt", "subject", "target", "templates" (with {}), "moment" (the reference's npz), "layer", "steps", "rate",
"decay", "clamp", "kl", "low_enough". The weights are as they were afterwards.

Letters: R rows of templates, T tokens of the longest row, K tokens of the object, F width of the MLP, D of the model.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import torch
from transformers import GPT2Tokenizer

from benchmark_transformers import Tracer, serve


@dataclass(frozen=True)
class Rows:
    """The texts of an edit as one padded batch: R rows with the object behind, then the subject alone."""

    token_ids: torch.Tensor
    """[R + 1, T]."""
    mask: torch.Tensor
    """[R + 1, T], 1 where there is a token."""
    facts: torch.Tensor
    """[R + 1], the subject's last token."""
    target_ids: torch.Tensor
    """[K]."""
    said_at: torch.Tensor
    """[R, K], positions whose logits say the object."""


def make_rows(tokenizer: GPT2Tokenizer, request: dict[str, Any]) -> Rows:
    """Tokenises the texts of a request."""
    prompt, subject = request["prompt"], request["subject"]
    target = tokenizer.encode(request["target"])
    texts = [template.replace("{}", prompt) for template in request["templates"]]
    ends = [text.rindex(prompt) + prompt.index(subject) + len(subject) for text in texts]
    rows = [tokenizer.encode(text) for text in texts]
    said_at = torch.tensor([range(len(row) - 1, len(row) - 1 + len(target)) for row in rows])
    rows = [row + target[:-1] for row in rows] + [tokenizer.encode(f"{subject} is a")]
    # What ends with the subject has its tokens, as a space follows.
    facts = [len(tokenizer.encode(text[:end])) - 1 for text, end in zip(texts, ends, strict=True)]
    facts.append(len(tokenizer.encode(subject)) - 1)
    longest = max(map(len, rows))
    padding = tokenizer.eos_token_id or 0
    return Rows(
        token_ids=torch.tensor([row + [padding] * (longest - len(row)) for row in rows]),
        mask=torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        facts=torch.tensor(facts),
        target_ids=torch.tensor(target),
        said_at=said_at,
    )


class Stages:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds = {"moments": 0.0, "value": 0.0}

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds what the block takes to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start


class Seen:
    """What the matrix reads and gives at the facts, once."""

    keys: torch.Tensor | None = None
    """[R + 1, F]."""
    values: torch.Tensor | None = None
    """[R + 1, D]."""


class Editor(Tracer):
    """Edits over one model, which is None until "load"."""

    tokenizer: GPT2Tokenizer | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what `request` asks for."""
        return {"load": self.load, "warm": self.warm, "edit": self.edit, "peak": self.peak}[request["op"]](request)

    def load(self, request: dict[str, Any]) -> dict[str, float]:
        """Loads the weights, of which none needs a gradient, and the tokeniser."""
        folder = Path(request["folder"])
        loaded = super().load(request)
        self.model.requires_grad_(False)
        self.tokenizer = GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
        return loaded

    def warm(self, request: dict[str, Any]) -> dict[str, Any]:
        """Brings the weights into memory."""
        self.find_value(make_rows(self.tokenizer, request), request | {"steps": 1}, Seen())
        return {}

    def edit(self, request: dict[str, Any]) -> dict[str, Any]:
        """One edit, which is undone afterwards."""
        stages, seen = Stages(), Seen()
        rows = make_rows(self.tokenizer, request)
        weight = self.model.transformer.h[request["layer"]].mlp.c_proj.weight  # [F, D]
        original = weight.clone()
        with stages.timed("moments"):
            factor = read_factor(request["moment"])
        with stages.timed("value"):
            delta, losses = self.find_value(rows, request, seen)
            direction = torch.cholesky_solve(seen.keys[:-1].double().mean(0)[:, None], factor)[:, 0]
            direction /= direction.norm()
            residual = delta.double() / seen.keys[0].double().dot(direction)
            weight.addr_(direction.float(), residual.float())
        weight.copy_(original)
        return {"seconds": stages.seconds, "losses": losses, "u": direction.tolist(), "r": residual.tolist()}

    def find_value(self, rows: Rows, request: dict[str, Any], seen: Seen) -> tuple[torch.Tensor, list[float]]:
        """delta [D] after the last step, and the loss of each evaluation; fills `seen`."""
        matrix = self.model.transformer.h[request["layer"]].mlp.c_proj
        every = torch.arange(len(rows.facts))
        delta = torch.zeros(matrix.weight.shape[1], requires_grad=True)
        adam = torch.optim.Adam([delta], lr=request["rate"])
        losses: list[float] = []
        start: torch.Tensor | None = None

        def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            if seen.keys is None:
                seen.keys, seen.values = inputs[0][every, rows.facts], output[every, rows.facts]
            added = torch.zeros_like(output)
            added[every, rows.facts] = delta
            return output + added

        with matrix.register_forward_hook(hook):
            while True:
                logits = self.model(rows.token_ids, attention_mask=rows.mask, use_cache=False).logits
                said = torch.log_softmax(logits[every[:-1, None], rows.said_at], dim=-1)  # [R, K, V]
                nll = -said[:, torch.arange(len(rows.target_ids)), rows.target_ids].mean()
                now = torch.log_softmax(logits[-1, rows.facts[-1]], dim=-1)
                start = now.detach() if start is None else start
                size = seen.values[0].norm()
                kl = request["kl"] * (now.exp() * (now - start)).sum()
                loss = nll + kl + request["decay"] * delta.norm() / size**2
                losses.append(loss.item())
                if losses[-1] < request["low_enough"] or len(losses) == request["steps"]:
                    return delta.detach(), losses
                adam.zero_grad()
                loss.backward()
                adam.step()
                with torch.no_grad():
                    delta *= min(1.0, (request["clamp"] * size / delta.norm()).item())


def read_factor(path: str) -> torch.Tensor:
    """The Cholesky factor of C, the mean of k k^T, float64."""
    with np.load(path) as stored:
        moment = torch.from_numpy(stored["mom2.mom2"]).double() / int(stored["mom2.count"])
    return torch.linalg.cholesky(moment)


if __name__ == "__main__":
    sys.exit(serve(Editor()))
