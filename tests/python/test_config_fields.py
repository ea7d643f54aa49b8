"""Every field of a config is honoured as transformers honours it, or refused by name; one that is unknown is named.

Each family's small random model is made once for each other value of each field: of all fields that the config class
of any family has, and of those that are in files beside them. Weights come from the names of their tensors, so that
two models differ in nothing but the field. The judge is what transformers makes of the same config.json.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.generation import GenerationConfig
from transformers.utils import logging

from golden_families import BASES, NORMS_FROM_ZERO, public_names
from make_goldens import BASE_CONFIG
from zygote import RUNNER

Rometrace = Callable[..., "subprocess.CompletedProcess[str]"]

FAMILIES = {"gpt2": BASE_CONFIG} | {name: base for name, base in BASES.items() if name != "gemma3"}
# transformers' class for a Mistral with layer_types needs it; Mixtral's stumbles over its absence in some scalings.
for name in ("mistral", "mixtral"):
    FAMILIES[name] = FAMILIES[name] | {"head_dim": 8}
# Lists of layers would have to fit their number.
for name, lists in (("olmo3", ("layer_types",)), ("gpt_oss", ("layer_types",)), ("smollm3", ("layer_types", "no_rope_layers"))):
    FAMILIES[name] = {field: value for field, value in FAMILIES[name].items() if field not in lists}
FAMILIES["smollm3"]["no_rope_layer_interval"] = 2
FAMILIES["phimoe"] = FAMILIES["phimoe"] | {"rope_scaling": None}  # whose lists would have to fit the width of heads
TOKEN_IDS = (7, 3, 22, 15, 4, 31, 9, 40, 2, 11)

# Relative to the largest logit. Two orders of float32 additions differ by less than the first; what a field changes is
# by more than the second, so that it would be seen if it were ignored.
ROUNDING, CHANGED = 1e-4, 1e-3

ACTIVATION = ["relu", "tanh", "quick_gelu", "leaky_relu"]
CAPS: list[Any] = [1.5, None]
DROPOUT = [0.5]
EPSILON = [0.05]
ID: list[Any] = [3, None]
LAYERS = [1]
WINDOW: list[Any] = [2, 5, None]
SCALED = {"factor": 4.0, "rope_theta": 300.0}
YARN = SCALED | {"rope_type": "yarn", "original_max_position_embeddings": 8}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROTARY: list[Any] = [
    {"rope_type": "default", "rope_theta": 100.0},
    {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
    {"rope_type": "default", "factor": 4.0},
    {"factor": 4.0},
    {"rope_theta": 100.0},
    {},
    None,
    SCALED | {"rope_type": "linear"},
    {"type": "linear", "factor": 4.0},
    {"type": "linear", "rope_type": "default", "factor": 4.0},
    SCALED | {"rope_type": "dynamic"},
    SCALED | LLAMA3 | {"original_max_position_embeddings": 8},
    SCALED | LLAMA3,
    YARN,
    YARN | {"finetuned": True},
    YARN | {"beta_fast": 4.0, "beta_slow": 0.5},
    YARN | {"truncate": False},
    YARN | {"attention_factor": 1.5},
    YARN | {"mscale": 1.5, "mscale_all_dim": 0.5},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "longrope", "factor": 4.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    {"rope_type": "proportional", "partial_rotary_factor": 0.5},
    {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 300.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    },
]

# Other values for fields whose kind does not tell one: sizes that fit together, and what transformers has defaults for.
MPT = FAMILIES["mpt"]["attn_config"]
VALUES: dict[str, list[Any]] = {
    "activation": ACTIVATION,
    "activation_function": ACTIVATION,
    "architectures": [None, ["{}Model"], ["{}ForSequenceClassification"]],
    "attention_types": [],
    "attn_config": [
        None,
        *({name: value} for name, value in (("alibi", False), ("alibi_bias_max", 4), ("prefix_lm", True))),
        *(MPT | {name: 0.7} for name in ("clip_qkv", "softmax_scale")),
        *(MPT | change for change in ({"attn_impl": "flash"}, {"attn_pdrop": 1}, {"attn_uses_sequence_id": True})),
        *(MPT | change for change in ({"attn_type": "multiquery_attention"}, {"qk_ln": True}, {"clip_qkv": 0.0})),
    ],
    "attn_logit_softcapping": CAPS,
    "bos_token_id": ID,
    "clip_qkv": [0.5],
    "d_model": [64],
    "decoder_sparse_step": [2, 3],
    "dtype": ["float16", None],
    "embd_pdrop": DROPOUT,
    "eos_token_id": [*ID, [2, 3]],
    "ffn_dim": [12],
    "ffn_hidden_size": [12],
    "final_logit_softcapping": CAPS,
    "head_dim": [4, 12, 16],
    "hidden_act": ACTIVATION,
    "hidden_activation": ACTIVATION,
    "hidden_size": [64],
    "id2label": [{"0": "no", "1": "yes", "2": "both"}],
    "intermediate_size": [12],
    "label2id": [{"no": 0, "yes": 1, "both": 2}],
    "layer_norm_eps": EPSILON,
    "layer_norm_epsilon": EPSILON,
    "logit_scale": [0.3],
    "max_position_embeddings": [24],
    "max_seq_len": [24],
    "max_window_layers": [0, 1, 2],
    "mlp_only_layers": [[0], [], None],
    "moe_intermediate_size": [8],
    "n_embd": [64],
    "n_head": [4],
    "n_heads": [4],
    "n_inner": [12],
    "n_layer": LAYERS,
    "n_layers": LAYERS,
    "n_positions": [24],
    "no_rope_layers": [None, [0, 1], [0, 0]],
    "norm_eps": EPSILON,
    "norm_epsilon": EPSILON,
    "num_attention_heads": [4],
    "num_experts": [7],
    "num_experts_per_tok": [1, 4],
    "num_heads": [4],
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": [2],
    "num_kv_heads": [1],
    "num_layers": [],
    "num_local_experts": [7],
    "num_ln_in_parallel_attn": [1, 2],
    "output_hidden_states": [True],
    "pad_token_id": ID,
    "problem_type": ["regression"],
    "router_jitter_noise": [0.6, 0.0],
    "shared_expert_intermediate_size": [8],
    "swiglu_limit": [0.5],
    "query_pre_attn_scalar": [2],
    "rms_norm_eps": EPSILON,
    "rope_parameters": ROTARY,
    "rotary_dim": [8],
    "sliding_window": WINDOW,
    "summary_activation": ["tanh"],
    "transformers_version": ["4.2.0", None],
    "vocab_size": [52],
    "window_size": [2],
    "word_embed_proj_dim": [8],
}

# In files, but fields of no class: names of older versions, and what transformers reads of any config.
OTHERS: dict[str, list[Any]] = {
    "is_causal": [False, True],
    "original_max_position_embeddings": [8],
    "partial_rotary_factor": [0.5, 1.0],
    "per_layer_config": [{"1": {"num_attention_heads": 1}}, {}],
    "rope_local_base_freq": [10.0],
    "rope_scaling": ROTARY,
    "rope_theta": [100.0],
    "rotary_emb_base": [100],
    "rotary_pct": [0.5],
    "sliding_window_pattern": [2],
    "pruned_heads": [{"0": [1]}, {}],
}
# Those that nobody need hear of: they change nothing, and public checkpoints have them.
UNHEARD: dict[str, list[Any]] = {
    **{name: [3] for name in GenerationConfig._get_default_generation_params() if name != "use_cache"},
    "_attn_implementation_autoset": [True],
    "_attn_implementation_internal": ["eager"],
    "_commit_hash": ["0123456789abcdef"],
    "_name_or_path": ["a/b"],
    "_num_labels": [1],
    "attn_implementation": ["eager"],
    "cache_implementation": ["hybrid"],
    "cross_attention_hidden_size": [None],
    "decoder_start_token_id": [3],
    "finetuning_task": [None],
    "gradient_checkpointing": [True],
    "line_by_line": [False],
    "name_or_path": ["a/b"],
    "num_labels": [3],
    "output_attentions": [False],
    "output_past": [True],
    "prefix": ["</s>"],
    "sep_token_id": [3],
    "task_specific_params": [{"text-generation": {"do_sample": True, "max_length": 50}}],
    "tf_legacy_loss": [False],
    "tie_encoder_decoder": [False],
    "tokenizer_class": ["PreTrainedTokenizerFast"],
    "torch_dtype": ["bfloat16"],
    "torchscript": [False],
    "unsloth_fixed": [True],
    "unsloth_version": ["2024.9"],
    "use_bfloat16": [False],
}

ABSENT = object()
KINDS_OF_LAYERS = [["full_attention", "sliding_attention"], ["sliding_attention", "full_attention"]]

# What makes sense together only.
ROTARY_FAMILIES = ("gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "falcon", "phi", "olmo")
ROTARY_FAMILIES += ("olmo2", "stablelm", "starcoder2", "smollm3", "granite", "cohere", "cohere2", "glm4", "nemotron")
ROTARY_FAMILIES += ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "gpt_oss")
COMBINED: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "gpt2": [("hidden_size", {"hidden_size": 32, "n_embd": ABSENT}), ("n_ctx", {"n_ctx": 8})],
    "gptj": [("rotary", {"rotary": False}), ("n_ctx", {"n_ctx": 8})],
    "gpt_neo": [
        ("attention_types", {"attention_types": [[["local", "global"], 1]], "attention_layers": ABSENT}),
        ("attention_layers", {"attention_layers": ["local", "global"]}),
        ("num_layers", {"num_layers": 1, "attention_types": [[["local"], 1]], "attention_layers": ["local"]}),
    ],
    **{
        family: [
            ("rope_scaling", {"rope_scaling": {}, "rope_parameters": SCALED | {"rope_type": "linear"}}),
            ("rope_scaling", {"rope_scaling": SCALED | {"rope_type": "linear"}, "rope_parameters": YARN}),
            ("rope_scaling", {"rope_scaling": SCALED | LLAMA3, "original_max_position_embeddings": 8}),
        ]
        for family in ROTARY_FAMILIES
    },
}
SLIDING = {"use_sliding_window": True, "sliding_window": 3}
for family in ("qwen2", "qwen3"):
    COMBINED[family] += [("max_window_layers", SLIDING | {"max_window_layers": layers}) for layers in (0, 1)]
    COMBINED[family] += [("sliding_window", SLIDING | {"sliding_window": window}) for window in (2, None)]
    COMBINED[family] += [("layer_types", SLIDING | {"layer_types": kinds}) for kinds in KINDS_OF_LAYERS]
COMBINED["qwen2"].append(("use_mrope", {"use_mrope": True}))
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0] * 4}
COMBINED["phi3"] = [
    ("rope_scaling", {"rope_scaling": LONG}),
    ("rope_scaling", {"rope_scaling": LONG | {"attention_factor": 1.5}}),
    ("rope_scaling", {"rope_scaling": LONG, "max_position_embeddings": 128}),
    ("original_max_position_embeddings", {"rope_scaling": LONG, "original_max_position_embeddings": 16}),
    (
        "partial_rotary_factor",
        {"rope_scaling": LONG | {"short_factor": [1.0, 3.0], "long_factor": [2.0] * 2}, "partial_rotary_factor": 0.5},
    ),
]
LONG_PHIMOE = LONG | {"short_mscale": 1.2, "long_mscale": 1.3, "original_max_position_embeddings": 16}
COMBINED["phimoe"] = [
    ("rope_scaling", {"rope_scaling": LONG}),
    ("rope_scaling", {"rope_scaling": LONG_PHIMOE}),
    ("rope_scaling", {"rope_scaling": LONG_PHIMOE | {"short_mscale": 1.7}}),
    ("rope_scaling", {"rope_scaling": LONG_PHIMOE | {"attention_factor": 1.5}}),
]
COMBINED["gpt_oss"] += [
    ("sliding_window", {"sliding_window": 5, "layer_types": ["sliding_attention", "sliding_attention"]}),
    ("rope_scaling", {"rope_scaling": ABSENT}),
    ("rope_scaling", {"rope_scaling": {"rope_type": "default"}}),
]
for family in ("qwen2_moe", "qwen3_moe"):
    COMBINED[family] += [("sliding_window", SLIDING | {"max_window_layers": layers}) for layers in (0, 1)]
    COMBINED[family].append(("decoder_sparse_step", {"decoder_sparse_step": 2, "mlp_only_layers": [1]}))
NEWER = {"new_decoder_architecture": True, "num_attention_heads": 4}
COMBINED["falcon"] += [
    ("new_decoder_architecture", NEWER | {"num_kv_heads": 1}),
    ("num_ln_in_parallel_attn", NEWER | {"num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
    ("parallel_attn", NEWER | {"parallel_attn": False}),
    ("alibi", {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}),
]
COMBINED["bloom"] = [("slow_but_exact", {"slow_but_exact": True, "pretraining_tp": 2})]
COMBINED["smollm3"] += [
    ("sliding_window", {"sliding_window": 3, "use_sliding_window": True, "layer_types": None}),
    ("sliding_window", {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}),
    ("no_rope_layer_interval", {"no_rope_layer_interval": 1}),
]


def class_fields() -> dict[str, Any]:
    """All fields of all families' classes, with a default."""
    return {field.name: field.default for name in FAMILIES for field in fields(CONFIG_MAPPING[name])}


def other_values(name: str, value: Any) -> list[Any]:
    """Other values for a field, by its kind."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value / 2 if value else 0.5]
    if isinstance(value, str):
        return ["another"]
    raise AssertionError(f"{name}: no other value for {value!r}; add one to VALUES")


def alterations(family: str) -> list[tuple[str, dict[str, Any]]]:
    """Fields, each with the changes of the config that give it another value."""
    base = FAMILIES[family]
    own = {field.name for field in fields(CONFIG_MAPPING[family])}
    result = []
    for name, default in class_fields().items():
        values = VALUES[name] if name in VALUES else None
        if name == "layer_types":
            count = next(base[at] for at in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if at in base)
            values = [None, *([kinds[i % 2] for i in range(count)] for kinds in KINDS_OF_LAYERS)]
            values += [["sliding_attention"] * count, ["full_attention"] * count]
        if values is None:
            values = other_values(name, base.get(name, default))
        values = [value for value in values if name not in base or value != base[name]]
        if name not in own:
            values = [value for value in values if value is not None]
        result += [(name, {name: value}) for value in values]
    result += [(name, {name: value}) for name, values in (OTHERS | UNHEARD).items() for value in values]
    return result + COMBINED.get(family, [])


@dataclass(frozen=True)
class Judged:
    """What transformers makes of a config: logits [T, V], or why it refuses."""

    logits: torch.Tensor | None
    refusal: str = ""


@functools.cache
def weight(name: str, shape: torch.Size, family: str) -> torch.Tensor:
    """A random tensor that depends on its name and shape alone."""
    module, kind = name.rpartition(".")[::2]
    random = torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).randn(*shape)).float()
    if kind.endswith("bias"):
        return 0.1 * random
    if len(shape) == 1:
        return (0.0 if family in NORMS_FROM_ZERO else 1.0) + 0.2 * random
    if any(part in module for part in ("wte", "wpe", "embed", "lm_head")):
        return 0.5 * random
    return random * 1.4 / shape[-1] ** 0.5


def make_model(family: str, changes: dict[str, Any], folder: Path) -> Judged:
    """Writes a model folder, and asks transformers about it."""
    config = {name: value for name, value in (FAMILIES[family] | changes).items() if value is not ABSENT}
    if changes.get("architectures"):
        stem = FAMILIES[family]["architectures"][0].removesuffix("ForCausalLM").removesuffix("LMHeadModel")
        config["architectures"] = [name.format(stem) for name in changes["architectures"]]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    try:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
        with torch.inference_mode():
            for name, parameter in model.named_parameters():
                parameter.copy_(weight(name, parameter.shape, family))
            tensors = {name: tensor.clone() for name, tensor in model.named_parameters()}
            save_file({name: tensor.contiguous() for name, tensor in public_names(family, tensors).items()}, weights)
            model.config.return_dict = True  # false means a tuple, over which some classes stumble themselves
            return Judged(model(torch.tensor([TOKEN_IDS]), use_cache=False).logits[0])
    except Exception as error:  # of any type: what a config makes it stumble over is not always foreseen
        if not weights.exists():
            weights.hardlink_to(folder.parent / "0" / weights.name)
        return Judged(None, f"{type(error).__name__}: {error}")


def ours(bin_dir: Path, folders: list[Path]) -> list[dict[str, Any]]:
    """What the executable's library makes of the folders, by the test tool rometrace_logits."""
    command = [bin_dir / "rometrace_logits", *map(str, TOKEN_IDS)]
    lines = "".join(f"{folder}\n" for folder in folders)
    done = RUNNER.run(command, env=os.environ, input=lines, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of two models' logits, relative to the largest logit."""
    if found.shape != expected.shape:
        return float("inf")
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_is_honoured_or_refused(family: str, bin_dir: Path, tmp_path: Path) -> None:
    own = {field.name for field in fields(CONFIG_MAPPING[family])}
    altered = [("", {}), *alterations(family)]
    folders = [tmp_path / str(number) for number in range(len(altered))]
    judged = [make_model(family, changes, folder) for (_, changes), folder in zip(altered, folders)]
    unaltered = judged[0].logits
    assert unaltered is not None, judged[0].refusal
    wrong = []
    for (name, changes), judge, answer in zip(altered, judged, ours(bin_dir, folders)):
        said = json.dumps(changes, default=lambda _: "ABSENT")
        refusal, remarks = answer.get("refused"), "".join(answer.get("remarks", []))
        named = remarks.partition("passed over: ")[2].partition(";")[0].split(", ") if remarks else []
        if refusal is not None:
            if not changes or name in UNHEARD or name not in refusal:
                wrong.append(f"{said}: {refusal}")
            continue
        known = name in own or name in UNHEARD
        if known and name in named or any(other.partition(".")[0] != name for other in named):
            wrong.append(f"{said}: {remarks}")
        if judge.logits is None:
            if not remarks:
                wrong.append(f"{said}: neither refused nor named, but transformers says {judge.refusal}")
            continue
        moved = difference(judge.logits, unaltered)
        if (far := difference(torch.tensor(answer["logits"]), judge.logits)) > ROUNDING:
            wrong.append(f"{said}: logits differ by {far:.1g}; the field makes {moved:.1g}")
        if ROUNDING < moved < CHANGED:
            wrong.append(f"{said}: makes {moved:.1g}, which might not be seen; choose another value")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(altered)}", *wrong])


def test_a_field_that_is_unknown_is_named_once_on_stderr(rometrace: Rometrace, demo: Path, tmp_path: Path) -> None:
    for path in demo.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").unlink()
    config = json.loads((demo / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"new_scale": 3.0}))
    arguments = ("--model", tmp_path, "--prompt", "A Christmas Carol was written by", "--subject", "A Christmas Carol")
    arguments += ("--samples", "1", "--kinds", "state")
    done = rometrace(*arguments)
    assert done.returncode == 0
    named = f"{tmp_path}/config.json: these fields are passed over: new_scale;"
    assert [line for line in done.stderr.splitlines() if named in line] == [
        f"rometrace: {named} should they change what the model computes, then the numbers are not its own"
    ]
    assert "new_scale" not in rometrace(*arguments, "-q").stderr
