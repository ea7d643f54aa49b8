#!/usr/bin/env python3
"""Makes the goldens: tiny random checkpoints of all families, and what transformers makes of them in float64.

    tests/judge/make_goldens.py                  writes tests/goldens/models/<case>/{config.json, weights, golden.json}
                                             and tests/goldens/methods.json
    tests/judge/make_goldens.py --only CASE ...  writes some of the cases only
    tests/judge/make_goldens.py --methods        writes tests/goldens/methods.json only, from the models in the tree
    tests/judge/make_goldens.py --demo           writes tests/goldens/demo.json for the model in share/rometrace/demo

Weights come from numpy.random.RandomState, whose streams are frozen, so every run writes the same weights. They are
drawn wider than GPT-2's own start, so that probabilities are far from uniform and a corrupted subject shows. Results
are computed in float64 from the weights as stored: they are the truth far below float32's rounding.

golden.json: {"made_by", "about", "versions", "dtype", "logits": [{"token_ids" [T], "logits" [T][V]}],
"traces": [{"token_ids" [T], "subject_range" [b, e), the options of the trace, and its results}]}; null stands for the
standard error of a single draw.

methods.json holds traces with all kinds, corruptions, answers and measures: {"made_by", "versions", "dtype",
"traces": [{"about", "model", "token_ids" [T], "subject_range" [b, e), "options", "results"}]}, where "model" is a case.

"options" are those of reference_tracer.TraceOptions by name: "kinds" [..], "window", "head_window", "knockout_window",
"positions" [P] or null (all), "direction", "samples", "seed", "method", "distribution", "sigma" or null,
"degrees_of_freedom" or null, "replace", "text_ids" [..] or null (the text of mean, multivariate and student),
"counter_ids" [T] or null, "answer_ids" [K] or null (the prediction), "other_targets" [..], "foil" or null,
"precision" or null, "most_samples"; and "measures" [..].

"results" are {"answer_ids" [K], "prediction_id", "prediction_score", "samples" (draws used), "largest_error" (of all
standard errors of the probability, null for a single draw), "positions" [P], "high_score", "low_score",
"low_standard_error", "grids": {KIND: {"scores", "standard_error"}}, "knockout": {GROUP: {"positions", "scores" [L],
"relative_change" [L]}}, "measures": {NAME: {"high", "low", "low_standard_error", "grids": {KIND: {"values",
"standard_error"}}}}, "other_targets": [{"target_ids" [1], "high_score", "low_score", "low_standard_error", "grids":
{KIND: {"scores", "standard_error"}}}]}. Grids are [P][L], those of the kind head [P][L][H]. "knockout" is there if its
kind is asked for; the measure "normalised" has also "of", the measure that it is made of, and null for its errors.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Iterable

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from golden_cases import FIRST, LAST, MIDDLE, ONE, ONLY, WHOLE, Case, Prompt, Spec, Tensors, config_json
from golden_families import BASES, FAMILY_CASES, LONG, LONG_LAST, make_family_weights, public_names
from reference_tracer import (
    GRID_KINDS,
    KINDS,
    MEASURES,
    REPOSITORY,
    TraceOptions,
    clean_logits,
    config_of,
    embeddings_of,
    encode,
    find_subject,
    load_model,
    load_tokenizer,
    measure_records,
    nulls_for_nan,
    read_subjects,
    sigma_of_subjects,
    target_records,
    token_bytes,
    trace,
    weights_sha256,
)


# --- The cases of GPT-2 -----------------------------------------------------------------------------------------

BASE_CONFIG = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "n_embd": 16,
    "n_head": 2,
    "n_inner": None,
    "n_layer": 3,
    "n_positions": 16,
    "vocab_size": 53,
}

ACTIVATIONS = "gelu_new gelu gelu_fast gelu_pytorch_tanh quick_gelu relu silu swish tanh sigmoid".split()


def with_old_buffers(tensors: Tensors) -> Tensors:
    """Adds what old versions of transformers saved: causal masks, the masking value, and the tied head once more."""
    positions = tensors["transformer.wpe.weight"].shape[0]
    result = dict(tensors)
    for layer in range(count_layers(tensors)):
        mask = torch.ones(positions, positions, dtype=torch.uint8).tril()
        result[f"transformer.h.{layer}.attn.bias"] = mask.view(1, 1, positions, positions)
        result[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    result["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    return result


def without_prefix(tensors: Tensors) -> Tensors:
    """GPT2Model's names, as the first GPT-2 checkpoints have them, with their float32 causal masks."""
    result = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    positions = tensors["transformer.wpe.weight"].shape[0]
    for layer in range(count_layers(tensors)):
        result[f"h.{layer}.attn.bias"] = torch.ones(1, 1, positions, positions).tril()
    return result


def with_head_only(tensors: Tensors) -> Tensors:
    """The tied weights under the head's name alone, as tools that drop duplicates leave them."""
    result = dict(tensors)
    result["lm_head.weight"] = result.pop("transformer.wte.weight")
    return result


def with_other_head(tensors: Tensors) -> Tensors:
    """A head that differs from wte, though the config says that they are tied."""
    wte = tensors["transformer.wte.weight"]
    return tensors | {"lm_head.weight": wte.flip(0).contiguous()}


def count_layers(tensors: Tensors) -> int:
    return sum(name.endswith("ln_1.weight") for name in tensors)


CASES = (
    Case(
        "one_head",
        "a single attention head",
        {"n_head": 1},
        traces=(
            Spec("state", FIRST),
            Spec("mlp", MIDDLE, window=1, seed=2),
            Spec("attn", LAST, window=3, samples=1),
            Spec("state", ONE, distribution="uniform", replace=True),
        ),
    ),
    Case(
        "odd_width",
        "width 36 over 3 heads of 12: neither is a power of two",
        {"n_embd": 36, "n_head": 3, "vocab_size": 97},
        traces=(
            Spec("state", MIDDLE, seed=7),
            Spec("mlp", FIRST, window=3),
            Spec("attn", MIDDLE, window=1),
            Spec("attn", ONE, replace=True),
            Spec("mlp", LAST, window=3, distribution="uniform", noise=5),
            Spec("state", MIDDLE, target=True),
        ),
    ),
    Case(
        "one_layer",
        "one layer; prompts of one token and all subject",
        {"n_embd": 24, "n_head": 4, "n_layer": 1},
        prompts=(ONLY, FIRST),
        traces=(
            Spec("state", FIRST),
            Spec("mlp", ONE),
            Spec("attn", MIDDLE, window=3),
            Spec("state", ONLY, samples=1),
            Spec("mlp", ONLY, window=1, replace=True),
            Spec("attn", WHOLE, window=1, distribution="uniform"),
        ),
    ),
    Case(
        "narrow_mlp",
        "n_inner set, and smaller than 4 D",
        {"n_inner": 20},
        traces=(
            Spec("mlp", MIDDLE, window=3, replace=True),
            Spec("mlp", ONE, window=1, samples=1, target=True),
            Spec("state", LAST, seed=3, replace=True),
        ),
    ),
    Case(
        "untied_head",
        "tie_word_embeddings false: the head has weights of its own",
        {"tie_word_embeddings": False},
        traces=(
            Spec("state", FIRST, replace=True),
            Spec("mlp", LAST, window=1, distribution="uniform", replace=True),
            Spec("attn", ONE, window=3, seed=4294967295),
        ),
    ),
    Case(
        "large_epsilon",
        "layer_norm_epsilon 1e-2 on a stream small enough for it to count",
        {"layer_norm_epsilon": 1e-2},
        gain=0.1,
        embedding_std=0.15,
        traces=(Spec("attn", FIRST, window=3), Spec("state", ONE, samples=1, replace=True)),
    ),
    Case(
        "default_fields",
        "config.json without activation, epsilon and n_inner: transformers' defaults hold",
        {"activation_function": None, "layer_norm_epsilon": None},
        traces=(Spec("mlp", WHOLE, window=1, samples=3),),
    ),
    Case(
        "unscaled_attention",
        "scale_attn_weights false",
        {"scale_attn_weights": False},
        traces=(Spec("attn", MIDDLE, window=3, distribution="uniform"), Spec("state", WHOLE)),
    ),
    Case(
        "inverse_layer_scale",
        "scale_attn_by_inverse_layer_idx true",
        {"scale_attn_by_inverse_layer_idx": True, "n_layer": 4},
        traces=(Spec("attn", LAST, window=1, replace=True), Spec("state", MIDDLE, distribution="uniform")),
    ),
    Case(
        "reorder_and_upcast",
        "reorder_and_upcast_attn true: computed in another order, the same numbers",
        {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
        traces=(Spec("attn", FIRST, window=1, target=True),),
    ),
    Case(
        "stored_f16",
        "weights stored as F16",
        {},
        stored=torch.float16,
        traces=(Spec("state", MIDDLE), Spec("mlp", FIRST, window=3, samples=1, replace=True)),
    ),
    Case(
        "stored_bf16",
        "weights stored as BF16",
        {},
        stored=torch.bfloat16,
        traces=(Spec("attn", ONE, window=3), Spec("mlp", MIDDLE, window=1, distribution="uniform")),
    ),
    Case(
        "stored_f64",
        "weights stored as F64 that float32 cannot hold",
        {"n_layer": 2},
        stored=torch.float64,
        traces=(Spec("state", LAST, seed=2), Spec("attn", MIDDLE, window=3, samples=1, target=True)),
    ),
    Case(
        "unprefixed",
        'names without "transformer.", and float32 causal masks to be ignored, as in the first GPT-2 checkpoints',
        {},
        layout=without_prefix,
        traces=(Spec("state", FIRST, samples=1), Spec("mlp", MIDDLE, window=3, seed=2)),
    ),
    Case(
        "old_buffers",
        "attn.bias (U8), attn.masked_bias and a tied lm_head.weight in the file, to be ignored",
        {},
        layout=with_old_buffers,
        traces=(Spec("attn", WHOLE, window=3), Spec("state", ONE, distribution="uniform", seed=3)),
    ),
    Case(
        "head_only",
        "the tied weights stored as lm_head.weight, without wte",
        {"n_layer": 2},
        layout=with_head_only,
        traces=(Spec("state", ONE, samples=3),),
    ),
    Case(
        "contradicting_head",
        "a stored head that differs from wte under a config that ties them: transformers 5 uses the stored head",
        {"n_layer": 2},
        layout=with_other_head,
        traces=(Spec("state", FIRST, samples=3),),
    ),
    Case(
        "sharded",
        "three shards with model.safetensors.index.json, the tied head left out",
        {},
        shards=3,
        traces=(Spec("mlp", ONE, window=3), Spec("state", MIDDLE, replace=True, distribution="uniform")),
    ),
    Case(
        "twelve_layers",
        "twelve layers, so that a window of ten is cut at both ends and whole between them",
        {"n_layer": 12, "n_head": 4},
        gain=0.5,
        traces=(
            Spec("state", MIDDLE),
            Spec("mlp", MIDDLE),
            Spec("attn", MIDDLE),
            Spec("mlp", FIRST, replace=True, seed=5),
            Spec("attn", LAST, distribution="uniform", replace=True),
            Spec("mlp", ONE, window=3, target=True),
            Spec("attn", FIRST, window=1, samples=3),
        ),
    ),
    Case(
        "full_context",
        "n_positions 7, and a prompt that fills it",
        {"n_positions": 7, "n_embd": 8},
        prompts=(MIDDLE,),
        traces=(Spec("state", MIDDLE, samples=3), Spec("mlp", Prompt(7, (0, 7)), window=3), Spec("attn", MIDDLE)),
    ),
    *(
        Case(
            f"activation_{name}",
            f"activation_function {name}; logits only",
            {"activation_function": name, "n_embd": 8, "n_layer": 2, "n_positions": 8, "vocab_size": 41},
            prompts=(FIRST,),
        )
        for name in ACTIVATIONS
    ),
    *FAMILY_CASES,
)


# --- Weights ----------------------------------------------------------------------------------------------------


def make_weights(case: Case, config: dict[str, Any]) -> Tensors:
    """Random float64 weights by their names in the checkpoints of the case's family; here, of GPT2LMHeadModel.

    Matrices keep the scale of what passes through them (standard deviation about 1 / sqrt(inputs)), biases and
    LayerNorm gains are neither 0 nor 1, and the embeddings are wide enough for probabilities to differ.
    """
    if case.family != "gpt2":
        return make_family_weights(case, config)
    random = np.random.RandomState(zlib.crc32(case.name.encode()))
    width, vocabulary = config["n_embd"], config["vocab_size"]
    inner = config.get("n_inner") or 4 * width
    tensors: Tensors = {}

    def add(name: str, shape: tuple[int, ...], std: float, mean: float = 0) -> None:
        tensors[name] = torch.from_numpy(mean + std * random.randn(*shape))

    def add_norm(name: str) -> None:
        add(f"{name}.weight", (width,), 0.2, mean=1)
        add(f"{name}.bias", (width,), 0.1)

    def add_linear(name: str, inputs: int, outputs: int, gain: float) -> None:
        add(f"{name}.weight", (inputs, outputs), gain / inputs**0.5)
        add(f"{name}.bias", (outputs,), 0.1 * gain)

    add("transformer.wte.weight", (vocabulary, width), case.embedding_std)
    add("transformer.wpe.weight", (config["n_positions"], width), 0.4 * case.embedding_std)
    for layer in range(config["n_layer"]):
        block = f"transformer.h.{layer}"
        add_norm(f"{block}.ln_1")
        add_linear(f"{block}.attn.c_attn", width, 3 * width, 1.4)
        add_linear(f"{block}.attn.c_proj", width, width, case.gain)
        add_norm(f"{block}.ln_2")
        add_linear(f"{block}.mlp.c_fc", width, inner, 1.4)
        add_linear(f"{block}.mlp.c_proj", inner, width, case.gain)
    add_norm("transformer.ln_f")
    if not config.get("tie_word_embeddings", True):
        add("lm_head.weight", (vocabulary, width), 0.5)
    return tensors


def save_weights(tensors: Tensors, folder: Path, shards: int) -> None:
    """Writes model.safetensors, or shards in Hugging Face's naming with their index."""
    metadata = {"format": "pt"}
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata)
        return
    names = sorted(tensors)
    files = [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
    weight_map = {name: files[n * shards // len(names)] for n, name in enumerate(names)}
    for file in files:
        save_file({name: tensors[name] for name in names if weight_map[name] == file}, folder / file, metadata)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def base_of(case: Case) -> dict[str, Any]:
    """The config that the case's own is laid over."""
    return BASES.get(case.family, BASE_CONFIG)


def save_model(case: Case, folder: Path) -> None:
    """Writes config.json and the weights of one case."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    config = config_json(base_of(case), case.config)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: tensor.to(case.stored) for name, tensor in make_weights(case, config).items()}
    save_weights(case.layout(public_names(case.family, weights)), folder, case.shards)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner can read


# --- What transformers makes of them ----------------------------------------------------------------------------


def draw_token_ids(case: Case, prompt: Prompt, vocabulary: int, draw: int = 0) -> list[int]:
    """Random ids [T], the same for the same case, prompt and draw."""
    random = np.random.RandomState(zlib.crc32(f"{case.name} {prompt} {draw}".encode()))
    return random.randint(0, vocabulary, prompt.tokens).tolist()


def trace_golden(
    model: transformers.PreTrainedModel, token_ids: list[int], subject_range: tuple[int, int], options: TraceOptions
) -> dict[str, Any]:
    """One entry of "traces", of one kind: the prompt, the options and the results."""
    (kind,) = options.kinds
    traced = trace(model, token_ids, subject_range, options)
    grid = traced["grids"][kind]["probability"]
    golden = {
        "token_ids": token_ids,
        "subject_range": subject_range,
        "kind": kind,
        **{name: getattr(options, name) for name in ("window", "samples", "seed", "distribution", "sigma", "replace")},
        "target": options.answer_ids[0] if options.answer_ids else None,
        "answer_id": traced["answer_ids"][0],
        "prediction_id": traced["prediction_id"],
        "prediction_score": traced["prediction_score"],
        "high_score": traced["high"]["probability"],
        "low_score": traced["low"]["probability"],
        "low_standard_error": traced["low_standard_error"]["probability"],
        "scores": grid["values"],
        "standard_error": grid["standard_error"],
    }
    return nulls_for_nan(golden)


def is_telling(golden: dict[str, Any], second_score: float) -> bool:
    """Whether a trace tests much: noise and restoring both change the score, and no rounding the prediction."""
    low = golden["low_score"]
    total = abs(golden["high_score"] - low)
    largest = np.abs(np.array(golden["scores"]) - low).max()
    return total > 0.2 * golden["high_score"] and largest > 0.05 and golden["prediction_score"] > second_score + 0.01


def options_of(spec: Spec, model: transformers.PreTrainedModel, target: int) -> TraceOptions:
    """The options of one trace; sigma in three decimals."""
    return TraceOptions(
        kinds=(spec.kind,),
        window=1 if spec.kind == "state" else spec.window,
        samples=spec.samples,
        seed=spec.seed,
        distribution=spec.distribution,
        sigma=round(spec.noise * embeddings_of(model).std().item(), 3),
        replace=spec.replace,
        answer_ids=(target,) if spec.target else None,
    )


def make_trace(case: Case, spec: Spec, model: transformers.PreTrainedModel) -> dict[str, Any]:
    """The trace of the first random prompt that tells something."""
    for draw in range(200):
        token_ids = draw_token_ids(case, spec.prompt, config_of(model).vocab_size, draw)
        best = clean_logits(model, token_ids)[-1].softmax(-1).topk(3)
        options = options_of(spec, model, target=int(best.indices[2]))
        golden = trace_golden(model, token_ids, spec.prompt.subject, options)
        if is_telling(golden, second_score=best.values[1].item()):
            return golden
    raise ValueError(f"{case.name}: no prompt of 200 gives a telling trace for {spec}")


def make_case(case: Case, folder: Path) -> dict[str, Any]:
    """Writes one model folder and gives its golden."""
    save_model(case, folder)
    model = load_model(folder, torch.float64)
    golden = made_by() | {"about": case.about, "dtype": "float64", "logits": [], "traces": []}
    for prompt in case.prompts:
        token_ids = draw_token_ids(case, prompt, config_of(model).vocab_size)
        golden["logits"].append({"token_ids": token_ids, "logits": clean_logits(model, token_ids).tolist()})
    golden["traces"] = [make_trace(case, spec, model) for spec in case.traces]
    write_golden(golden, folder / "golden.json")
    return golden


def check_counts(case: Case, folder: Path, golden: dict[str, Any]) -> None:
    """Refuses a case whose numbers do not show what it is about: each change of `counts` must change the logits."""
    truth = json.loads((folder / "config.json").read_text())
    entry = golden["logits"][0]
    for change in case.counts:
        with tempfile.TemporaryDirectory() as other:
            for path in folder.glob("*.safetensors*"):
                shutil.copyfile(path, Path(other) / path.name)
            (Path(other) / "config.json").write_text(json.dumps(config_json(truth, change)))
            logits = clean_logits(load_model(Path(other), torch.float64), entry["token_ids"])
        if (logits - torch.tensor(entry["logits"], dtype=torch.float64)).abs().max() < 1e-6:
            raise ValueError(f"{case.name}: {change} changes nothing")


def float32_difference(folder: Path, golden: dict[str, Any]) -> tuple[float, float]:
    """Largest difference of transformers' own float32 run from the golden: of logits, and of probabilities."""
    model = load_model(folder, torch.float32)
    logits = scores = 0.0
    for entry in golden["logits"]:
        here = clean_logits(model, entry["token_ids"]).double()
        logits = max(logits, (here - torch.tensor(entry["logits"], dtype=torch.float64)).abs().max().item())
    for entry in golden["traces"]:
        names = ("window", "samples", "seed", "distribution", "sigma", "replace")
        options = TraceOptions(kinds=(entry["kind"],), **{name: entry[name] for name in names})
        if entry["target"] is not None:
            options = replace(options, answer_ids=(entry["target"],))
        here = trace_golden(model, entry["token_ids"], tuple(entry["subject_range"]), options)
        scores = max(scores, float(np.abs(np.array(here["scores"]) - np.array(entry["scores"])).max()))
    return logits, scores


def made_by() -> dict[str, Any]:
    """Who made a golden, with what."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    return {
        "made_by": "tests/judge/make_goldens.py",
        "versions": versions | {"python": platform.python_version()},
    }


def write_golden(golden: dict[str, Any], path: Path) -> None:
    """Writes JSON with one line for each entry of a list; numbers have every digit that their double needs."""
    lines = []
    for name, value in golden.items():
        if isinstance(value, list):
            entries = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in value)
            lines.append(f"{json.dumps(name)}: [\n{entries}\n]" if value else f"{json.dumps(name)}: []")
        else:
            lines.append(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def check_spread(goldens: Iterable[dict[str, Any]]) -> str:
    """How often each option's value occurs in all traces, in one line; an option tested fewer than twice is refused."""
    counts: Counter[str] = Counter()
    for golden in goldens:
        for entry in golden["traces"]:
            begin, end = entry["subject_range"]
            tokens = len(entry["token_ids"])
            counts[f"kind {entry['kind']}"] += 1
            counts[f"{entry['distribution']}{' replace' if entry['replace'] else ''}"] += 1
            if entry["kind"] != "state":
                counts[f"window {entry['window']}"] += 1
            counts[f"samples {entry['samples']}"] += 1
            counts["target" if entry["target"] is not None else "prediction"] += 1
            counts["subject first" if begin == 0 else "subject last" if end == tokens else "subject middle"] += 1
            counts["one-token subject" if end - begin == 1 else "longer subject"] += 1
    rare = [name for name, count in counts.items() if count < 2]
    if rare:
        raise ValueError(f"tested only once: {', '.join(rare)}")
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))


def make_models(folder: Path, only: list[str]) -> None:
    """Writes all cases, or those named, and prints what each is good for."""
    unknown = set(only) - {case.name for case in CASES}
    if unknown:
        raise ValueError(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in CASES)}")
    goldens = []
    for case in CASES:
        if only and case.name not in only:
            continue
        goldens.append(make_case(case, folder / case.name))
        check_counts(case, folder / case.name, goldens[-1])
        logits, scores = float32_difference(folder / case.name, goldens[-1])
        effects = " ".join(f"{t['high_score']:.3f}>{t['low_score']:.3f}" for t in goldens[-1]["traces"])
        print(f"{case.name}: float32 differs by {logits:.1e} (logits), {scores:.1e} (scores); {effects}")
    if not only:
        print(check_spread(goldens))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{len(goldens)} cases, folder of {size / 1e6:.2f} MB")


# --- All kinds, corruptions, answers and measures ---------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One trace of methods.json. `options` lacks what depends on the model, which the other fields tell."""

    about: str
    model: str
    prompt: Prompt
    options: TraceOptions
    noise: float = 3
    """Sigma in standard deviations of the embeddings, rounded to three decimals."""
    text: int = 0
    """Tokens of the random text of mean, multivariate and student."""
    differing: tuple[int, ...] = ()
    """Where the prompt of the method tokens has other tokens."""
    answer: int = 0
    """K, tokens that the model itself says; 0: its prediction."""
    unlikely: bool = False
    """The answer starts with the second most probable token."""
    others: int = 0
    """Other targets: the next probable tokens."""
    foil: bool = False
    """The second most probable token is the foil."""
    measures: tuple[str, ...] = ()


ALL_BUT_KNOCKOUT = TraceOptions(kinds=GRID_KINDS, window=3, samples=4)
EVERYTHING = TraceOptions(kinds=KINDS, window=3, head_window=1, knockout_window=1, samples=4)
STATE = TraceOptions(samples=4)
SUB_LAYERS = TraceOptions(kinds=("state", "mlp", "attn"), window=3, samples=4)
HEAD = TraceOptions(kinds=("head",))
SEVERED = TraceOptions(kinds=("state", "state_mlp_severed", "state_attn_severed"))
KNOCKOUT = TraceOptions(kinds=("knockout",), knockout_window=1)
NOISING = TraceOptions(direction="noising", samples=4)
FAMILY = replace(EVERYTHING, window=2, samples=3)
FAMILY_NOISING = replace(FAMILY, direction="noising")
FAMILY_OF_ONE = replace(FAMILY, samples=2)  # of families with one method
FAMILY_OF_ONE_NOISING = replace(FAMILY_OF_ONE, direction="noising")
LONG_TEXT = 60  # tokens; many more distinct ones than the width of 16, so that the covariance has full rank

METHODS = (
    Method("heads", "odd_width", MIDDLE, HEAD),
    Method("heads in a window", "inverse_layer_scale", FIRST, replace(HEAD, head_window=3)),
    Method("a single head", "one_head", MIDDLE, HEAD),
    Method("severed paths", "odd_width", MIDDLE, SEVERED),
    Method("severed paths in many layers", "twelve_layers", FIRST, replace(SEVERED, samples=3)),
    Method("severed paths, subject last", "untied_head", LAST, SEVERED),
    Method("knockout", "odd_width", MIDDLE, KNOCKOUT),
    Method("knockout in a window of nine", "twelve_layers", MIDDLE, replace(KNOCKOUT, knockout_window=9)),
    Method("knockout, subject first", "inverse_layer_scale", FIRST, replace(KNOCKOUT, knockout_window=2)),
    Method("knockout, subject last", "untied_head", LAST, KNOCKOUT),
    Method("knockout, the last token the whole subject", "untied_head", Prompt(5, (4, 5)), KNOCKOUT),
    Method("knockout, subject the whole prompt", "inverse_layer_scale", WHOLE, KNOCKOUT),
    Method("some positions", "untied_head", MIDDLE, replace(ALL_BUT_KNOCKOUT, positions=(0, 3, 6))),
    Method("one position before the subject", "odd_width", MIDDLE, replace(ALL_BUT_KNOCKOUT, positions=(1,))),
    Method("noising", "odd_width", MIDDLE, replace(SUB_LAYERS, direction="noising")),
    Method(
        "noising, heads in a window", "inverse_layer_scale", ONE, replace(NOISING, kinds=("head",), head_window=3)
    ),
    Method("noising, severed paths", "untied_head", MIDDLE, replace(NOISING, kinds=SEVERED.kinds)),
    Method("noising, everything, subject first", "odd_width", FIRST, replace(EVERYTHING, direction="noising")),
    Method("zero embeddings", "odd_width", MIDDLE, replace(EVERYTHING, method="zero")),
    Method("mean embeddings", "inverse_layer_scale", MIDDLE, replace(SUB_LAYERS, method="mean"), text=9),
    Method("tokens at two places apart", "odd_width", MIDDLE, replace(EVERYTHING, method="tokens"), differing=(1, 4)),
    Method("tokens, the first one too", "untied_head", ONE, replace(STATE, method="tokens"), differing=(0, 1)),
    Method("tokens, the last one too", "untied_head", LAST, replace(SUB_LAYERS, method="tokens"), differing=(4, 5)),
    Method(
        "tokens, noising, an answer of two tokens, measures",
        "inverse_layer_scale",
        MIDDLE,
        replace(ALL_BUT_KNOCKOUT, method="tokens", direction="noising", head_window=2),
        differing=(2, 4),
        answer=2,
        measures=("log_probability", "kl", "normalised"),
    ),
    Method(
        "multivariate noise",
        "inverse_layer_scale",
        MIDDLE,
        replace(SUB_LAYERS, samples=5, distribution="multivariate"),
        text=LONG_TEXT,
    ),
    Method(
        "multivariate noise in place",
        "untied_head",
        FIRST,
        replace(STATE, samples=10, distribution="multivariate", replace=True),
        text=LONG_TEXT,
    ),
    Method(
        "Student noise",
        "inverse_layer_scale",
        MIDDLE,
        replace(SUB_LAYERS, samples=5, distribution="student", degrees_of_freedom=3),
        text=LONG_TEXT,
    ),
    Method(
        "Student noise in place, another seed",
        "untied_head",
        ONE,
        replace(STATE, samples=5, seed=7, distribution="student", degrees_of_freedom=2.5, replace=True),
        text=LONG_TEXT,
    ),
    Method("an answer of two tokens", "odd_width", MIDDLE, SUB_LAYERS, answer=2),
    Method("an answer of three tokens, everything", "inverse_layer_scale", MIDDLE, EVERYTHING, answer=3),
    Method(
        "an answer of three tokens, everything noising",
        "odd_width",
        FIRST,
        replace(EVERYTHING, direction="noising", distribution="uniform", knockout_window=3),
        answer=3,
    ),
    Method("an answer of two tokens, subject last", "untied_head", LAST, EVERYTHING, answer=2),
    Method("an answer that the model would not say", "odd_width", ONE, EVERYTHING, answer=2, unlikely=True),
    Method("subject last, one token", "inverse_layer_scale", Prompt(5, (4, 5)), EVERYTHING),
    Method("subject last, one token, two to answer", "untied_head", Prompt(5, (4, 5)), EVERYTHING, answer=2),
    Method("a prompt of one token", "odd_width", ONLY, EVERYTHING),
    Method("a prompt of one token, two to answer", "untied_head", ONLY, EVERYTHING, answer=2),
    Method("one layer", "one_layer", FIRST, EVERYTHING, answer=2),
    Method("a prompt that with its answer fills the context", "full_context", WHOLE, EVERYTHING, answer=4),
    Method(
        "windows wider than the model",
        "untied_head",
        MIDDLE,
        replace(EVERYTHING, window=100, head_window=100, knockout_window=100),
    ),
    Method(
        "all measures, a foil and two other targets",
        "odd_width",
        MIDDLE,
        replace(EVERYTHING, samples=5),
        others=2,
        foil=True,
        measures=MEASURES,
    ),
    Method(
        "all measures noising",
        "untied_head",
        FIRST,
        replace(ALL_BUT_KNOCKOUT, direction="noising", positions=(0, 1, 5)),
        others=1,
        foil=True,
        measures=MEASURES,
    ),
    Method(
        "all measures of an answer of three tokens",
        "untied_head",
        ONE,
        replace(ALL_BUT_KNOCKOUT, positions=(1, 2, 4)),
        answer=3,
        foil=True,
        measures=MEASURES,
    ),
    Method(
        "measures of a single draw",
        "inverse_layer_scale",
        ONE,
        replace(SUB_LAYERS, samples=1),
        measures=("rank", "kl", "normalised"),
    ),
    Method(
        "measures without draws",
        "inverse_layer_scale",
        FIRST,
        replace(SEVERED, method="zero", direction="noising"),
        measures=("log_probability", "logit", "rank", "kl", "normalised"),
    ),
    Method("draws until the errors are small", "odd_width", ONE, replace(SUB_LAYERS, precision=0.03, most_samples=200)),
    Method("draws up to a cap", "untied_head", MIDDLE, replace(SUB_LAYERS, precision=0.001, most_samples=10)),
    Method(
        "everything in twelve layers",
        "twelve_layers",
        ONE,
        replace(EVERYTHING, window=10, head_window=3, knockout_window=9, samples=2, positions=(1, 4)),
    ),
    Method("GPT-J", "gptj", MIDDLE, FAMILY, answer=2, measures=("log_probability", "rank", "kl")),
    Method("GPT-J, noising", "gptj_old_buffers", FIRST, FAMILY_NOISING, others=1, foil=True, measures=MEASURES),
    Method("GPT-Neo, noising", "gpt_neo", LONG, FAMILY_NOISING, answer=2, measures=("logit", "kl")),
    Method("GPT-Neo, zero embeddings", "gpt_neo_old_buffers", MIDDLE, replace(FAMILY, method="zero"), answer=3),
    Method("GPT-NeoX", "gpt_neox", MIDDLE, FAMILY, answer=2, foil=True, measures=("logit_difference", "normalised")),
    Method("GPT-NeoX, sequential", "gpt_neox_sequential", LONG, FAMILY_NOISING, answer=2, others=1, measures=("kl",)),
    Method("OPT", "opt", MIDDLE, FAMILY, answer=2, measures=("log_probability",)),
    Method(
        "OPT, norms after, multivariate noise",
        "opt_norm_after",
        LONG,
        replace(FAMILY, distribution="multivariate"),
        text=LONG_TEXT,
        answer=2,
        measures=("rank", "kl"),
    ),
    Method("OPT, norms after, noising", "opt_norm_after", FIRST, FAMILY_NOISING, answer=3, measures=("logit",)),
    Method("Llama", "llama_grouped", LONG, FAMILY, answer=3, others=1, measures=("log_probability", "kl")),
    Method("Llama 3, noising", "llama_llama3", MIDDLE, FAMILY_NOISING, answer=2, foil=True, measures=MEASURES),
    Method("Mistral, noising", "mistral", LONG_LAST, FAMILY_NOISING, answer=2, measures=("kl",)),
    Method(
        "Mistral, other tokens",
        "mistral_full",
        MIDDLE,
        replace(FAMILY, method="tokens"),
        differing=(2, 4),
        answer=2,
        measures=("rank",),
    ),
    Method("Qwen 2", "qwen2_sliding", LONG, FAMILY, answer=2, measures=("logit", "kl")),
    Method("Qwen 3, noising", "qwen3_sliding", LONG, FAMILY_NOISING, answer=2, others=1, measures=("log_probability",)),
    Method("Gemma", "gemma", MIDDLE, FAMILY, answer=2, others=1, measures=("kl",)),
    Method("Gemma, mean embeddings", "gemma", ONE, replace(FAMILY, method="mean"), text=9, answer=2),
    Method(
        "Gemma, Student noise, noising",
        "gemma_full",
        FIRST,
        replace(FAMILY_NOISING, distribution="student", degrees_of_freedom=3),
        text=LONG_TEXT,
    ),
    Method("Gemma 2", "gemma2", LONG, FAMILY, answer=2, foil=True, measures=MEASURES),
    Method("Gemma 3, noising", "gemma3", LONG, FAMILY_NOISING, answer=2, measures=("log_probability", "kl")),
    Method("Gemma 3, of a model that sees images", "gemma3_multimodal", MIDDLE, FAMILY, answer=2, measures=("rank",)),
    Method("GPT-BigCode", "gpt_bigcode", MIDDLE, FAMILY_OF_ONE),
    Method("BLOOM, noising", "bloom_three_heads", MIDDLE, FAMILY_OF_ONE_NOISING, answer=2),
    Method("MPT", "mpt_clipped", LONG, FAMILY_OF_ONE, answer=2),
    Method("Falcon, noising", "falcon_grouped", MIDDLE, FAMILY_OF_ONE_NOISING),
    Method("Falcon with ALiBi", "falcon_alibi", FIRST, FAMILY_OF_ONE, answer=2),
    Method("Phi", "phi", MIDDLE, FAMILY_OF_ONE, answer=2),
    Method("Phi-3, noising", "phi3_longrope", MIDDLE, FAMILY_OF_ONE_NOISING),
    Method("OLMo", "olmo_clipped", MIDDLE, FAMILY_OF_ONE),
    Method("OLMo 2, noising", "olmo2_grouped", MIDDLE, FAMILY_OF_ONE_NOISING, answer=2),
    Method("OLMo 3", "olmo3", LONG, FAMILY_OF_ONE),
    Method("StableLM, noising", "stablelm_parallel", MIDDLE, FAMILY_OF_ONE_NOISING),
    Method("StarCoder2", "starcoder2_full", MIDDLE, FAMILY_OF_ONE),
    Method("SmolLM3, noising", "smollm3_sliding", LONG, FAMILY_OF_ONE_NOISING),
    Method("Granite", "granite", MIDDLE, FAMILY_OF_ONE, answer=2),
    Method("Cohere, noising", "cohere_norms_of_heads", MIDDLE, FAMILY_OF_ONE_NOISING),
    Method("Cohere 2", "cohere2", LONG, FAMILY_OF_ONE),
    Method("GLM-4, noising", "glm4", MIDDLE, FAMILY_OF_ONE_NOISING),
    Method("Nemotron", "nemotron", MIDDLE, FAMILY_OF_ONE),
    Method("Mixtral, noising", "mixtral", MIDDLE, FAMILY_OF_ONE_NOISING),
    Method("Qwen 2's mixtures", "qwen2_moe_dense_layers", MIDDLE, FAMILY_OF_ONE),
    Method("Qwen 3's mixtures, noising", "qwen3_moe", MIDDLE, FAMILY_OF_ONE_NOISING),
    Method("OLMoE", "olmoe_grouped", MIDDLE, FAMILY_OF_ONE),
    Method("Granite's mixtures, noising", "granitemoe_biases", MIDDLE, FAMILY_OF_ONE_NOISING),
    Method("Phi-3.5-MoE", "phimoe_plain", MIDDLE, FAMILY_OF_ONE),
    Method("GPT-OSS, noising", "gpt_oss_grouped", MIDDLE, FAMILY_OF_ONE_NOISING),
)


def method_options(
    method: Method, model: transformers.PreTrainedModel, token_ids: list[int], random: np.random.RandomState
) -> TraceOptions:
    """The options of one trace, with what depends on the model and the prompt."""
    vocabulary = config_of(model).vocab_size
    best = clean_logits(model, token_ids)[-1].topk(6).indices.tolist()
    options = method.options
    has_sigma = options.method == "noise" and options.distribution in ("gaussian", "uniform")
    sigma = round(method.noise * embeddings_of(model).std().item(), 3) if has_sigma else None
    options = replace(options, sigma=sigma, other_targets=tuple(best[2 : 2 + method.others]))
    if method.foil:
        options = replace(options, foil=best[1])
    if method.text:
        options = replace(options, text_ids=tuple(random.randint(0, vocabulary, method.text).tolist()))
    if method.differing:
        counter = list(token_ids)
        for position in method.differing:
            counter[position] = (counter[position] + random.randint(1, vocabulary)) % vocabulary
        options = replace(options, counter_ids=tuple(counter))
    if method.answer:
        answer = [best[1 if method.unlikely else 0]]
        while len(answer) < method.answer:
            answer.append(int(clean_logits(model, [*token_ids, *answer])[-1].argmax()))
        options = replace(options, answer_ids=tuple(answer))
    return options


def is_telling_method(traced: dict[str, Any], options: TraceOptions) -> bool:
    """Whether the corruption, some cell of each grid and some cut change the score by a tenth."""
    high, low = traced["high"]["probability"], traced["low"]["probability"]
    base = low if options.direction == "denoising" else high
    changes = [abs(high - low)]
    changes += [np.abs(np.array(grid["probability"]["values"]) - base).max() for grid in traced["grids"].values()]
    changes += [np.abs(np.array(group["scores"]) - high).max() for group in traced.get("knockout", {}).values()]
    return high > 0.02 and min(changes) > 0.1 * high


def make_method(method: Method, model: transformers.PreTrainedModel) -> dict[str, Any]:
    """The entry of the first random prompt that tells something."""
    position = method.options.positions
    outside = position is not None and max(position) < method.prompt.subject[0]
    for draw in range(500):
        random = np.random.RandomState(zlib.crc32(f"{method.about} {draw}".encode()))
        token_ids = random.randint(0, config_of(model).vocab_size, method.prompt.tokens).tolist()
        options = method_options(method, model, token_ids, random)
        best = clean_logits(model, token_ids)[-1].softmax(-1).topk(2).values.tolist()
        without_grids = trace(model, token_ids, method.prompt.subject, replace(options, kinds=(), precision=None))
        if best[0] < best[1] + 0.01 or not is_telling_method(without_grids, options):
            continue
        traced = trace(model, token_ids, method.prompt.subject, options)
        if not (outside or is_telling_method(traced, options)):
            continue
        return nulls_for_nan(
            {
                "about": method.about,
                "model": method.model,
                "token_ids": token_ids,
                "subject_range": method.prompt.subject,
                "options": {**asdict(options), "measures": method.measures},
                "results": method_results(traced, options, method.measures),
            }
        )
    raise ValueError(f"no prompt of 500 gives a telling trace for {method.about!r}")


def method_results(traced: dict[str, Any], options: TraceOptions, measures: Iterable[str]) -> dict[str, Any]:
    """The results of one entry."""
    names = ("answer_ids", "prediction_id", "prediction_score", "samples", "largest_error", "positions")
    grids = {kind: grid["probability"] for kind, grid in traced["grids"].items()}
    return {
        **{name: traced[name] for name in names},
        "high_score": traced["high"]["probability"],
        "low_score": traced["low"]["probability"],
        "low_standard_error": traced["low_standard_error"]["probability"],
        "grids": {
            kind: {"scores": grid["values"], "standard_error": grid["standard_error"]} for kind, grid in grids.items()
        },
        **({"knockout": traced["knockout"]} if "knockout" in traced else {}),
        "measures": measure_records(traced, measures),
        "other_targets": target_records(traced, options.other_targets),
    }


def make_methods(models: Path, output: Path, only: Iterable[str] = ()) -> dict[str, Any]:
    """Writes methods.json, of all methods or of those whose `about` is named, and gives it."""
    golden = made_by() | {"dtype": "float64", "traces": []}
    for method in METHODS:
        if only and method.about not in only:
            continue
        entry = make_method(method, load_model(models / method.model, torch.float64))
        golden["traces"].append(entry)
        results = entry["results"]
        print(f"{method.about}: {results['high_score']:.3f} > {results['low_score']:.3f}, {results['samples']} draws")
    write_golden(golden, output)
    print(f"{len(golden['traces'])} traces, {output.name} of {output.stat().st_size / 1e6:.2f} MB")
    return golden


# --- The demo model ---------------------------------------------------------------------------------------------


def choose_facts(facts_json: Path, count: int) -> list[dict[str, str]]:
    """The first fact of each of the first relations; each in another of its relation's wordings."""
    data = json.loads(facts_json.read_text(encoding="utf-8"))
    chosen = []
    for number, (name, relation) in enumerate(list(data["relations"].items())[:count]):
        subject = next(fact["subject"] for fact in data["facts"] if fact["relation"] == name)
        wording = relation["wordings"][number]["text"]
        chosen.append({"prompt": wording.replace("{}", subject), "subject": subject})
    return chosen


def make_demo(model_folder: Path, facts_json: Path, output: Path) -> None:
    """Writes the demo model's golden: noise scale, last logits [V] and the grids of a few facts."""
    model = load_model(model_folder, torch.float64)
    tokenizer = load_tokenizer(model_folder)
    sigma = sigma_of_subjects(model, tokenizer, read_subjects(facts_json), 3)
    golden = made_by() | {
        "dtype": "float64",
        "model_sha256": weights_sha256(model_folder),
        "noise": {"rule": "s3", "sigma": sigma},
        "facts": [],
    }
    # The paper's window for the first fact; three for the others, which suits a model of few layers.
    for number, fact in enumerate(choose_facts(facts_json, 4)):
        token_ids = encode(tokenizer, fact["prompt"])
        pieces = [token_bytes(tokenizer, token_id) for token_id in token_ids]
        subject_range = find_subject(pieces, fact["prompt"], fact["subject"])
        options = TraceOptions(sigma=sigma, window=10 if number == 0 else 3)
        traces = [
            trace_golden(model, token_ids, subject_range, replace(options, kinds=("state",), window=1)),
            trace_golden(model, token_ids, subject_range, replace(options, kinds=("mlp",))),
            trace_golden(model, token_ids, subject_range, replace(options, kinds=("attn",))),
        ]
        logits = clean_logits(model, token_ids)[-1].tolist()
        golden["facts"].append({**fact, "token_ids": token_ids, "logits": logits, "traces": traces})
        high, low = traces[0]["high_score"], traces[0]["low_score"]
        print(f"{fact['prompt']}: {token_bytes(tokenizer, traces[0]['answer_id'])!r} {high:.4f} > {low:.4f}")
    write_golden(golden, output)
    print(f"{output.name}: {output.stat().st_size / 1e6:.2f} MB, sigma {sigma!r}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Makes the goldens from Hugging Face transformers.")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "tests/goldens", help="folder to write into")
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE", help="write these cases only")
    parser.add_argument("--methods", action="store_true", help="write methods.json only")
    parser.add_argument("--demo", action="store_true", help="write demo.json instead of the models")
    parser.add_argument("--demo-model", type=Path, default=REPOSITORY / "share/rometrace/demo")
    parser.add_argument("--demo-facts", type=Path, default=REPOSITORY / "share/rometrace/facts.json")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(1)  # sums in one order on every machine
    print(", ".join(f"{name} {version}" for name, version in made_by()["versions"].items()))
    try:
        if arguments.demo:
            make_demo(arguments.demo_model, arguments.demo_facts, arguments.output / "demo.json")
            return 0
        if not arguments.methods:
            make_models(arguments.output / "models", arguments.only)
        if not arguments.only:
            make_methods(arguments.output / "models", arguments.output / "methods.json")
    except (OSError, ValueError, KeyError) as error:
        print(f"make_goldens.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
