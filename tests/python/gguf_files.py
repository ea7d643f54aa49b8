"""Writes GGUF files of small models in Hugging Face folders with llama.cpp's own Python package, as its converter has
them: its names, its order of rows, its keys. How each tensor is packed is the caller's."""

from __future__ import annotations

import json
import math
import re
import shutil
import string
from pathlib import Path
from typing import Any, Callable

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file, save_file

# model_type of config.json -> ggml's architecture.
ARCHITECTURES = {
    "gpt2": gguf.MODEL_ARCH.GPT2,
    "gpt_neox": gguf.MODEL_ARCH.GPTNEOX,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "bloom": gguf.MODEL_ARCH.BLOOM,
    "mpt": gguf.MODEL_ARCH.MPT,
    "falcon": gguf.MODEL_ARCH.FALCON,
    "gpt_bigcode": gguf.MODEL_ARCH.STARCODER,
    "starcoder2": gguf.MODEL_ARCH.STARCODER2,
    "phi": gguf.MODEL_ARCH.PHI2,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "stablelm": gguf.MODEL_ARCH.STABLELM,
    "olmo": gguf.MODEL_ARCH.OLMO,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "olmo3": gguf.MODEL_ARCH.OLMO2,
    "cohere": gguf.MODEL_ARCH.COMMAND_R,
    "cohere2": gguf.MODEL_ARCH.COHERE2,
    "granite": gguf.MODEL_ARCH.GRANITE,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
    "glm4": gguf.MODEL_ARCH.GLM4,
    "nemotron": gguf.MODEL_ARCH.NEMOTRON,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "qwen2_moe": gguf.MODEL_ARCH.QWEN2MOE,
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "olmoe": gguf.MODEL_ARCH.OLMOE,
    "granitemoe": gguf.MODEL_ARCH.GRANITE_MOE,
    "gpt_oss": gguf.MODEL_ARCH.GPT_OSS,
}
PERMUTED = ("llama", "mistral", "olmo", "granite", "smollm3", "mixtral", "granitemoe")
ONE_ADDED = ("gemma", "gemma2", "gemma3_text", "nemotron")
# Goldens whose config llama.cpp's converter can say; the rest has windows, activations or fields that it leaves out.
CASES = (
    "narrow_mlp",
    "untied_head",
    "gpt_neox",
    "gpt_neox_sequential",
    "llama",
    "llama_biases",
    "llama_grouped",
    "llama_linear",
    "llama_yarn",
    "qwen2",
    "qwen2_yarn",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "bloom",
    "bloom_three_heads",
    "mpt",
    "mpt_clipped",
    "falcon",
    "falcon_grouped",
    "falcon_one_norm",
    "gpt_bigcode",
    "starcoder2_full",
    "phi",
    "phi3",
    "stablelm",
    "stablelm_parallel",
    "olmo",
    "olmo_clipped",
    "olmo2",
    "olmo2_grouped",
    "olmo3",
    "cohere",
    "cohere_norms_of_heads",
    "cohere2",
    "cohere2_layer_types",
    "granite",
    "granite_biases",
    "smollm3_default_fields",
    "glm4",
    "glm4_no_bias",
    "nemotron",
    "nemotron_biases",
    "olmo3_default_fields",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "olmoe",
    "granitemoe",
    "granitemoe_biases",
    "gpt_oss",
    "gpt_oss_grouped",
)
# Those with numbers that the file has in float32 alone.
ROUNDED_CASES = ("llama_llama3", "phi3_longrope", "phi4_mini")

Tensors = dict[str, np.ndarray]
Pack = Callable[[str, np.ndarray], tuple[np.ndarray, Type | None]]


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp wants them: the two that turn together are neighbours."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def regrouped(rows: np.ndarray, groups: int, width: int) -> np.ndarray:
    """Rows of groups, each of some queries, a key and a value: all queries, all keys, all values. GPT-NeoX and BLOOM
    have as many groups as heads."""
    of_groups = rows.reshape(groups, -1, width, *rows.shape[1:])
    parts = (of_groups[:, :-2], of_groups[:, -2:-1], of_groups[:, -1:])
    return np.concatenate([part.reshape(-1, *rows.shape[1:]) for part in parts])


def groups_of(config: dict[str, Any], heads: int) -> int:
    """Pairs of a key and a value in a fused matrix that has each beside its queries."""
    if config["model_type"] != "falcon":
        return heads
    if config["new_decoder_architecture"] or not config["multi_query"]:
        return config["num_kv_heads"]
    return 1


def stacked(tensors: Tensors) -> Tensors:
    """StableLM's norms of heads, each head's of its own, as one tensor for all."""
    made: Tensors = {}
    for name, values in tensors.items():
        if ".norms." in name:
            whole, head = name.removesuffix(".weight").split(".norms.")
            made.setdefault(f"{whole}.weight", np.empty(0, np.float32))
            rows = made[f"{whole}.weight"].reshape(-1, values.shape[0])
            assert int(head) == rows.shape[0]
            made[f"{whole}.weight"] = np.concatenate([rows, values[None]])
        else:
            made[name] = values
    return made


def of_all_experts(tensors: Tensors) -> Tensors:
    """The matrices of a mixture's experts: gates, ups and downs, each a tensor of all experts, [experts, out, in]."""
    made: Tensors = {}
    apart: dict[str, list[np.ndarray]] = {}
    for name, values in tensors.items():
        if found := re.fullmatch(r"(.*\.)(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.weight", name):
            part = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}.get(found[3], found[3])
            of_part = apart.setdefault(f"{found[1]}mlp.experts.{part}.weight", [])
            assert int(found[2]) == len(of_part)  # there are fewer than 11
            of_part.append(values)
        elif name.endswith("block_sparse_moe.input_linear.weight"):  # Granite's: gates, then ups
            stem = name.replace("block_sparse_moe.input_linear.weight", "mlp.experts.")
            made[f"{stem}gate_proj.weight"], made[f"{stem}up_proj.weight"] = np.split(values, 2, axis=1)
        elif ".mlp.experts.gate_up_proj" in name:  # GPT-OSS's: in turn, [experts, in, out]
            ending = ".bias" if name.endswith("_bias") else ".weight"
            stem = name.split("gate_up_proj")[0]
            rows = values if ending == ".bias" else values.swapaxes(1, 2)
            made[f"{stem}gate_proj{ending}"], made[f"{stem}up_proj{ending}"] = rows[:, ::2], rows[:, 1::2]
        elif name.endswith(".mlp.experts.down_proj"):
            made[f"{name}.weight"] = values.swapaxes(1, 2)
        elif name.endswith(".mlp.experts.down_proj_bias"):
            made[name.replace("_bias", ".bias")] = values
        else:
            made[f"{name}.weight" if name.endswith(".sinks") else name] = values
    return made | {name: np.stack(values) for name, values in apart.items()}


SIZES = {
    "width": ("hidden_size", "n_embed", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers"),
    "positions": ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len"),
    "mlp": ("intermediate_size", "ffn_hidden_size", "n_inner"),
    "layer_norm": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
}


def size_of(config: dict[str, Any], what: str, default: Any = None) -> Any:
    """A field of config.json, by whichever name the family has for it."""
    found = [config[name] for name in SIZES[what] if config.get(name) is not None]
    assert found or default is not None, what
    return found[0] if found else default


def tensors_of(folder: Path) -> Tensors:
    """The tensors of a folder by llama.cpp's names, float32, as its converter lays them out."""
    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    heads, layers = size_of(config, "heads"), size_of(config, "layers")
    names = gguf.get_tensor_name_map(ARCHITECTURES[kind], layers)
    state = {name: tensor.float().numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    made: Tensors = {}
    for name, values in of_all_experts(stacked(dict(sorted(state.items())))).items():
        if name.endswith((".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".inv_freq")):
            continue
        known = name.removeprefix("transformer.") if kind == "bloom" else name
        new = names.get_name(known, try_suffixes=(".weight", ".bias"))
        assert new is not None, name
        if kind == "gpt2" and values.ndim == 2 and ".h." in f".{name}":
            values = values.T
        if kind in ("gpt_neox", "bloom", "falcon") and "attn_qkv" in new:
            values = regrouped(values, groups_of(config, heads), size_of(config, "width") // heads)
        if kind in PERMUTED and ("attn_q." in new or "attn_k." in new):
            values = permuted(values, heads if "attn_q." in new else config.get("num_key_value_heads") or heads)
        if kind in ONE_ADDED and name.endswith("norm.weight"):
            values = values + 1
        made[new] = np.ascontiguousarray(values)
    return made


def joined(tensors: Tensors) -> Tensors:
    """Queries, keys and values as one tensor each, which the converter does when asked to."""
    made = {name: values for name, values in tensors.items() if ".attn_k." not in name and ".attn_v." not in name}
    for name in [name for name in made if ".attn_q." in name]:
        parts = [tensors[name.replace("attn_q", f"attn_{part}")] for part in "qkv"]
        made[name.replace("attn_q", "attn_qkv")] = np.concatenate(parts)
        del made[name]
    return made


def llama3_divisors(config: dict[str, Any]) -> np.ndarray:
    """What the converter makes of a rope_scaling of type llama3."""
    scaling = config["rope_scaling"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    divisors = []
    for pair in range(width // 2):
        wavelength = 2 * math.pi * config["rope_theta"] ** (2 * pair / width)
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def add_keys(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """The keys of the architecture."""
    kind = config["model_type"]
    width, heads = size_of(config, "width"), size_of(config, "heads")
    head_width = config.get("head_dim") or width // heads
    writer.add_context_length(size_of(config, "positions", 32))
    writer.add_embedding_length(width)
    writer.add_block_count(size_of(config, "layers"))
    writer.add_feed_forward_length(size_of(config, "mlp", 4 * width))
    writer.add_head_count(heads)
    if kind == "gpt2":
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    if kind == "gpt_neox":
        writer.add_rope_dimension_count(int(config["rotary_pct"] * head_width))
        writer.add_rope_freq_base(config["rotary_emb_base"])
        writer.add_parallel_residual(config.get("use_parallel_residual", True))
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        return
    if kind in ("bloom", "falcon", "mpt", "gpt_bigcode"):
        groups = 1 if kind == "gpt_bigcode" else groups_of(config, heads)
        if kind != "mpt":
            writer.add_head_count_kv(groups)
        writer.add_layer_norm_eps(config.get("layer_norm_epsilon", 1e-5))
        if kind == "falcon":
            writer.add_tensor_data_layout("jploski")
        if kind == "mpt":
            writer.add_max_alibi_bias(8.0)
            if config["attn_config"]["clip_qkv"] is not None:
                writer.add_clamp_kqv(config["attn_config"]["clip_qkv"])
        return
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    if "rms_norm_eps" in config or kind in ("smollm3", "glm4"):
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        writer.add_layer_norm_eps(1e-5 if kind == "olmo" else size_of(config, "layer_norm"))
    if kind in ("llama", "mistral", "granite", "smollm3", "cohere2", "mixtral", "granitemoe"):
        writer.add_rope_dimension_count(head_width)
    if kind in ("phi", "phi3", "stablelm", "glm4", "nemotron"):
        writer.add_rope_dimension_count(int(config.get("partial_rotary_factor", 1.0) * head_width))
    if config.get("head_dim") is not None and not kind.startswith("granite"):
        writer.add_key_length(head_width)
        writer.add_value_length(head_width)
    if kind not in ("gemma", "gemma2", "phi", "stablelm"):
        writer.add_rope_freq_base(config.get("rope_theta", 2e6 if kind == "smollm3" else 10000.0))
    if kind in ("gemma2", "gemma3_text", "olmo3", "cohere2"):
        writer.add_sliding_window(config["sliding_window"])
    if kind == "phi3":
        writer.add_sliding_window(config["sliding_window"] or 0)
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if kind in ("olmo3", "cohere2") and "layer_types" in config:
        writer.add_sliding_window_pattern([layer == "sliding_attention" for layer in config["layer_types"]])
    elif "sliding_window_pattern" in config:
        writer.add_sliding_window_pattern(config["sliding_window_pattern"])
    if kind == "gemma3_text":
        writer.add_rope_freq_base_swa(config["rope_local_base_freq"])
    if kind == "olmo3":
        writer.add_rope_freq_base_swa(500000.0)  # transformers' own, whatever rope_theta says
    if kind == "stablelm":
        writer.add_parallel_residual(True)  # as files of StableLM-3B have it, which is not so
    if kind == "olmo" and config["clip_qkv"] is not None:
        writer.add_clamp_kqv(config["clip_qkv"])
    if kind in ("cohere", "cohere2"):
        writer.add_logit_scale(config["logit_scale"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    if kind.startswith("granite"):
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if experts := config.get("num_local_experts", config.get("num_experts")):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    if kind in ("qwen2_moe", "qwen3_moe"):
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if kind == "qwen2_moe":
        writer.add_expert_shared_feed_forward_length(config["shared_expert_intermediate_size"])
    if kind == "gpt_oss":
        writer.add_expert_feed_forward_length(config["intermediate_size"])
        writer.add_sliding_window(config["sliding_window"])
    scaling = config.get("rope_scaling") or {}
    scaling_type = scaling.get("rope_type", scaling.get("type"))
    if scaling_type in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling_type))
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling_type == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(scaling.get("beta_fast", 32.0))
        writer.add_rope_scaling_yarn_beta_slow(scaling.get("beta_slow", 1.0))
        if "attention_factor" in scaling:
            writer.add_rope_scaling_yarn_attn_factor(scaling["attention_factor"])
    if scaling_type == "longrope":
        trained = config["original_max_position_embeddings"]
        stretch = config["max_position_embeddings"] / trained
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretch) / math.log(trained)))


def add_byte_level_tokenizer(writer: gguf.GGUFWriter, folder: Path, pre: str = "gpt-2") -> None:
    """vocab.json and merges.txt of a folder."""
    vocabulary = json.loads((folder / "vocab.json").read_text())
    tokens = sorted(vocabulary, key=vocabulary.get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    end = "<|endoftext|>"
    writer.add_token_types([gguf.TokenType.CONTROL if token == end else gguf.TokenType.NORMAL for token in tokens])
    if end in vocabulary:
        writer.add_bos_token_id(vocabulary[end])
    lines = (folder / "merges.txt").read_text().splitlines()
    writer.add_token_merges([line for line in lines if not line.startswith("#version")])


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """A byte-level BPE of `vocabulary` tokens: space, letters, and one that a merge makes (the
    package writes no empty list)."""
    tokens = ["Ġ", *string.ascii_letters, *string.digits, *string.punctuation][: vocabulary - 1] + ["th"]
    assert len(tokens) == vocabulary
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("t h\n")


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


# Fields of config.json that a file has in float32.
ROUNDED = ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps", "rms_norm_eps", "rope_theta")
ROUNDED += ("logit_scale", "residual_multiplier", "clip_qkv")


def add_defaults(folder: Path) -> None:
    """Writes what a case leaves to transformers' defaults and a file says; takes out what a file cannot say."""
    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    if kind in ("bloom", "mpt"):  # of which the cases have other classes as well
        change_config(folder, architectures=[f"{kind.title()}ForCausalLM"])
    if kind == "gpt_oss":
        change_config(folder, swiglu_limit=7.0)
    if kind == "smollm3":
        change_config(folder, rms_norm_eps=1e-6, num_key_value_heads=4)
    if kind == "mpt":
        change_config(folder, attn_config=config["attn_config"] | {"softmax_scale": None}, layer_norm_epsilon=1e-5)
    if kind == "cohere2" and "rope_parameters" in config:
        change_config(folder, rope_theta=config["rope_parameters"]["rope_theta"])
    if kind == "olmo3" and "rope_scaling" in config:
        scaling = config["rope_scaling"] | {"attention_factor": float(np.float32(1.2))}
        change_config(folder, rope_scaling=scaling)
    elif kind == "olmo3":
        change_config(folder, rms_norm_eps=1e-5, rope_theta=500000.0)


def copy_case(repository: Path, name: str, folder: Path) -> Path:
    """A copy of a golden's model folder with a tokeniser, such that float32 holds what is written of it: 1 + weight for
    the norms of Gemma, and epsilon."""
    shutil.copytree(repository / "tests/goldens/models" / name, folder)
    state = load_file(folder / "model.safetensors")
    state = {name: (tensor.double() * 2**12).round().div(2**12).float().contiguous() for name, tensor in state.items()}
    save_file(state, folder / "model.safetensors")
    add_defaults(folder)
    config = json.loads((folder / "config.json").read_text())
    write_tokenizer(folder, config["vocab_size"])
    for key in ROUNDED:
        if isinstance(config.get(key), float):
            change_config(folder, **{key: float(np.float32(config[key]))})
    for key, of_all in {"query_pre_attn_scalar": config.get("head_dim"), "hidden_act": "gelu"}.items():
        if key in config and config["model_type"].startswith(("gemma", "gpt_neox")):  # no key says it
            change_config(folder, **{key: of_all})
    return folder


def plain(_: str, values: np.ndarray) -> tuple[np.ndarray, Type | None]:
    """As float32."""
    return values, None


def write_gguf(
    folder: Path,
    file: Path,
    pack: Pack = plain,
    tensors: Tensors | None = None,
    more: Callable[[gguf.GGUFWriter], None] | None = None,
    **options: Any,
) -> Path:
    """Writes the model of a folder, or the same with other tensors by llama.cpp's names, as a GGUF file. `more` adds to
    the keys; `options` are the writer's."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config["model_type"]]], **options)
    writer.add_name("made for a test")
    add_keys(writer, config)
    if (folder / "vocab.json").exists():
        add_byte_level_tokenizer(writer, folder)
    if more is not None:
        more(writer)
    for name, values in (tensors_of(folder) if tensors is None else tensors).items():
        packed, kind = (values, None) if values.ndim == 1 else pack(name, values)
        writer.add_tensor(name, packed, raw_dtype=kind)
    if (config.get("rope_scaling") or {}).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
    for length in ("long", "short"):
        if f"{length}_factor" in (config.get("rope_scaling") or {}):
            divisors = np.array(config["rope_scaling"][f"{length}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", divisors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
