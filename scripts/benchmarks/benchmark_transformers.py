#!/usr/bin/env python3
"""Causal tracing over Hugging Face transformers, written twice and timed: the Python side of scripts/benchmarks/benchmark.py.

"cells" is the reference's procedure (experiments/causal_trace.py of the paper's authors): for each cell of the grid one
run of the whole model on N + 1 rows, row 0 clean, with hooks that corrupt the embeddings and put row 0's output back.

"layers" is the best that a careful user writes over transformers: one run of N + 1 rows keeps the states after every
layer; then, for each layer l, all positions from the subject's first on are restored in one batch, which goes through
the blocks after l only, and through the head at the last position only. Of MLPs or attention it goes through those from
the window's first layer on.

The program answers requests, one JSON object a line on stdin, with one a line on stdout. Times are in seconds, scores
are probabilities, "bytes" is the peak of the process so far:

    {"op": "load", "folder", "device", "threads", "dtype" (float32), "tf32" (false)} -> {"seconds"}
    {"op": "cells", PROMPT, "kinds", "cells": [[t, l], ...]}
        -> {"seconds": {kind: [of each cell]}, "scores": {kind: [of each cell]}, "high_score", "low_score"}
    {"op": "layers", PROMPT, "layers": [l, ...], "kind" (state), "answer" (what the clean run says)}
        -> {"base_seconds", "seconds": [of each layer], "scores": [of each layer: [T - b]], "high_score", "low_score"}
    {"op": "peak"} -> {"bytes"}, on a GPU also {"device_bytes"}

PROMPT is "token_ids", "subject_range": [b, e], "window", "samples", "seed", "sigma". What fails gives {"error"}.

Letters: N noise draws, T tokens, L layers, D width, V vocabulary.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence, TypeVar

import torch
from transformers import DynamicCache, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/judge"))

from reference_tracer import Hook, TraceOptions, draw_noise, window_of  # noqa: E402

Result = TypeVar("Result")


@dataclass(frozen=True)
class Prompt:
    """What a request traces."""

    token_ids: list[int]
    begin: int
    """The subject's first token."""
    end: int
    """The token after the subject's last."""
    options: TraceOptions


def read_prompt(request: dict[str, Any]) -> Prompt:
    """The fields that "cells" and "layers" share."""
    options = TraceOptions(**{name: request[name] for name in ("window", "samples", "seed", "sigma")})
    return Prompt(request["token_ids"], *request["subject_range"], options)


def corrupt(prompt: Prompt) -> Hook:
    """Hook on wte: noise on the subject's embeddings in rows 1..N; row 0 stays clean. Rounded once, from double."""
    begin, end = prompt.begin, prompt.end

    def hook(module: torch.nn.Module, inputs: Any, embeddings: torch.Tensor) -> torch.Tensor:
        noise = torch.from_numpy(draw_noise(prompt.options, end - begin, embeddings.shape[-1])).to(embeddings.device)
        result = embeddings.clone()
        result[1:, begin:end] = (embeddings[1:, begin:end].double() + noise).to(embeddings.dtype)
        return result

    return hook


def restore(position: int) -> Hook:
    """Hook on a block or sub-layer: at `position`, rows 1..N get the clean row's output."""

    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output  # attention gives (output, weights)
        restored = hidden.clone()
        restored[1:, position] = hidden[0, position]
        return (restored, *output[1:]) if isinstance(output, tuple) else restored

    return hook


def restored_modules(model: GPT2LMHeadModel, layer: int, kind: str, window: int) -> list[torch.nn.Module]:
    """The modules whose output is put back for the cell at `layer`."""
    blocks = model.transformer.h
    if kind == "state":
        return [blocks[layer]]
    return [getattr(blocks[at], kind) for at in window_of(layer, window, len(blocks))]


def keep(states: list[torch.Tensor]) -> Hook:
    """Hook on a block or sub-layer: appends its output to `states`."""

    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    return hook


def put_back(values: torch.Tensor, clean: torch.Tensor) -> None:
    """Writes clean values [P, D] into runs [P, N, P, D]: those of position p into the runs that restore p."""
    for row in range(len(clean)):
        values[row, :, row] = clean[row]


def put_back_rows(clean: torch.Tensor) -> Hook:
    """Hook on a sub-layer of rows [P N, P, D]: the same on its output."""

    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        values = (output[0] if isinstance(output, tuple) else output).clone()
        put_back(values.unflatten(0, (len(clean), -1)), clean)
        return (values, *output[1:]) if isinstance(output, tuple) else values

    return hook


def high_and_low(probabilities: torch.Tensor, answer: int) -> dict[str, float]:
    """Scores of a run without restoration, from its probabilities [N + 1, V]."""
    return {
        "high_score": probabilities[0, answer].item(),
        "low_score": probabilities[1:, answer].double().mean().item(),
    }


class Prefix:
    """The clean run's keys and values of positions before b, put in front of each batch's own, as a cache does."""

    def __init__(self, cache: DynamicCache, begin: int) -> None:
        self.layers = [(layer.keys[:1, :, :begin], layer.values[:1, :, :begin]) for layer in cache.layers]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [rows, H, b + positions, D / H] that a block of this layer attends to. What else a version of
        transformers passes to its caches is for other kinds of them."""
        before_keys, before_values = (rows.expand(len(keys), -1, -1, -1) for rows in self.layers[layer])
        return torch.cat([before_keys, keys], dim=2), torch.cat([before_values, values], dim=2)


class Tracer:
    """The two programs over one model, which is None until "load"."""

    model: GPT2LMHeadModel | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what `request` asks for."""
        operations = {"load": self.load, "cells": self.cells, "layers": self.layers, "peak": self.peak}
        return operations[request["op"]](request)

    def load(self, request: dict[str, Any]) -> dict[str, float]:
        """Loads float32 weights as from_pretrained does; on CPU it maps them from the file."""
        torch.set_num_threads(request["threads"])
        torch.set_float32_matmul_precision("high" if request.get("tf32") else "highest")
        dtype = getattr(torch, request.get("dtype", "float32"))
        start = time.perf_counter()
        model = GPT2LMHeadModel.from_pretrained(request["folder"], dtype=dtype, attn_implementation="sdpa")
        self.model = model.to(request["device"]).eval()
        self.synchronise()
        return {"seconds": time.perf_counter() - start}

    def peak(self, request: dict[str, Any]) -> dict[str, int]:
        """Peak resident memory of this process, and the most that its tensors took on the GPU."""
        peak = {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        if torch.cuda.is_initialized():
            peak["device_bytes"] = torch.cuda.max_memory_allocated()
        return peak

    def synchronise(self) -> None:
        """Waits until the GPU, if it is one, has done its work."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(self, action: Callable[[], Result]) -> tuple[float, Result]:
        """Seconds that `action` takes, and what it gives."""
        self.synchronise()
        start = time.perf_counter()
        result = action()
        self.synchronise()
        return time.perf_counter() - start, result

    def run(
        self, prompt: Prompt, hooks: Sequence[tuple[torch.nn.Module, Hook]], cache: DynamicCache | None = None
    ) -> torch.Tensor:
        """Next-token probabilities [N + 1, V] of the clean row and N corrupted ones, with the hooks in place. With a
        cache, which it fills, the head sees the last position only."""
        with ExitStack() as installed:
            for module, hook in [(self.model.transformer.wte, corrupt(prompt)), *hooks]:
                installed.enter_context(module.register_forward_hook(hook))
            batch = torch.tensor([prompt.token_ids] * (prompt.options.samples + 1), device=self.model.device)
            # The cache goes by its place: its name differs among versions of transformers.
            options = {"use_cache": False} if cache is None else {"use_cache": True, "logits_to_keep": 1}
            logits = self.model(batch, cache, **options).logits
        return torch.softmax(logits[:, -1].float(), dim=-1)

    @torch.inference_mode()
    def cells(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reference's procedure; the run that finds the answer is not timed."""
        prompt = read_prompt(request)
        base = self.run(prompt, [])
        answer = int(base[0].argmax())
        seconds: dict[str, list[float]] = {}
        scores: dict[str, list[float]] = {}
        for kind in request["kinds"]:
            timed = [self.timed(lambda: self.cell(prompt, answer, kind, *cell)) for cell in request["cells"]]
            seconds[kind] = [spent for spent, _ in timed]
            scores[kind] = [score for _, score in timed]
        return {"seconds": seconds, "scores": scores, **high_and_low(base, answer)}

    def cell(self, prompt: Prompt, answer: int, kind: str, position: int, layer: int) -> float:
        """The score of one cell, by a run of the whole model."""
        modules = restored_modules(self.model, layer, kind, prompt.options.window)
        probabilities = self.run(prompt, [(module, restore(position)) for module in modules])
        return probabilities[1:, answer].double().mean().item()

    @torch.inference_mode()
    def layers(self, request: dict[str, Any]) -> dict[str, Any]:
        """The careful loop."""
        prompt = read_prompt(request)
        kind = request.get("kind", "state")
        states: list[torch.Tensor] = []  # that enter each layer, and the last one's output
        outputs: list[torch.Tensor] = []  # of the MLPs or attentions
        blocks = self.model.transformer.h
        hooks = [(self.model.transformer.drop, keep(states)), *((block, keep(states)) for block in blocks)]
        if kind != "state":
            hooks += [(getattr(block, kind), keep(outputs)) for block in blocks]
        cache = DynamicCache(config=self.model.config)
        base_seconds, base = self.timed(lambda: self.run(prompt, hooks, cache))
        answer = request.get("answer", int(base[0].argmax()))
        prefix = Prefix(cache, prompt.begin)

        def one(layer: int) -> list[float]:
            if kind == "state":
                return self.layer(prompt, answer, states[layer + 1], prefix, layer)
            return self.window(prompt, answer, kind, states, outputs, prefix, layer)

        timed = [self.timed(lambda: one(layer)) for layer in request["layers"]]
        return {
            "base_seconds": base_seconds,
            "seconds": [spent for spent, _ in timed],
            "scores": [scores for _, scores in timed],
            **high_and_low(base, answer),
        }

    def layer(
        self, prompt: Prompt, answer: int, states: torch.Tensor, prefix: Prefix, layer: int
    ) -> list[float]:
        """Scores [T - b] of the cells of one layer, of its outputs `states` [N + 1, T, D], by one batch of (T - b) N rows
        through the blocks after it.

        The rows hold positions b on; those before are the clean run's, whose keys and values are at hand.
        """
        length = len(prompt.token_ids) - prompt.begin
        hidden = states[1:, prompt.begin :].repeat(length, 1, 1, 1)  # [T - b, N, T - b, D]
        put_back(hidden, states[0, prompt.begin :])
        return self.scores(prompt, answer, hidden.flatten(0, 1), prefix, layer + 1)

    def window(
        self,
        prompt: Prompt,
        answer: int,
        kind: str,
        states: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        prefix: Prefix,
        layer: int,
    ) -> list[float]:
        """Likewise of the MLPs' or attentions' `outputs` in the window around a layer, from the `states` that enter the
        window's first."""
        begin, length = prompt.begin, len(prompt.token_ids) - prompt.begin
        blocks = self.model.transformer.h
        layers = window_of(layer, prompt.options.window, len(blocks))
        hidden = states[layers[0]][1:, begin:].repeat(length, 1, 1, 1).flatten(0, 1)
        with ExitStack() as installed:
            for at in layers:
                hook = put_back_rows(outputs[at][0, begin:])
                installed.enter_context(getattr(blocks[at], kind).register_forward_hook(hook))
            return self.scores(prompt, answer, hidden, prefix, layers[0])

    def scores(
        self, prompt: Prompt, answer: int, hidden: torch.Tensor, prefix: Prefix, first: int
    ) -> list[float]:
        """Scores [T - b] of rows [(T - b) N, T - b, D] that enter layer `first`."""
        begin, length = prompt.begin, len(prompt.token_ids) - prompt.begin
        seen = torch.ones(length, begin + length, dtype=torch.bool, device=hidden.device).tril(begin)[None, None]
        for block in self.model.transformer.h[first:]:
            hidden = block(hidden, prefix, seen)
        logits = self.model.lm_head(self.model.transformer.ln_f(hidden[:, -1]))
        answers = torch.softmax(logits.float(), dim=-1)[:, answer]
        return answers.unflatten(0, (length, -1)).double().mean(dim=1).tolist()


def serve(tracer: Tracer) -> int:
    """Answers the requests on stdin; gives the exit status."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not come among the answers
    for line in sys.stdin:
        try:
            answer = tracer.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(serve(Tracer()))
