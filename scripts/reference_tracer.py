#!/usr/bin/env python3
"""A plain causal tracer over Hugging Face transformers: the judge of rometrace's numbers.

It shares no code with rometrace and is written to be read beside the paper (arXiv 2202.05262, section 2): one run of
the whole model for every cell of the grid, with forward hooks that corrupt the subject's embeddings and put one clean
state back. Nothing is batched over cells, nothing is cached.

Letters: N noise draws, T tokens, L layers, D width, V vocabulary.

As a program it prints the trace as one JSON object of schema "rometrace/trace/1":

    scripts/reference_tracer.py --model FOLDER --prompt "Miles Davis plays the" --subject "Miles Davis" --noise 0.3
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
import tokenizers
import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

transformers.logging.set_verbosity_error()  # old checkpoints hold buffers that transformers reports and ignores
transformers.logging.disable_progress_bar()

KINDS = ("state", "mlp", "attn")
REPOSITORY = Path(__file__).resolve().parents[1]
Hook = Callable[[torch.nn.Module, Any, Any], Any]


@dataclass(frozen=True)
class TraceOptions:
    """How to trace one prompt; the defaults are the paper's."""

    kind: str = "state"
    """What is restored: "state" (block output), "mlp" or "attn" (sub-layer output)."""
    window: int = 10
    """Layers, for "mlp" and "attn"; "state" always restores one."""
    samples: int = 10
    """N, noise draws."""
    seed: int = 1
    """Of numpy.random.RandomState, made anew for every run."""
    distribution: str = "gaussian"
    """"gaussian" or "uniform"."""
    sigma: float = 0.1
    """Gaussian: the standard deviation. Uniform: the half-width."""
    replace: bool = False
    """Noise in place of the token embedding instead of added to it."""
    target: int | None = None
    """Follow this token instead of the most probable one."""


# --- The model and its text -------------------------------------------------------------------------------------


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    """The GPT-2 in `folder`, weights converted to `dtype`, in evaluation mode.

    reorder_and_upcast_attn is switched off: it asks for float32 attention inside half-precision models, so it changes
    nothing in a float32 model, and in a float64 model it would throw precision away.
    """
    config = GPT2Config.from_pretrained(folder)
    config.reorder_and_upcast_attn = False
    model = GPT2LMHeadModel.from_pretrained(folder, config=config, dtype=dtype, attn_implementation="eager")
    return model.eval()


def load_tokenizer(folder: Path) -> Any:
    """The byte-level BPE of `folder` (vocab.json + merges.txt, else tokenizer.json), special tokens read as text."""
    if (folder / "vocab.json").exists():
        return tokenizers.ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte -> that byte: itself where it is printable Latin-1, else U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def token_bytes(tokenizer: Any, token_id: int) -> bytes:
    """The bytes that one token stands for inside a text."""
    alphabet = byte_alphabet()
    return bytes(alphabet[character] for character in tokenizer.id_to_token(token_id))


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`; checked to give the text back, so that byte positions can be trusted."""
    token_ids = tokenizer.encode(text, add_special_tokens=False).ids
    decoded = b"".join(token_bytes(tokenizer, token_id) for token_id in token_ids)
    if decoded != text.encode():
        raise ValueError(f"the tokenizer loses text: {text!r} comes back as {decoded!r}")
    return token_ids


def find_subject(pieces: Sequence[bytes], prompt: str, subject: str) -> tuple[int, int]:
    """Tokens [b, e) that share a byte with the first occurrence of `subject`; `pieces` are the tokens' bytes."""
    first = prompt.encode().find(subject.encode()) if subject else -1
    if first < 0:
        raise ValueError(f"subject {subject!r} is not in the prompt {prompt!r}")
    last = first + len(subject.encode())
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    overlapping = [t for t in range(len(pieces)) if starts[t] < last and ends[t] > first]
    return overlapping[0], overlapping[-1] + 1


def sigma_of_subjects(model: GPT2LMHeadModel, tokenizer: Any, subjects: Sequence[str], factor: float) -> float:
    """`factor` times the standard deviation (unbiased, float32) of all subjects' token embeddings, repeats included."""
    weights = model.transformer.wte.weight.detach().float()
    embeddings = [weights[encode(tokenizer, subject)].flatten() for subject in subjects]
    return factor * torch.cat(embeddings).std().item()


# --- One run ----------------------------------------------------------------------------------------------------


def draw_noise(options: TraceOptions, tokens: int, width: int) -> np.ndarray:
    """Float64 [N, tokens, D] from the generator made anew, so that every run sees the same noise."""
    generator = np.random.RandomState(options.seed)
    shape = (options.samples, tokens, width)
    if options.distribution == "gaussian":
        return generator.randn(*shape) * options.sigma
    if options.distribution == "uniform":
        return generator.uniform(-1, 1, shape) * options.sigma
    raise ValueError(f'distribution is {options.distribution!r}, expected "gaussian" or "uniform"')


def corrupt(subject_range: tuple[int, int], options: TraceOptions) -> Hook:
    """Hook on wte: noise on the subject's embeddings in rows 1..N; row 0 stays clean. Rounded once, from double."""
    begin, end = subject_range

    def hook(module: torch.nn.Module, inputs: Any, embeddings: torch.Tensor) -> torch.Tensor:
        noise = torch.from_numpy(draw_noise(options, end - begin, embeddings.shape[-1]))
        clean = embeddings[1:, begin:end].double()
        result = embeddings.clone()
        result[1:, begin:end] = (noise if options.replace else clean + noise).to(embeddings.dtype)
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


def window_of(layer: int, window: int, layers: int) -> range:
    """The layers restored for the cell at `layer`: max(0, l - w/2) up to but not including min(L, l + ceil(w/2))."""
    return range(max(0, layer - window // 2), min(layers, layer - (-window // 2)))


def restored_modules(model: GPT2LMHeadModel, layer: int, options: TraceOptions) -> list[torch.nn.Module]:
    """The modules whose output is put back for the cell at `layer`."""
    blocks = model.transformer.h
    if options.kind == "state":
        return [blocks[layer]]
    if options.kind in ("mlp", "attn"):
        return [getattr(blocks[at], options.kind) for at in window_of(layer, options.window, len(blocks))]
    raise ValueError(f"kind is {options.kind!r}, expected one of {', '.join(KINDS)}")


def run(
    model: GPT2LMHeadModel, token_ids: Sequence[int], rows: int, hooks: Sequence[tuple[torch.nn.Module, Hook]]
) -> torch.Tensor:
    """Next-token probabilities after the last token, float64 [rows, V], with the hooks in place."""
    with torch.no_grad(), ExitStack() as installed:
        for module, hook in hooks:
            installed.enter_context(module.register_forward_hook(hook))
        batch = torch.tensor([list(token_ids)] * rows)
        logits = model(batch, use_cache=False).logits[:, -1]
    return torch.softmax(logits.double(), dim=-1)


def clean_logits(model: GPT2LMHeadModel, token_ids: Sequence[int]) -> torch.Tensor:
    """Logits of the clean run at every position, [T, V]."""
    with torch.no_grad():
        return model(torch.tensor([list(token_ids)]), use_cache=False).logits[0]


# --- The trace --------------------------------------------------------------------------------------------------


def mean_and_error(probabilities: torch.Tensor) -> tuple[float, float]:
    """Mean of [N] probabilities and its standard error, std(ddof=1) / sqrt(N); NaN for a single draw."""
    values = probabilities.numpy()
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)


def trace(
    model: GPT2LMHeadModel, token_ids: Sequence[int], subject_range: tuple[int, int], options: TraceOptions
) -> dict[str, Any]:
    """Traces one prompt: the scores of the clean and the corrupted run, and of every cell, "scores" [T][L].

    Probabilities are of the answer, means over draws; "standard_error" [T][L] and "low_standard_error" are of those
    means, NaN for a single draw. low_score is measured with the same corruption as the cells, `replace` included.
    """
    clean = run(model, token_ids, 1, [])[0]
    prediction = int(clean.argmax())
    answer = prediction if options.target is None else options.target
    corruption = (model.transformer.wte, corrupt(subject_range, options))
    rows = options.samples + 1

    def score(hooks: Sequence[tuple[torch.nn.Module, Hook]]) -> tuple[float, float]:
        return mean_and_error(run(model, token_ids, rows, [corruption, *hooks])[1:, answer])

    low_score, low_standard_error = score([])
    layers = len(model.transformer.h)
    cells = [
        [
            score([(module, restore(position)) for module in restored_modules(model, layer, options)])
            for layer in range(layers)
        ]
        for position in range(len(token_ids))
    ]
    return {
        "answer_id": answer,
        "prediction_id": prediction,
        "prediction_score": clean[prediction].item(),
        "high_score": clean[answer].item(),
        "low_score": low_score,
        "low_standard_error": low_standard_error,
        "scores": [[mean for mean, _ in row] for row in cells],
        "standard_error": [[error for _, error in row] for row in cells],
    }


# --- The program ------------------------------------------------------------------------------------------------


def read_noise(rule: str) -> tuple[str, float, bool]:
    """`--noise` text -> (distribution, scale, whether scale is a factor of the subjects' standard deviation)."""
    match = re.fullmatch(r"(s|u?)(\d*\.?\d*(?:e-?\d+)?)", rule)
    if not match or rule in ("", "u"):
        raise ValueError(f'noise is {rule!r}, expected a number, "s", "s3" or "u0.5"')
    letter, number = match.groups()
    return ("uniform" if letter == "u" else "gaussian"), float(number or 1), letter == "s"


def read_subjects(facts_json: Path) -> list[str]:
    """The subjects of a facts file, in order, with repeats: a list of records, or an object with "facts"."""
    facts = json.loads(facts_json.read_text(encoding="utf-8"))
    return [fact["subject"] for fact in (facts["facts"] if isinstance(facts, dict) else facts)]


def nulls_for_nan(value: Any) -> Any:
    """`value` with NaN replaced by None, at any depth: JSON has no NaN."""
    if isinstance(value, list):
        return [nulls_for_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def weights_sha256(folder: Path) -> str:
    """One weight file: its SHA-256. Several: the SHA-256 of what `sha256sum` prints for them, in order of name."""
    files = sorted(folder.glob("*.safetensors"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    if len(digests) == 1:
        return digests[0]
    listing = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, files))
    return hashlib.sha256(listing.encode()).hexdigest()


def model_record(model: GPT2LMHeadModel, folder: Path) -> dict[str, Any]:
    """The "model" object of the result."""
    config = model.config
    return {
        "name": folder.name,
        "architecture": "GPT2LMHeadModel",
        "layers": config.n_layer,
        "width": config.n_embd,
        "heads": config.n_head,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": weights_sha256(folder),
    }


def grid_record(traced: dict[str, Any], options: TraceOptions) -> dict[str, Any]:
    """One kind's object under "grids"."""
    return {
        "window": 1 if options.kind == "state" else options.window,
        "scores": traced["scores"],
        "indirect_effect": [[score - traced["low_score"] for score in row] for row in traced["scores"]],
        "standard_error": nulls_for_nan(traced["standard_error"]),
    }


def read_target(tokenizer: Any, text: str) -> int:
    """The one token that `text` is."""
    token_ids = encode(tokenizer, text)
    if len(token_ids) != 1:
        raise ValueError(f"target {text!r} is {len(token_ids)} tokens, expected one (mind the leading space)")
    return token_ids[0]


def trace_record(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs what the command line asks for and gives the whole result."""
    folder: Path = arguments.model
    model = load_model(folder, getattr(torch, arguments.dtype))
    tokenizer = load_tokenizer(folder)
    distribution, sigma, of_subjects = read_noise(arguments.noise)
    if of_subjects:
        sigma = sigma_of_subjects(model, tokenizer, read_subjects(arguments.noise_facts), sigma)
    token_ids = encode(tokenizer, arguments.prompt)
    pieces = [token_bytes(tokenizer, token_id) for token_id in token_ids]
    subject_range = find_subject(pieces, arguments.prompt, arguments.subject)
    options = TraceOptions(
        window=arguments.window,
        samples=arguments.samples,
        seed=arguments.seed,
        distribution=distribution,
        sigma=sigma,
        replace=arguments.replace,
        target=read_target(tokenizer, arguments.target) if arguments.target else None,
    )
    start = time.perf_counter()
    traces = {
        kind: trace(model, token_ids, subject_range, replace(options, kind=kind))
        for kind in arguments.kinds.split(",")
    }
    seconds = time.perf_counter() - start
    first = next(iter(traces.values()))
    answer = token_bytes(tokenizer, first["answer_id"])
    prediction = token_bytes(tokenizer, first["prediction_id"])
    return {
        "schema": "rometrace/trace/1",
        "rometrace": "0.1.0",
        "status": "traced",
        "model": model_record(model, folder),
        "run": {
            "device": "cpu",
            "dtype": arguments.dtype,
            "threads": torch.get_num_threads(),
            "engine": "transformers",
            "seed": options.seed,
            "samples": options.samples,
            "noise": {"rule": arguments.noise, "sigma": sigma, "replace": options.replace},
            "seconds": seconds,
        },
        "prompt": arguments.prompt,
        "subject": arguments.subject,
        "tokens": [piece.decode(errors="replace") for piece in pieces],
        "token_bytes": [piece.hex() for piece in pieces],
        "token_ids": token_ids,
        "subject_range": list(subject_range),
        "answer": answer.decode(errors="replace"),
        "answer_bytes": answer.hex(),
        "answer_id": first["answer_id"],
        "prediction": prediction.decode(errors="replace"),
        "prediction_bytes": prediction.hex(),
        "prediction_id": first["prediction_id"],
        "prediction_score": first["prediction_score"],
        "high_score": first["high_score"],
        "low_score": first["low_score"],
        "low_standard_error": nulls_for_nan(first["low_standard_error"]),
        "total_effect": first["high_score"] - first["low_score"],
        "grids": {kind: grid_record(traced, replace(options, kind=kind)) for kind, traced in traces.items()},
    }


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line: rometrace's own options, as far as a judge needs them."""
    parser = argparse.ArgumentParser(description="Traces one prompt with transformers, plainly and slowly.")
    parser.add_argument("--model", type=Path, required=True, help="folder with config.json, weights and tokenizer")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--subject", required=True)
    parser.add_argument("--kinds", default="state,mlp,attn", help="comma-separated (default: %(default)s)")
    parser.add_argument("--window", type=int, default=10, help="layers, for mlp and attn (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=10, help="noise draws (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--noise", default="s3", help='a number, "s", "s3" or "u0.5" (default: %(default)s)')
    parser.add_argument("--noise-facts", type=Path, default=REPOSITORY / "share/rometrace/facts.json")
    parser.add_argument("--replace", action="store_true", help="noise in place of the embedding")
    parser.add_argument("--target", help="follow this token instead of the most probable one")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    return parser.parse_args(arguments)


def main() -> int:
    try:
        record = trace_record(parse_arguments())
    except (OSError, ValueError, KeyError) as error:
        print(f"reference_tracer.py: {error}", file=sys.stderr)
        return 2
    print(json.dumps(record, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
