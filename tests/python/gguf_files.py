"""Writes GGUF files of small models in Hugging Face folders with llama.cpp's own Python package, as its converter has
them: its names, its order of rows, its keys. How each tensor is packed is the caller's."""

from __future__ import annotations

import json
import math
import string
from pathlib import Path
from typing import Any, Callable

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file

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
}
Tensors = dict[str, np.ndarray]
Pack = Callable[[str, np.ndarray], tuple[np.ndarray, Type | None]]


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp wants them: the two that turn together are neighbours."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def regrouped(rows: np.ndarray, heads: int) -> np.ndarray:
    """GPT-NeoX's rows, head by head query, key, value: all queries, all keys, all values."""
    return rows.reshape(heads, 3, -1, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def tensors_of(folder: Path) -> Tensors:
    """The tensors of a folder by llama.cpp's names, float32, as its converter lays them out."""
    config = json.loads((folder / "config.json").read_text())
    kind = config["model_type"]
    heads = config.get("num_attention_heads", config.get("n_head"))
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    names = gguf.get_tensor_name_map(ARCHITECTURES[kind], layers)
    state = {name: tensor.float().numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    made: Tensors = {}
    for name, values in state.items():
        if name.endswith((".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".inv_freq")):
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert new is not None, name
        if kind == "gpt2" and values.ndim == 2 and ".h." in f".{name}":
            values = values.T
        if kind == "gpt_neox" and "attn_qkv" in new:
            values = regrouped(values, heads)
        if ARCHITECTURES[kind] == gguf.MODEL_ARCH.LLAMA and ("attn_q." in new or "attn_k." in new):
            values = permuted(values, heads if "attn_q." in new else config.get("num_key_value_heads") or heads)
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        made[new] = np.ascontiguousarray(values)
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
    if kind == "gpt2":
        width, heads = config["n_embd"], config["n_head"]
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(width)
        writer.add_block_count(config["n_layer"])
        writer.add_feed_forward_length(config.get("n_inner") or 4 * width)
        writer.add_head_count(heads)
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_width = config.get("head_dim") or width // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    if kind == "gpt_neox":
        writer.add_rope_dimension_count(int(config["rotary_pct"] * head_width))
        writer.add_rope_freq_base(config["rotary_emb_base"])
        writer.add_parallel_residual(config.get("use_parallel_residual", True))
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        return
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if kind == "llama" or kind == "mistral":
        writer.add_rope_dimension_count(head_width)
    if "head_dim" in config:
        writer.add_key_length(head_width)
        writer.add_value_length(head_width)
    if kind not in ("gemma", "gemma2"):
        writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    if kind in ("gemma2", "gemma3_text"):
        writer.add_sliding_window(config["sliding_window"])
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if kind == "gemma3_text":
        writer.add_sliding_window_pattern(config["sliding_window_pattern"])
        writer.add_rope_freq_base_swa(config["rope_local_base_freq"])
    scaling = config.get("rope_scaling") or {}
    scaling_type = scaling.get("rope_type", scaling.get("type"))
    if scaling_type in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling_type))
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling_type == "yarn":
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(scaling.get("beta_fast", 32.0))
        writer.add_rope_scaling_yarn_beta_slow(scaling.get("beta_slow", 1.0))


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
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
