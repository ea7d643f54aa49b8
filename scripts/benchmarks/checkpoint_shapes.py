"""Shapes of public checkpoints by name: the config.json of each, and the tensors that its weight files hold.

Configs have the fields that decide what is computed, as the checkpoints on the Hub write them. Tensors are named and
ordered as transformers saves them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Iterator

Config = dict[str, Any]
Tensor = tuple[str, tuple[int, ...], float, float]
"""Name, shape, mean and standard deviation."""

DEVIATION = 0.02


# --- Configs ----------------------------------------------------------------------------------------------------


def gpt2(layers: int, width: int, heads: int) -> Config:
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": None,
        "eos_token_id": None,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_embd": width,
        "n_head": heads,
        "n_inner": None,
        "n_layer": layers,
        "n_positions": 1024,
        "tie_word_embeddings": True,
        "vocab_size": 50257,
    }


def gptj(layers: int, width: int, heads: int) -> Config:
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPTJForCausalLM"],
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gptj",
        "n_embd": width,
        "n_head": heads,
        "n_inner": None,
        "n_layer": layers,
        "n_positions": 2048,
        "rotary": True,
        "rotary_dim": 64,
        "tie_word_embeddings": False,
        "vocab_size": 50400,
    }


def gpt_neo(layers: int, width: int, heads: int) -> Config:
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPTNeoForCausalLM"],
        "attention_types": [[["global", "local"], layers // 2]],
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "hidden_size": width,
        "intermediate_size": None,
        "layer_norm_epsilon": 1e-05,
        "max_position_embeddings": 2048,
        "model_type": "gpt_neo",
        "num_heads": heads,
        "num_layers": layers,
        "vocab_size": 50257,
        "window_size": 256,
    }


def gpt_neox(layers: int, width: int, heads: int, vocab: int = 50304, activation: str = "gelu") -> Config:
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": activation,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "model_type": "gpt_neox",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "vocab_size": vocab,
    }


def opt(layers: int, width: int, heads: int, embedding: int | None = None) -> Config:
    """`embedding`: width of the token embeddings, if it is another one; such a model has its norms behind."""
    return {
        "_remove_final_layer_norm": False,
        "activation_function": "relu",
        "architectures": ["OPTForCausalLM"],
        "bos_token_id": 2,
        "do_layer_norm_before": embedding is None,
        "eos_token_id": 2,
        "ffn_dim": 4 * width,
        "hidden_size": width,
        "max_position_embeddings": 2048,
        "model_type": "opt",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 1,
        "vocab_size": 50272,
        "word_embed_proj_dim": embedding or width,
    }


def gated(model_type: str, name: str, sizes: tuple[int, int, int, int, int, int], **more: Any) -> Config:
    """Llama and what came after it; sizes: layers, width, heads, pairs of keys and values, inner width, vocabulary."""
    layers, width, heads, pairs, inner, vocab = sizes
    return {
        "architectures": [name],
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": pairs,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": vocab,
    } | more


def llama(layers: int, width: int, heads: int, pairs: int, inner: int, vocab: int, **more: Any) -> Config:
    bos, eos = (128000, 128001) if vocab == 128256 else (1, 2)  # Llama 3's own vocabulary, or that of the first two
    ends = {"bos_token_id": bos, "eos_token_id": eos}
    return gated("llama", "LlamaForCausalLM", (layers, width, heads, pairs, inner, vocab), **ends | more)


def llama_3_2(layers: int, width: int, heads: int, inner: int, head: int) -> Config:
    scaling = {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }
    more = {"head_dim": head, "max_position_embeddings": 131072, "rope_scaling": scaling, "rope_theta": 500000.0}
    return llama(layers, width, heads, 8, inner, 128256, **more, tie_word_embeddings=True)


def qwen2(layers: int, width: int, heads: int, pairs: int, inner: int, vocab: int, tied: bool) -> Config:
    return gated(
        "qwen2",
        "Qwen2ForCausalLM",
        (layers, width, heads, pairs, inner, vocab),
        eos_token_id=151643,
        max_position_embeddings=131072,
        max_window_layers=layers,
        rms_norm_eps=1e-06,
        rope_theta=1000000.0,
        sliding_window=131072,
        tie_word_embeddings=tied,
        use_sliding_window=False,
    )


def qwen3(layers: int, width: int, heads: int, inner: int, tied: bool) -> Config:
    return gated(
        "qwen3",
        "Qwen3ForCausalLM",
        (layers, width, heads, 8, inner, 151936),
        attention_bias=False,
        eos_token_id=151645,
        head_dim=128,
        max_position_embeddings=40960,
        rms_norm_eps=1e-06,
        rope_theta=1000000,
        tie_word_embeddings=tied,
        use_sliding_window=False,
    )


def any_gemma(model_type: str, name: str, sizes: tuple[int, int, int, int, int, int], **more: Any) -> Config:
    common = {"bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "pad_token_id": 0, "rms_norm_eps": 1e-06}
    config = gated(model_type, name, sizes, **common, max_position_embeddings=8192, **more)
    return config | {"hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True}


def gemma2(layers: int, width: int, heads: int, pairs: int, inner: int) -> Config:
    return any_gemma(
        "gemma2",
        "Gemma2ForCausalLM",
        (layers, width, heads, pairs, inner, 256000),
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=256,
        sliding_window=4096,
    )


def gemma3(layers: int, width: int, heads: int, pairs: int, inner: int) -> Config:
    return any_gemma(
        "gemma3_text",
        "Gemma3ForCausalLM",
        (layers, width, heads, pairs, inner, 262144),
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=256,
        rope_local_base_freq=10000,
        sliding_window=512,
        sliding_window_pattern=6,
    ) | {"rope_theta": 1000000, "max_position_embeddings": 32768}


def layer_norm_gated(model_type: str, name: str, sizes: tuple[int, int, int, int, int, int], **more: Any) -> Config:
    """Likewise of families that have LayerNorm, with its own field of an epsilon."""
    return {field: value for field, value in gated(model_type, name, sizes, **more).items() if field != "rms_norm_eps"}


def gpt_bigcode(layers: int, width: int, heads: int) -> Config:
    return gpt2(layers, width, heads) | {
        "activation_function": "gelu_pytorch_tanh",
        "architectures": ["GPTBigCodeForCausalLM"],
        "model_type": "gpt_bigcode",
        "multi_query": True,
        "n_inner": 4 * width,
        "n_positions": 8192,
        "vocab_size": 49152,
    }


def bloom(layers: int, width: int, heads: int) -> Config:
    return {
        "architectures": ["BloomForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": width,
        "layer_norm_epsilon": 1e-05,
        "model_type": "bloom",
        "n_head": heads,
        "n_layer": layers,
        "seq_length": 2048,
        "vocab_size": 250880,
    }


def mpt(layers: int, width: int, heads: int) -> Config:
    return {
        "architectures": ["MPTForCausalLM"],
        "attn_config": {"alibi": True},
        "d_model": width,
        "max_seq_len": 2048,
        "model_type": "mpt",
        "n_heads": heads,
        "n_layers": layers,
        "no_bias": True,
        "vocab_size": 50432,
    }


def falcon(layers: int, width: int, heads: int) -> Config:
    return {
        "architectures": ["FalconForCausalLM"],
        "alibi": False,
        "bias": False,
        "bos_token_id": 11,
        "eos_token_id": 11,
        "hidden_size": width,
        "layer_norm_epsilon": 1e-05,
        "max_position_embeddings": 2048,
        "model_type": "falcon",
        "multi_query": True,
        "new_decoder_architecture": False,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "parallel_attn": True,
        "vocab_size": 65024,
    }


MISTRAL = (32, 4096, 32, 8, 14336)
SHAPES: dict[str, Config] = {
    "gpt2": gpt2(12, 768, 12),
    "gpt2-medium": gpt2(24, 1024, 16),
    "gpt2-large": gpt2(36, 1280, 20),
    "gpt2-xl": gpt2(48, 1600, 25),
    "gpt-j-6b": gptj(28, 4096, 16),
    "gpt-neo-125m": gpt_neo(12, 768, 12),
    "gpt-neo-1.3b": gpt_neo(24, 2048, 16),
    "gpt-neo-2.7b": gpt_neo(32, 2560, 20),
    "pythia-70m": gpt_neox(6, 512, 8),
    "pythia-160m": gpt_neox(12, 768, 12),
    "pythia-410m": gpt_neox(24, 1024, 16),
    "pythia-1b": gpt_neox(16, 2048, 8),
    "pythia-1.4b": gpt_neox(24, 2048, 16),
    "pythia-2.8b": gpt_neox(32, 2560, 32),
    "pythia-6.9b": gpt_neox(32, 4096, 32, vocab=50432),
    "pythia-12b": gpt_neox(36, 5120, 40, vocab=50688),
    "gpt-neox-20b": gpt_neox(44, 6144, 64, vocab=50432, activation="gelu_fast"),
    "opt-125m": opt(12, 768, 12),
    "opt-350m": opt(24, 1024, 16, embedding=512),
    "opt-1.3b": opt(24, 2048, 32),
    "opt-2.7b": opt(32, 2560, 32),
    "opt-6.7b": opt(32, 4096, 32),
    "opt-13b": opt(40, 5120, 40),
    "smollm2-135m": llama(30, 576, 9, 3, 1536, 49152, max_position_embeddings=8192, tie_word_embeddings=True),
    "llama-7b": llama(32, 4096, 32, 32, 11008, 32000, max_position_embeddings=2048, rms_norm_eps=1e-06),
    "llama-2-7b": llama(32, 4096, 32, 32, 11008, 32000, max_position_embeddings=4096),
    "llama-2-13b": llama(40, 5120, 40, 40, 13824, 32000, max_position_embeddings=4096),
    "llama-3-8b": llama(32, 4096, 32, 8, 14336, 128256, max_position_embeddings=8192, rope_theta=500000.0),
    "llama-3.2-1b": llama_3_2(16, 2048, 32, 8192, head=64),
    "llama-3.2-3b": llama_3_2(28, 3072, 24, 8192, head=128),
    "mistral-7b": gated(
        "mistral",
        "MistralForCausalLM",
        (*MISTRAL, 32000),
        bos_token_id=1,
        eos_token_id=2,
        max_position_embeddings=32768,
        sliding_window=4096,
    ),
    "qwen2-0.5b": qwen2(24, 896, 14, 2, 4864, 151936, tied=True),
    "qwen2-1.5b": qwen2(28, 1536, 12, 2, 8960, 151936, tied=True),
    "qwen2-7b": qwen2(28, 3584, 28, 4, 18944, 152064, tied=False),
    "qwen3-0.6b": qwen3(28, 1024, 16, 3072, tied=True),
    "qwen3-1.7b": qwen3(28, 2048, 16, 6144, tied=True),
    "qwen3-4b": qwen3(36, 2560, 32, 9728, tied=True),
    "qwen3-8b": qwen3(36, 4096, 32, 12288, tied=False),
    "gemma-2b": any_gemma("gemma", "GemmaForCausalLM", (18, 2048, 8, 1, 16384, 256000)),
    "gemma-7b": any_gemma("gemma", "GemmaForCausalLM", (28, 3072, 16, 16, 24576, 256000)),
    "gemma-2-2b": gemma2(26, 2304, 8, 4, 9216),
    "gemma-2-9b": gemma2(42, 3584, 16, 8, 14336),
    "gemma-3-1b": gemma3(26, 1152, 4, 1, 6912),
    "starcoderbase-1b": gpt_bigcode(24, 2048, 16),
    "bloom-560m": bloom(24, 1024, 16),
    "mpt-7b": mpt(32, 4096, 32),
    "falcon-7b": falcon(32, 4544, 71),
    "phi-2": layer_norm_gated(
        "phi",
        "PhiForCausalLM",
        (32, 2560, 32, 32, 10240, 51200),
        hidden_act="gelu_new",
        layer_norm_eps=1e-05,
        max_position_embeddings=2048,
        partial_rotary_factor=0.4,
    ),
    "phi-3-mini": gated(
        "phi3",
        "Phi3ForCausalLM",
        (32, 3072, 32, 32, 8192, 32064),
        max_position_embeddings=4096,
        pad_token_id=None,
        sliding_window=2047,
    ),
    "olmo-1b": layer_norm_gated(
        "olmo",
        "OlmoForCausalLM",
        (16, 2048, 16, 16, 8192, 50304),
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    ),
    "olmo-2-1b": gated(
        "olmo2",
        "Olmo2ForCausalLM",
        (16, 2048, 16, 16, 8192, 100352),
        max_position_embeddings=4096,
        rms_norm_eps=1e-06,
        rope_theta=500000,
    ),
    "olmo-3-7b": gated(
        "olmo3",
        "Olmo3ForCausalLM",
        (32, 4096, 32, 32, 11008, 100278),
        max_position_embeddings=65536,
        rms_norm_eps=1e-06,
        rope_theta=500000,
        sliding_window=4096,
    ),
    "stablelm-2-1.6b": layer_norm_gated(
        "stablelm",
        "StableLmForCausalLM",
        (24, 2048, 32, 32, 5632, 100352),
        layer_norm_eps=1e-05,
        max_position_embeddings=4096,
        partial_rotary_factor=0.25,
        use_qkv_bias=True,
    ),
    "starcoder2-3b": layer_norm_gated(
        "starcoder2",
        "Starcoder2ForCausalLM",
        (30, 3072, 24, 2, 12288, 49152),
        hidden_act="gelu_pytorch_tanh",
        max_position_embeddings=16384,
        norm_epsilon=1e-05,
        rope_theta=999999.4420358813,
        sliding_window=4096,
        tie_word_embeddings=True,
        use_bias=True,
    ),
    "smollm3-3b": gated(
        "smollm3",
        "SmolLM3ForCausalLM",
        (36, 2048, 16, 4, 11008, 128256),
        max_position_embeddings=65536,
        no_rope_layer_interval=4,
        rms_norm_eps=1e-06,
        rope_theta=5000000.0,
        tie_word_embeddings=True,
    ),
    "granite-3.1-2b": gated(
        "granite",
        "GraniteForCausalLM",
        (40, 2048, 32, 8, 8192, 49152),
        attention_multiplier=0.015625,
        embedding_multiplier=12.0,
        logits_scaling=8.0,
        max_position_embeddings=131072,
        residual_multiplier=0.22,
        rope_theta=5000000.0,
        tie_word_embeddings=True,
    ),
    "command-r": layer_norm_gated(
        "cohere",
        "CohereForCausalLM",
        (40, 8192, 64, 64, 22528, 256000),
        layer_norm_eps=1e-05,
        logit_scale=0.0625,
        max_position_embeddings=8192,
        rope_theta=8000000.0,
        tie_word_embeddings=True,
    ),
    "command-r7b": layer_norm_gated(
        "cohere2",
        "Cohere2ForCausalLM",
        (32, 4096, 32, 8, 14336, 256000),
        layer_norm_eps=1e-05,
        logit_scale=0.25,
        max_position_embeddings=8192,
        rope_theta=50000,
        sliding_window=4096,
        sliding_window_pattern=4,
        tie_word_embeddings=True,
    ),
    "glm-4-9b": gated(
        "glm4",
        "Glm4ForCausalLM",
        (40, 4096, 32, 2, 13696, 151552),
        attention_bias=True,
        head_dim=128,
        max_position_embeddings=32768,
        partial_rotary_factor=0.5,
    ),
    "minitron-4b": layer_norm_gated(
        "nemotron",
        "NemotronForCausalLM",
        (32, 3072, 24, 8, 9216, 256000),
        head_dim=128,
        hidden_act="relu2",
        max_position_embeddings=4096,
        norm_eps=1e-05,
        partial_rotary_factor=0.5,
    ),
    "mixtral-8x7b": gated(
        "mixtral",
        "MixtralForCausalLM",
        (32, 4096, 32, 8, 14336, 32000),
        max_position_embeddings=32768,
        num_experts_per_tok=2,
        num_local_experts=8,
        rope_theta=1000000.0,
        sliding_window=None,
    ),
    "qwen1.5-moe-a2.7b": gated(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        (24, 2048, 16, 16, 5632, 151936),
        max_position_embeddings=8192,
        moe_intermediate_size=1408,
        norm_topk_prob=False,
        num_experts=60,
        num_experts_per_tok=4,
        rms_norm_eps=1e-06,
        rope_theta=1000000.0,
        shared_expert_intermediate_size=5632,
    ),
    "qwen3-30b-a3b": gated(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        (48, 2048, 32, 4, 6144, 151936),
        head_dim=128,
        max_position_embeddings=40960,
        moe_intermediate_size=768,
        norm_topk_prob=True,
        num_experts=128,
        num_experts_per_tok=8,
        rms_norm_eps=1e-06,
        rope_theta=1000000.0,
    ),
    "olmoe-1b-7b": gated(
        "olmoe",
        "OlmoeForCausalLM",
        (16, 2048, 16, 16, 1024, 50304),
        max_position_embeddings=4096,
        norm_topk_prob=False,
        num_experts=64,
        num_experts_per_tok=8,
    ),
    "granite-3.0-1b-a400m": gated(
        "granitemoe",
        "GraniteMoeForCausalLM",
        (24, 1024, 16, 8, 512, 49155),
        attention_multiplier=0.015625,
        embedding_multiplier=12.0,
        logits_scaling=6.0,
        max_position_embeddings=4096,
        num_experts_per_tok=8,
        num_local_experts=32,
        residual_multiplier=0.22,
        tie_word_embeddings=True,
    ),
    "phi-3.5-moe": gated(
        "phimoe",
        "PhiMoEForCausalLM",
        (32, 4096, 32, 8, 6400, 32064),
        attention_bias=True,
        lm_head_bias=True,
        max_position_embeddings=4096,
        num_experts_per_tok=2,
        num_local_experts=16,
        router_jitter_noise=0.01,
    ),
    "gpt-oss-20b": gated(
        "gpt_oss",
        "GptOssForCausalLM",
        (24, 2880, 64, 8, 2880, 201088),
        head_dim=64,
        max_position_embeddings=131072,
        num_experts_per_tok=4,
        num_local_experts=32,
        rope_theta=150000.0,
        sliding_window=128,
    ),
}

NAMES_OF_SIZES = {
    "layers": ("n_layer", "n_layers", "num_layers", "num_hidden_layers"),
    "width": ("n_embd", "d_model", "hidden_size"),
    "heads": ("n_head", "n_heads", "num_heads", "num_attention_heads"),
    "positions": ("n_positions", "max_seq_len", "seq_length", "max_position_embeddings"),
    "vocab": ("vocab_size",),
}


def field_of(config: Config, size: str) -> str:
    """What the family calls "layers", "width", "heads", "positions" or "vocab"."""
    return next(name for name in NAMES_OF_SIZES[size] if name in config)


def with_size(config: Config, size: str, value: int) -> Config:
    """The config with another number of layers and so on."""
    changed = config | {field_of(config, size): value}
    if size == "layers" and config["model_type"] == "gpt_neo":
        pairs = [[["global", "local"], value // 2]] if value > 1 else []
        changed["attention_types"] = pairs + ([[["global"], 1]] if value % 2 else [])
    return changed


# --- Tensors ----------------------------------------------------------------------------------------------------


def linear(name: str, outputs: int, inputs: int, bias: bool, deviation: float = DEVIATION) -> Iterator[Tensor]:
    yield f"{name}.weight", (outputs, inputs), 0.0, deviation
    if bias:
        yield f"{name}.bias", (outputs,), 0.0, DEVIATION


def layer_norm(name: str, width: int) -> Iterator[Tensor]:
    yield f"{name}.weight", (width,), 1.0, DEVIATION
    yield f"{name}.bias", (width,), 0.0, DEVIATION


def gpt2_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    width = config["n_embd"]
    yield "transformer.wte.weight", (config["vocab_size"], width), 0.0, DEVIATION
    yield "transformer.wpe.weight", (config["n_positions"], width), 0.0, 0.01
    for layer in range(config["n_layer"]):
        block = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            yield from layer_norm(f"{block}.{norm}", width)
        # Conv1D has its matrices [inputs, outputs].
        for name, inputs, outputs, deviation in (
            ("attn.c_attn", width, 3 * width, DEVIATION),
            ("attn.c_proj", width, width, residual),
            ("mlp.c_fc", width, 4 * width, DEVIATION),
            ("mlp.c_proj", 4 * width, width, residual),
        ):
            yield f"{block}.{name}.weight", (inputs, outputs), 0.0, deviation
            yield f"{block}.{name}.bias", (outputs,), 0.0, DEVIATION
    yield from layer_norm("transformer.ln_f", width)


def gptj_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    width, vocab = config["n_embd"], config["vocab_size"]
    yield "transformer.wte.weight", (vocab, width), 0.0, DEVIATION
    for layer in range(config["n_layer"]):
        block = f"transformer.h.{layer}"
        yield from layer_norm(f"{block}.ln_1", width)
        for name in ("k_proj", "v_proj", "q_proj"):
            yield from linear(f"{block}.attn.{name}", width, width, bias=False)
        yield from linear(f"{block}.attn.out_proj", width, width, bias=False, deviation=residual)
        yield from linear(f"{block}.mlp.fc_in", 4 * width, width, bias=True)
        yield from linear(f"{block}.mlp.fc_out", width, 4 * width, bias=True, deviation=residual)
    yield from layer_norm("transformer.ln_f", width)
    yield from linear("lm_head", vocab, width, bias=True)


def gpt_neo_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    width = config["hidden_size"]
    yield "transformer.wte.weight", (config["vocab_size"], width), 0.0, DEVIATION
    yield "transformer.wpe.weight", (config["max_position_embeddings"], width), 0.0, 0.01
    for layer in range(config["num_layers"]):
        block = f"transformer.h.{layer}"
        yield from layer_norm(f"{block}.ln_1", width)
        for name in ("k_proj", "v_proj", "q_proj"):
            yield from linear(f"{block}.attn.attention.{name}", width, width, bias=False)
        yield from linear(f"{block}.attn.attention.out_proj", width, width, bias=True, deviation=residual)
        yield from layer_norm(f"{block}.ln_2", width)
        yield from linear(f"{block}.mlp.c_fc", 4 * width, width, bias=True)
        yield from linear(f"{block}.mlp.c_proj", width, 4 * width, bias=True, deviation=residual)
    yield from layer_norm("transformer.ln_f", width)


def gpt_neox_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    width, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    yield "gpt_neox.embed_in.weight", (vocab, width), 0.0, DEVIATION
    for layer in range(config["num_hidden_layers"]):
        block = f"gpt_neox.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield from layer_norm(f"{block}.{norm}", width)
        yield from linear(f"{block}.attention.query_key_value", 3 * width, width, bias=True)
        yield from linear(f"{block}.attention.dense", width, width, bias=True, deviation=residual)
        yield from linear(f"{block}.mlp.dense_h_to_4h", inner, width, bias=True)
        yield from linear(f"{block}.mlp.dense_4h_to_h", width, inner, bias=True, deviation=residual)
    yield from layer_norm("gpt_neox.final_layer_norm", width)
    yield from linear("embed_out", vocab, width, bias=False)


def opt_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    width, inner, embedding = config["hidden_size"], config["ffn_dim"], config["word_embed_proj_dim"]
    decoder = "model.decoder"
    yield f"{decoder}.embed_tokens.weight", (config["vocab_size"], embedding), 0.0, DEVIATION
    # The first two rows are left from padding: positions count from 2.
    yield f"{decoder}.embed_positions.weight", (config["max_position_embeddings"] + 2, width), 0.0, 0.01
    if embedding != width:
        yield from linear(f"{decoder}.project_out", embedding, width, bias=False)
        yield from linear(f"{decoder}.project_in", width, embedding, bias=False)
    if config["do_layer_norm_before"]:
        yield from layer_norm(f"{decoder}.final_layer_norm", width)
    for layer in range(config["num_hidden_layers"]):
        block = f"{decoder}.layers.{layer}"
        for name in ("k_proj", "v_proj", "q_proj"):
            yield from linear(f"{block}.self_attn.{name}", width, width, bias=True)
        yield from linear(f"{block}.self_attn.out_proj", width, width, bias=True, deviation=residual)
        yield from layer_norm(f"{block}.self_attn_layer_norm", width)
        yield from linear(f"{block}.fc1", inner, width, bias=True)
        yield from linear(f"{block}.fc2", width, inner, bias=True, deviation=residual)
        yield from layer_norm(f"{block}.final_layer_norm", width)


def gpt_bigcode_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    width = config["n_embd"]
    fused = width + 2 * width // config["n_head"]  # one pair of keys and values
    yield "transformer.wte.weight", (config["vocab_size"], width), 0.0, DEVIATION
    yield "transformer.wpe.weight", (config["n_positions"], width), 0.0, 0.01
    for layer in range(config["n_layer"]):
        block = f"transformer.h.{layer}"
        yield from layer_norm(f"{block}.ln_1", width)
        yield from linear(f"{block}.attn.c_attn", fused, width, bias=True)
        yield from linear(f"{block}.attn.c_proj", width, width, bias=True, deviation=residual)
        yield from layer_norm(f"{block}.ln_2", width)
        yield from linear(f"{block}.mlp.c_fc", 4 * width, width, bias=True)
        yield from linear(f"{block}.mlp.c_proj", width, 4 * width, bias=True, deviation=residual)
    yield from layer_norm("transformer.ln_f", width)


def bloom_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    width = config["hidden_size"]
    yield "transformer.word_embeddings.weight", (config["vocab_size"], width), 0.0, DEVIATION
    yield from layer_norm("transformer.word_embeddings_layernorm", width)
    for layer in range(config["n_layer"]):
        block = f"transformer.h.{layer}"
        yield from layer_norm(f"{block}.input_layernorm", width)
        yield from linear(f"{block}.self_attention.query_key_value", 3 * width, width, bias=True)
        yield from linear(f"{block}.self_attention.dense", width, width, bias=True, deviation=residual)
        yield from layer_norm(f"{block}.post_attention_layernorm", width)
        yield from linear(f"{block}.mlp.dense_h_to_4h", 4 * width, width, bias=True)
        yield from linear(f"{block}.mlp.dense_4h_to_h", width, 4 * width, bias=True, deviation=residual)
    yield from layer_norm("transformer.ln_f", width)


def mpt_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    width = config["d_model"]
    yield "transformer.wte.weight", (config["vocab_size"], width), 0.0, DEVIATION
    for layer in range(config["n_layers"]):
        block = f"transformer.blocks.{layer}"
        for norm in ("norm_1", "norm_2"):
            yield f"{block}.{norm}.weight", (width,), 1.0, DEVIATION
        yield from linear(f"{block}.attn.Wqkv", 3 * width, width, bias=False)
        yield from linear(f"{block}.attn.out_proj", width, width, bias=False, deviation=residual)
        yield from linear(f"{block}.ffn.up_proj", 4 * width, width, bias=False)
        yield from linear(f"{block}.ffn.down_proj", width, 4 * width, bias=False, deviation=residual)
    yield "transformer.norm_f.weight", (width,), 1.0, DEVIATION


def falcon_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    """Of Falcon-7B's architecture: one norm, one pair of keys and values."""
    width = config["hidden_size"]
    fused = width + 2 * width // config["num_attention_heads"]
    yield "transformer.word_embeddings.weight", (config["vocab_size"], width), 0.0, DEVIATION
    for layer in range(config["num_hidden_layers"]):
        block = f"transformer.h.{layer}"
        yield from linear(f"{block}.self_attention.query_key_value", fused, width, bias=False)
        yield from linear(f"{block}.self_attention.dense", width, width, bias=False, deviation=residual)
        yield from linear(f"{block}.mlp.dense_h_to_4h", 4 * width, width, bias=False)
        yield from linear(f"{block}.mlp.dense_4h_to_h", width, 4 * width, bias=False, deviation=residual)
        yield from layer_norm(f"{block}.input_layernorm", width)
    yield from layer_norm("transformer.ln_f", width)


BLOCK_NORMS = ("input_layernorm", "post_attention_layernorm")
OUTPUT_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
SANDWICH_NORMS = (*BLOCK_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True)
class Parts:
    """What of a family's tensors is not Llama's."""

    norms: tuple[str, ...] = BLOCK_NORMS
    norm: str = "weight"
    """What a norm has: "weight", "both" (a bias, too) or ""."""
    gain: float = 1.0
    """The mean of a norm's weights: 0 where what is stored is what gains have beyond 1."""
    biases: tuple[str, ...] = ()
    """Matrices with a bias: "q" (with keys and values), "o", "mlp", "lm_head"."""
    head_norms: str = ""
    """Norms of queries and keys: "each" (of a head's width), "all" (of all heads' together)."""
    inner: tuple[str, ...] = ("gate_proj", "up_proj")
    """What the MLP begins with; "gate_up_proj" is twice as wide."""
    outer: str = "down_proj"
    fused: bool = False
    """Queries, keys and values are one matrix, qkv_proj."""
    projection: str = "o_proj"
    final_norm: str = "norm"


PARTS = {
    "qwen2": Parts(biases=("q",)),
    "qwen3": Parts(head_norms="each"),
    "gemma": Parts(gain=0.0),
    "gemma2": Parts(SANDWICH_NORMS, gain=0.0),
    "gemma3_text": Parts(SANDWICH_NORMS, gain=0.0, head_norms="each"),
    "phi": Parts(
        ("input_layernorm",),
        "both",
        biases=("q", "o", "mlp", "lm_head"),
        inner=("fc1",),
        outer="fc2",
        projection="dense",
        final_norm="final_layernorm",
    ),
    "phi3": Parts(fused=True, inner=("gate_up_proj",)),
    "olmo": Parts(norm=""),
    "olmo2": Parts(OUTPUT_NORMS, head_norms="all"),
    "olmo3": Parts(OUTPUT_NORMS, head_norms="all"),
    "stablelm": Parts(norm="both", biases=("q",)),
    "starcoder2": Parts(norm="both", biases=("q", "o", "mlp"), inner=("c_fc",), outer="c_proj"),
    "cohere": Parts(("input_layernorm",)),
    "cohere2": Parts(("input_layernorm",)),
    "glm4": Parts(
        (*BLOCK_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"), biases=("q",), inner=("gate_up_proj",)
    ),
    "nemotron": Parts(norm="both", gain=0.0, inner=("up_proj",)),
    "qwen2_moe": Parts(biases=("q",)),
    "qwen3_moe": Parts(head_norms="each"),
    "olmoe": Parts(head_norms="all"),
    "phimoe": Parts(norm="both", biases=("q", "o", "lm_head")),
    "gpt_oss": Parts(biases=("q", "o")),
}

W_EXPERTS = ("block_sparse_moe.gate", "block_sparse_moe.experts", ("w1", "w3", "w2"))
PROJ_EXPERTS = ("mlp.gate", "mlp.experts", ("gate_proj", "up_proj", "down_proj"))
EXPERTS = {
    **{family: W_EXPERTS for family in ("mixtral", "phimoe")},
    **{family: PROJ_EXPERTS for family in ("qwen2_moe", "qwen3_moe", "olmoe")},
}
"""Of families with a tensor for each matrix of each expert: names of the router, the experts, and their matrices."""


def expert_tensors(config: Config, block: str, residual: float) -> Iterator[Tensor]:
    """A layer's router and experts."""
    family, width = config["model_type"], config["hidden_size"]
    inner = config.get("moe_intermediate_size", config["intermediate_size"])
    count = config.get("num_local_experts") or config["num_experts"]
    if family == "granitemoe":
        yield from linear(f"{block}.block_sparse_moe.router.layer", count, width, bias=False)
        yield f"{block}.block_sparse_moe.input_linear.weight", (count, 2 * inner, width), 0.0, DEVIATION
        yield f"{block}.block_sparse_moe.output_linear.weight", (count, width, inner), 0.0, residual
        return
    if family == "gpt_oss":
        yield f"{block}.self_attn.sinks", (config["num_attention_heads"],), 0.0, DEVIATION
        yield from linear(f"{block}.mlp.router", count, width, bias=True)
        yield f"{block}.mlp.experts.gate_up_proj", (count, width, 2 * inner), 0.0, DEVIATION
        yield f"{block}.mlp.experts.gate_up_proj_bias", (count, 2 * inner), 0.0, DEVIATION
        yield f"{block}.mlp.experts.down_proj", (count, inner, width), 0.0, residual
        yield f"{block}.mlp.experts.down_proj_bias", (count, width), 0.0, DEVIATION
        return
    router, experts, (gate, up, down) = EXPERTS[family]
    yield from linear(f"{block}.{router}", count, width, bias=False)
    for expert in range(count):
        for name in (gate, up):
            yield from linear(f"{block}.{experts}.{expert}.{name}", inner, width, bias=False)
        yield from linear(f"{block}.{experts}.{expert}.{down}", width, inner, bias=False, deviation=residual)
    if shared := config.get("shared_expert_intermediate_size"):
        for name in (gate, up):
            yield from linear(f"{block}.mlp.shared_expert.{name}", shared, width, bias=False)
        yield from linear(f"{block}.mlp.shared_expert.{down}", width, shared, bias=False, deviation=residual)
        yield from linear(f"{block}.mlp.shared_expert_gate", 1, width, bias=False)


def gated_tensors(config: Config, residual: float) -> Iterator[Tensor]:
    """Of Llama and the families that share most of its names."""
    parts, width, inner = PARTS.get(config["model_type"], Parts()), config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or width // config["num_attention_heads"]
    queries, pairs = config["num_attention_heads"] * head, config["num_key_value_heads"] * head

    def norm(name: str) -> Iterator[Tensor]:
        if parts.norm:
            yield f"{name}.weight", (width,), parts.gain, DEVIATION
        if parts.norm == "both":
            yield f"{name}.bias", (width,), 0.0, DEVIATION

    yield "model.embed_tokens.weight", (config["vocab_size"], width), 0.0, DEVIATION
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        inputs = (("q_proj", queries), ("k_proj", pairs), ("v_proj", pairs))
        for name, outputs in (("qkv_proj", queries + 2 * pairs),) if parts.fused else inputs:
            yield from linear(f"{block}.self_attn.{name}", outputs, width, bias="q" in parts.biases)
        projection = f"{block}.self_attn.{parts.projection}"
        yield from linear(projection, width, queries, bias="o" in parts.biases, deviation=residual)
        if parts.head_norms:
            for name, wide in (("q_norm", queries), ("k_norm", pairs)):
                size = wide if parts.head_norms == "all" else head
                yield f"{block}.self_attn.{name}.weight", (size,), parts.gain, DEVIATION
        is_mixture = "num_experts_per_tok" in config
        if is_mixture:
            yield from expert_tensors(config, block, residual)
        for name in () if is_mixture else parts.inner:
            outputs = 2 * inner if name == "gate_up_proj" else inner
            yield from linear(f"{block}.mlp.{name}", outputs, width, bias="mlp" in parts.biases)
        if not is_mixture:
            bias = "mlp" in parts.biases
            yield from linear(f"{block}.mlp.{parts.outer}", width, inner, bias=bias, deviation=residual)
        for name in parts.norms:
            yield from norm(f"{block}.{name}")
    yield from norm(f"model.{parts.final_norm}")
    if not config["tie_word_embeddings"]:
        yield from linear("lm_head", config["vocab_size"], width, bias="lm_head" in parts.biases)


TENSORS_OF_FAMILIES = {
    "gpt2": gpt2_tensors,
    "gptj": gptj_tensors,
    "gpt_neo": gpt_neo_tensors,
    "gpt_neox": gpt_neox_tensors,
    "opt": opt_tensors,
    "gpt_bigcode": gpt_bigcode_tensors,
    "bloom": bloom_tensors,
    "mpt": mpt_tensors,
    "falcon": falcon_tensors,
}


def tensors_of(config: Config) -> list[Tensor]:
    """All tensors, as for a model before training: matrices N(0, 0.02), gains near 1, small biases.

    What is added to the residual stream is scaled down with the depth, which is GPT-2's own rule.
    """
    residual = DEVIATION / math.sqrt(2.0 * config[field_of(config, "layers")])
    return list(TENSORS_OF_FAMILIES.get(config["model_type"], gated_tensors)(config, residual))
