#!/usr/bin/env python3
"""Makes the goldens: tiny random GPT-2 checkpoints, and what transformers makes of them in float64.

    scripts/make_goldens.py                  writes tests/goldens/models/<case>/{config.json, weights, golden.json}
    scripts/make_goldens.py --only CASE ...  the same for some of the cases
    scripts/make_goldens.py --demo           writes tests/goldens/demo.json for the model in share/rometrace/demo

Weights come from numpy.random.RandomState, whose streams are frozen, so every run writes the same weights. They are
drawn wider than GPT-2's own start, so that probabilities are far from uniform and a corrupted subject shows. Results
are computed in float64 from the weights as stored: they are the truth far below float32's rounding.

golden.json: {"made_by", "about", "versions", "dtype", "logits": [{"token_ids" [T], "logits" [T][V]}],
"traces": [{"token_ids" [T], "subject_range" [b, e), the options of the trace, and its results}]}; null stands for the
standard error of a single draw.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Iterable

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from reference_tracer import (
    REPOSITORY,
    TraceOptions,
    clean_logits,
    encode,
    find_subject,
    load_model,
    load_tokenizer,
    nulls_for_nan,
    read_subjects,
    sigma_of_subjects,
    token_bytes,
    trace,
    weights_sha256,
)

Tensors = dict[str, torch.Tensor]


# --- The cases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A random prompt of `tokens` tokens with its subject at [b, e)."""

    tokens: int
    subject: tuple[int, int]


@dataclass(frozen=True)
class Spec:
    """One trace of a case; `noise` is sigma in standard deviations of wte, rounded to three decimals."""

    kind: str
    prompt: Prompt
    window: int = 10
    samples: int = 10
    seed: int = 1
    distribution: str = "gaussian"
    noise: float = 3
    replace: bool = False
    target: bool = False
    """Follow the third most probable token of the clean run instead of the first."""


@dataclass(frozen=True)
class Case:
    """One model folder. `config` holds what differs from the base; a field set to None there is left out."""

    name: str
    about: str
    config: dict[str, Any] = field(default_factory=dict)
    stored: torch.dtype = torch.float32
    layout: Callable[[Tensors], Tensors] = lambda tensors: tensors
    shards: int = 1
    gain: float = 1
    """Factor on the weights that write into the residual stream."""
    embedding_std: float = 0.5
    prompts: tuple[Prompt, ...] = (Prompt(5, (1, 3)),)
    traces: tuple[Spec, ...] = ()


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

FIRST = Prompt(6, (0, 2))
MIDDLE = Prompt(7, (2, 5))
LAST = Prompt(6, (4, 6))
ONE = Prompt(5, (1, 2))
ONLY = Prompt(1, (0, 1))
WHOLE = Prompt(4, (0, 4))

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
)


# --- Weights ----------------------------------------------------------------------------------------------------


def make_weights(case: Case, config: dict[str, Any]) -> Tensors:
    """Random float64 weights by their names in GPT2LMHeadModel's checkpoints.

    Matrices keep the scale of what passes through them (standard deviation about 1 / sqrt(inputs)), biases and
    LayerNorm gains are neither 0 nor 1, and the embeddings are wide enough for probabilities to differ.
    """
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


def save_model(case: Case, folder: Path) -> None:
    """Writes config.json and the weights of one case."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    config = {
        name: value
        for name, value in (BASE_CONFIG | case.config).items()
        if value is not None or name not in case.config
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: tensor.to(case.stored) for name, tensor in make_weights(case, config).items()}
    save_weights(case.layout(weights), folder, case.shards)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner can read


# --- What transformers makes of them ----------------------------------------------------------------------------


def draw_token_ids(case: Case, prompt: Prompt, vocabulary: int, draw: int = 0) -> list[int]:
    """Random ids [T], the same for the same case, prompt and draw."""
    random = np.random.RandomState(zlib.crc32(f"{case.name} {prompt} {draw}".encode()))
    return random.randint(0, vocabulary, prompt.tokens).tolist()


def trace_golden(
    model: transformers.GPT2LMHeadModel, token_ids: list[int], subject_range: tuple[int, int], options: TraceOptions
) -> dict[str, Any]:
    """One entry of "traces": the prompt, the options and the results."""
    results = trace(model, token_ids, subject_range, options)
    results = {name: nulls_for_nan(value) for name, value in results.items()}
    return {"token_ids": token_ids, "subject_range": list(subject_range), **asdict(options), **results}


def is_telling(golden: dict[str, Any], second_score: float) -> bool:
    """Whether a trace tests much: noise and restoring both change the score, and no rounding the prediction."""
    low = golden["low_score"]
    total = abs(golden["high_score"] - low)
    largest = np.abs(np.array(golden["scores"]) - low).max()
    return total > 0.2 * golden["high_score"] and largest > 0.05 and golden["prediction_score"] > second_score + 0.01


def options_of(spec: Spec, model: transformers.GPT2LMHeadModel, target: int) -> TraceOptions:
    """The options of one trace; sigma in three decimals."""
    return TraceOptions(
        kind=spec.kind,
        window=1 if spec.kind == "state" else spec.window,
        samples=spec.samples,
        seed=spec.seed,
        distribution=spec.distribution,
        sigma=round(spec.noise * model.transformer.wte.weight.std().item(), 3),
        replace=spec.replace,
        target=target if spec.target else None,
    )


def make_trace(case: Case, spec: Spec, model: transformers.GPT2LMHeadModel) -> dict[str, Any]:
    """The trace of the first random prompt that tells something."""
    for draw in range(200):
        token_ids = draw_token_ids(case, spec.prompt, model.config.vocab_size, draw)
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
        token_ids = draw_token_ids(case, prompt, model.config.vocab_size)
        golden["logits"].append({"token_ids": token_ids, "logits": clean_logits(model, token_ids).tolist()})
    golden["traces"] = [make_trace(case, spec, model) for spec in case.traces]
    write_golden(golden, folder / "golden.json")
    return golden


def float32_difference(folder: Path, golden: dict[str, Any]) -> tuple[float, float]:
    """Largest difference of transformers' own float32 run from the golden: of logits, and of probabilities."""
    model = load_model(folder, torch.float32)
    logits = scores = 0.0
    for entry in golden["logits"]:
        here = clean_logits(model, entry["token_ids"]).double()
        logits = max(logits, (here - torch.tensor(entry["logits"], dtype=torch.float64)).abs().max().item())
    for entry in golden["traces"]:
        options = TraceOptions(**{name: entry[name] for name in asdict(TraceOptions())})
        here = trace(model, entry["token_ids"], tuple(entry["subject_range"]), options)
        scores = max(scores, float(np.abs(np.array(here["scores"]) - np.array(entry["scores"])).max()))
    return logits, scores


def made_by() -> dict[str, Any]:
    """Who made a golden, with what."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    return {
        "made_by": "scripts/make_goldens.py",
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
        logits, scores = float32_difference(folder / case.name, goldens[-1])
        effects = " ".join(f"{t['high_score']:.3f}>{t['low_score']:.3f}" for t in goldens[-1]["traces"])
        print(f"{case.name}: float32 differs by {logits:.1e} (logits), {scores:.1e} (scores); {effects}")
    if not only:
        print(check_spread(goldens))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{len(goldens)} cases, folder of {size / 1e6:.2f} MB")


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
            trace_golden(model, token_ids, subject_range, replace(options, kind="state", window=1)),
            trace_golden(model, token_ids, subject_range, replace(options, kind="mlp")),
            trace_golden(model, token_ids, subject_range, replace(options, kind="attn")),
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
        else:
            make_models(arguments.output / "models", arguments.only)
    except (OSError, ValueError, KeyError) as error:
        print(f"make_goldens.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
