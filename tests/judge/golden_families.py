"""The golden models of the families beside GPT-2: each variant of the architecture that public checkpoints use.

Configs are written as the checkpoints on the Hub have them: in the fields of the time when the family came out, unless
a case says that its fields are those that transformers 5 writes.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import Any, Callable

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from golden_cases import FIRST, MIDDLE, NULL, ONE, Case, Prompt, Spec, Tensors
from reference_tracer import LAYOUTS

LLAMA_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "vocab_size": 48,
}
LAYER_NORM_SIZES = {name: size for name, size in LLAMA_SIZES.items() if name != "rms_norm_eps"}
GEMMA_SIZES = LLAMA_SIZES | {"head_dim": 12, "rms_norm_eps": 1e-6}

BASES: dict[str, dict[str, Any]] = {
    "gptj": {
        "architectures": ["GPTJForCausalLM"],
        "model_type": "gptj",
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "n_embd": 16,
        "n_head": 2,
        "n_inner": None,
        "n_layer": 2,
        "n_positions": 16,
        "rotary": True,
        "rotary_dim": 4,
        "tie_word_embeddings": False,
        "vocab_size": 48,
    },
    "gpt_neo": {
        "architectures": ["GPTNeoForCausalLM"],
        "model_type": "gpt_neo",
        "activation_function": "gelu_new",
        "attention_layers": ["global", "local"],
        "attention_types": [[["global", "local"], 1]],
        "hidden_size": 16,
        "intermediate_size": None,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 16,
        "num_heads": 2,
        "num_layers": 2,
        "vocab_size": 48,
        "window_size": 3,
    },
    "gpt_neox": {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_act": "gelu",
        "hidden_size": 32,
        "intermediate_size": 24,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "vocab_size": 48,
    },
    "opt": {
        "_remove_final_layer_norm": False,
        "activation_function": "relu",
        "architectures": ["OPTForCausalLM"],
        "do_layer_norm_before": True,
        "ffn_dim": 24,
        "hidden_size": 16,
        "max_position_embeddings": 16,
        "model_type": "opt",
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": 48,
        "word_embed_proj_dim": 16,
    },
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "mistral": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "rope_theta": 10000.0,
        "sliding_window": 3,
        "tie_word_embeddings": False,
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "max_window_layers": 1,
        "rope_theta": 1000000.0,
        "sliding_window": 3,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 12,
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "max_window_layers": 2,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    },
    "gemma": {
        "architectures": ["GemmaForCausalLM"],
        "model_type": "gemma",
        "attention_bias": False,
        "hidden_act": "gelu",
        "hidden_activation": None,
        **GEMMA_SIZES,
        "rope_scaling": None,
        "rope_theta": 10000.0,
    },
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "attention_bias": False,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 6.0,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        **GEMMA_SIZES,
        "query_pre_attn_scalar": 7,
        "rope_theta": 10000.0,
        "sliding_window": 3,
    },
    "gemma3_text": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu_pytorch_tanh",
        **GEMMA_SIZES,
        "num_hidden_layers": 3,
        "query_pre_attn_scalar": 7,
        "rope_local_base_freq": 100.0,
        "rope_scaling": None,
        "rope_theta": 10000,
        "sliding_window": 3,
        "sliding_window_pattern": 3,
    },
}
BASES |= {
    "gpt_bigcode": {
        "architectures": ["GPTBigCodeForCausalLM"],
        "model_type": "gpt_bigcode",
        "activation_function": "gelu_pytorch_tanh",
        "attention_softmax_in_fp32": True,
        "layer_norm_epsilon": 1e-5,
        "multi_query": True,
        "n_embd": 16,
        "n_head": 2,
        "n_inner": 24,
        "n_layer": 2,
        "n_positions": 16,
        "scale_attention_softmax_in_fp32": True,
        "scale_attn_weights": True,
        "vocab_size": 48,
    },
    "bloom": {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "apply_residual_connection_post_layernorm": False,
        "layer_norm_epsilon": 1e-5,
        "n_embed": 16,
        "n_layer": 2,
        "num_attention_heads": 2,
        "pretraining_tp": 1,
        "seq_length": 32,
        "slow_but_exact": False,
        "vocab_size": 48,
    },
    "mpt": {
        "architectures": ["MPTForCausalLM"],
        "model_type": "mpt",
        "attn_config": {
            "alibi": True,
            "alibi_bias_max": 8,
            "attn_impl": "torch",
            "attn_pdrop": 0,
            "attn_type": "multihead_attention",
            "attn_uses_sequence_id": False,
            "clip_qkv": None,
            "prefix_lm": False,
            "qk_ln": False,
            "softmax_scale": None,
        },
        "d_model": 16,
        "emb_pdrop": 0,
        "embedding_fraction": 1.0,
        "expansion_ratio": 4,
        "init_device": "cpu",
        "learned_pos_emb": True,
        "logit_scale": None,
        "max_seq_len": 32,
        "n_heads": 2,
        "n_layers": 2,
        "no_bias": True,
        "norm_type": "low_precision_layernorm",
        "resid_pdrop": 0,
        "vocab_size": 48,
    },
    "falcon": {
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "alibi": False,
        "apply_residual_connection_post_layernorm": False,
        "bias": False,
        "hidden_size": 16,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 32,
        "multi_query": True,
        "new_decoder_architecture": False,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_kv_heads": 2,
        "parallel_attn": True,
        "vocab_size": 48,
    },
    "phi": {
        "architectures": ["PhiForCausalLM"],
        "model_type": "phi",
        "hidden_act": "gelu_new",
        **LAYER_NORM_SIZES,
        "layer_norm_eps": 1e-5,
        "num_key_value_heads": None,
        "partial_rotary_factor": 0.5,
        "qk_layernorm": False,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "phi3": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "num_key_value_heads": 2,
        "original_max_position_embeddings": 32,
        "pad_token_id": None,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": 3,
        "tie_word_embeddings": False,
    },
    "olmo": {
        "architectures": ["OlmoForCausalLM"],
        "model_type": "olmo",
        "attention_bias": False,
        "clip_qkv": None,
        "hidden_act": "silu",
        **LAYER_NORM_SIZES,
        "num_key_value_heads": 2,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
    "olmo2": {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        "attention_bias": False,
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "num_key_value_heads": 2,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
    },
    "olmo3": {
        "architectures": ["Olmo3ForCausalLM"],
        "model_type": "olmo3",
        "attention_bias": False,
        "hidden_act": "silu",
        "layer_types": ["sliding_attention", "full_attention"],
        **LLAMA_SIZES,
        "num_key_value_heads": 2,
        "rope_scaling": None,
        "rope_theta": 500000,
        "sliding_window": 3,
        "tie_word_embeddings": False,
    },
    "stablelm": {
        "architectures": ["StableLmForCausalLM"],
        "model_type": "stablelm",
        "hidden_act": "silu",
        **LAYER_NORM_SIZES,
        "hidden_size": 32,
        "layer_norm_eps": 1e-5,
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.25,
        "qk_layernorm": False,
        "rope_scaling": None,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
        "use_parallel_residual": False,
        "use_qkv_bias": False,
    },
    "starcoder2": {
        "architectures": ["Starcoder2ForCausalLM"],
        "model_type": "starcoder2",
        "hidden_act": "gelu_pytorch_tanh",
        **LAYER_NORM_SIZES,
        "mlp_type": "default",
        "norm_epsilon": 1e-5,
        "norm_type": "layer_norm",
        "rope_theta": 999999.4420358813,
        "sliding_window": 3,
        "use_bias": True,
    },
    "smollm3": {
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "attention_bias": False,
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "layer_types": ["full_attention", "full_attention"],
        "max_window_layers": 28,
        "mlp_bias": False,
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 0],
        "pad_token_id": None,
        "pretraining_tp": 2,
        "rope_scaling": None,
        "rope_theta": 5000000.0,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "granite": {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "attention_bias": False,
        "attention_multiplier": 0.25,
        "embedding_multiplier": 3.0,
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "logits_scaling": 2.0,
        "mlp_bias": False,
        "residual_multiplier": 0.4,
        "rope_scaling": None,
        "rope_theta": 10000,
        "tie_word_embeddings": True,
    },
    "cohere": {
        "architectures": ["CohereForCausalLM"],
        "model_type": "cohere",
        "attention_bias": False,
        "hidden_act": "silu",
        **LAYER_NORM_SIZES,
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.8,
        "num_key_value_heads": 2,
        "rope_theta": 8000000.0,
        "use_qk_norm": False,
    },
    "cohere2": {
        "architectures": ["Cohere2ForCausalLM"],
        "model_type": "cohere2",
        "attention_bias": False,
        "head_dim": 8,
        "hidden_act": "silu",
        **LAYER_NORM_SIZES,
        "layer_norm_eps": 1e-5,
        "layer_switch": 2,
        "logit_scale": 0.8,
        "order_of_interleaved_layers": "local_attn_first",
        "position_embedding_type": "rope_gptj",
        "rope_scaling": None,
        "rope_theta": 50000,
        "rotary_pct": 1.0,
        "sliding_window": 3,
        "sliding_window_pattern": 2,
        "use_embedding_sharing": True,
        "use_gated_activation": True,
        "use_parallel_block": True,
        "use_parallel_embedding": False,
    },
    "glm4": {
        "architectures": ["Glm4ForCausalLM"],
        "model_type": "glm4",
        "attention_bias": True,
        "head_dim": 12,
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "pad_token_id": None,
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    },
    "nemotron": {
        "architectures": ["NemotronForCausalLM"],
        "model_type": "nemotron",
        "attention_bias": False,
        "head_dim": None,
        "hidden_act": "relu2",
        **LAYER_NORM_SIZES,
        "mlp_bias": False,
        "norm_eps": 1e-5,
        "partial_rotary_factor": 0.5,
        "rope_scaling": None,
        "rope_theta": 10000,
        "tie_word_embeddings": False,
    },
}
BASES |= {
    "mixtral": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "num_experts_per_tok": 2,
        "num_local_experts": 4,
        "output_router_logits": False,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "qwen2_moe": {
        "architectures": ["Qwen2MoeForCausalLM"],
        "model_type": "qwen2_moe",
        "decoder_sparse_step": 1,
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "max_window_layers": 1,
        "moe_intermediate_size": 12,
        "norm_topk_prob": False,
        "num_experts": 5,
        "num_experts_per_tok": 3,
        "num_key_value_heads": 2,
        "output_router_logits": False,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 28,
        "sliding_window": 3,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
    },
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "head_dim": 12,
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "max_window_layers": 2,
        "mlp_only_layers": [],
        "moe_intermediate_size": 12,
        "norm_topk_prob": True,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "output_router_logits": False,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
    },
    "olmoe": {
        "architectures": ["OlmoeForCausalLM"],
        "model_type": "olmoe",
        "attention_bias": False,
        "clip_qkv": None,
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "norm_topk_prob": False,
        "num_experts": 8,
        "num_experts_per_tok": 4,
        "num_key_value_heads": 2,
        "output_router_logits": False,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "router_aux_loss_coef": 0.01,
        "tie_word_embeddings": False,
    },
    "granitemoe": {
        "architectures": ["GraniteMoeForCausalLM"],
        "model_type": "granitemoe",
        "attention_bias": False,
        "attention_multiplier": 0.25,
        "embedding_multiplier": 3.0,
        "hidden_act": "silu",
        **LLAMA_SIZES,
        "logits_scaling": 2.0,
        "num_experts_per_tok": 3,
        "num_local_experts": 6,
        "output_router_logits": False,
        "residual_multiplier": 0.8,
        "rope_scaling": None,
        "rope_theta": 10000,
        "router_aux_loss_coef": 0.0,
        "tie_word_embeddings": True,
    },
    "phimoe": {
        "architectures": ["PhiMoEForCausalLM"],
        "model_type": "phimoe",
        "attention_bias": True,
        "hidden_act": "silu",
        "hidden_dropout": 0.0,
        "input_jitter_noise": 0.01,
        **LLAMA_SIZES,
        "lm_head_bias": True,
        "num_experts_per_tok": 2,
        "num_local_experts": 6,
        "original_max_position_embeddings": 16,
        "output_router_logits": False,
        "rope_scaling": {
            "long_factor": [2.0, 3.0, 4.0, 5.0],
            "long_mscale": 1.3,
            "original_max_position_embeddings": 16,
            "short_factor": [1.0, 1.1, 1.3, 1.6],
            "short_mscale": 1.2,
            "type": "longrope",
        },
        "rope_theta": 10000.0,
        "router_aux_loss_coef": 0.0,
        "router_jitter_noise": 0.2,
        "sliding_window": 4,
        "tie_word_embeddings": False,
    },
    "gpt_oss": {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "experts_per_token": 2,
        "head_dim": 12,
        "hidden_act": "silu",
        "initial_context_length": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        **LLAMA_SIZES,
        "num_experts_per_tok": 2,
        "num_local_experts": 4,
        "output_router_logits": False,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 2.0,
            "original_max_position_embeddings": 16,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 3,
        "swiglu_limit": 1.5,
        "tie_word_embeddings": False,
    },
}
BASES["gemma3"] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 44,
    "eoi_token_index": 45,
    "image_token_index": 46,
    "mm_tokens_per_image": 1,
    "model_type": "gemma3",
    "text_config": {
        name: value
        for name, value in BASES["gemma3_text"].items()
        if name not in ("architectures", "rope_local_base_freq", "sliding_window_pattern", "rope_scaling")
    },
    "vision_config": {
        "hidden_size": 4,
        "image_size": 4,
        "intermediate_size": 4,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "patch_size": 4,
        "vision_use_head": False,
    },
}


# --- Weights ----------------------------------------------------------------------------------------------------

# What writes into the stream; every other matrix reads from it.
WRITES = ("out_proj", "o_proj", "c_proj", "fc_out", "fc2", "down_proj", "dense", "dense_4h_to_h")
SCALED_EMBEDDINGS = ("gemma", "gemma2", "gemma3_text", "gemma3")
NORMS_FROM_ZERO = (*SCALED_EMBEDDINGS, "nemotron")


def tensor_shapes(config: dict[str, Any]) -> dict[str, torch.Size]:
    """Shapes of the parameters by their names in transformers' module, without those that a tied head repeats."""
    fields = {name: value for name, value in config.items() if name not in ("architectures", "model_type")}
    model_config = AutoConfig.for_model(config["model_type"], **fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters(remove_duplicate=False)}
    repeated = model._tied_weights_keys if model_config.tie_word_embeddings else ()
    return {name: shape for name, shape in shapes.items() if name not in repeated}


def make_family_weights(case: Case, config: dict[str, Any]) -> Tensors:
    """Random float64 weights, each tensor from a stream of its own.

    As for GPT-2: matrices keep the scale of what passes through them, norms and biases are neither 0 nor 1, and the
    embeddings are wide enough for probabilities to differ.
    """
    norm = 0.0 if config["model_type"] in NORMS_FROM_ZERO else 1.0
    embedding = LAYOUTS[config["model_type"]].embedding
    tensors: Tensors = {}
    for name, shape in tensor_shapes(config).items():
        module, kind = name.rpartition(".")[::2]
        last = module.rpartition(".")[2]
        if kind.endswith("bias"):
            mean, std = 0.0, 0.1
        elif len(shape) == 1 or "norm" in last:
            mean, std = norm, 0.2
        elif module == embedding:
            mean, std = 0.0, case.embedding_std
        elif last in ("wpe", "embed_positions"):
            mean, std = 0.0, 0.4 * case.embedding_std
        elif last == "lm_head":
            mean, std = 0.0, 0.5
        else:
            mean, std = 0.0, (case.gain if last in WRITES or kind in WRITES else 1.4) / shape[-1] ** 0.5
        random = np.random.RandomState(zlib.crc32(f"{case.name} {name}".encode()))
        tensors[name] = torch.from_numpy(mean + std * random.randn(*shape))
    return tensors


# --- Experts as public checkpoints have them ---------------------------------------------------------------------


def experts_apart(layer: str, names: tuple[str, str, str], tensors: Tensors) -> Tensors:
    """Three matrices for each expert, by `names` of gate, up and down; in transformers' modules all are together.

    `layer` is what the file calls a layer's "mlp".
    """
    result: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.replace(".mlp.", f".{layer}.").rpartition(".")
        if not stem.endswith(".experts"):
            result[name.replace(".mlp.", f".{layer}.").replace(".router.", ".gate.")] = tensor
            continue
        for expert, matrix in enumerate(tensor):
            parts = dict(zip(names[:2], matrix.chunk(2))) if kind == "gate_up_proj" else {names[2]: matrix}
            result |= {f"{stem}.{expert}.{part}.weight": each.clone() for part, each in parts.items()}
    return result


def granite_names(tensors: Tensors) -> Tensors:
    """All experts together, by the names of the first files."""
    names = {"experts.gate_up_proj": "input_linear.weight", "experts.down_proj": "output_linear.weight"}
    names["router.weight"] = "router.layer.weight"
    result = {}
    for name, tensor in tensors.items():
        for ours, theirs in names.items():
            name = name.replace(f"block_sparse_moe.{ours}", f"block_sparse_moe.{theirs}")
        result[name] = tensor
    return result


W_NAMES = partial(experts_apart, "block_sparse_moe", ("w1", "w3", "w2"))
PROJ_NAMES = partial(experts_apart, "mlp", ("gate_proj", "up_proj", "down_proj"))
PUBLIC_NAMES: dict[str, Callable[[Tensors], Tensors]] = {
    **{family: W_NAMES for family in ("mixtral", "phimoe")},
    **{family: PROJ_NAMES for family in ("qwen2_moe", "qwen3_moe", "olmoe")},
    "granitemoe": granite_names,
}
"""Tensors of transformers' modules -> those of public checkpoints, where they are others."""


def public_names(family: str, tensors: Tensors) -> Tensors:
    return PUBLIC_NAMES.get(family, dict)(tensors)


# --- Names and buffers of old checkpoints -----------------------------------------------------------------------


def causal_mask(positions: int) -> torch.Tensor:
    return torch.ones(positions, positions, dtype=torch.bool).tril().view(1, 1, positions, positions)


def with_old_gptj_buffers(tensors: Tensors) -> Tensors:
    """Causal masks and masking values, which old versions of transformers saved."""
    masks = {f"transformer.h.{layer}.attn.bias": causal_mask(16) for layer in range(2)}
    values = {f"transformer.h.{layer}.attn.masked_bias": torch.tensor(-1e9) for layer in range(2)}
    return tensors | masks | values


def with_old_gpt_neo_buffers(tensors: Tensors) -> Tensors:
    """Likewise; as bytes, and one level deeper."""
    masks = {f"transformer.h.{layer}.attn.attention.bias": causal_mask(16).to(torch.uint8) for layer in range(3)}
    values = {f"transformer.h.{layer}.attn.attention.masked_bias": torch.tensor(-1e9) for layer in range(3)}
    return tensors | masks | values


def with_embed_out(tensors: Tensors) -> Tensors:
    """The head's name in GPT-NeoX's checkpoints; lm_head in files that transformers 5 writes of new models."""
    return {name.replace("lm_head.", "embed_out."): tensor for name, tensor in tensors.items()}


def with_old_gpt_neox_buffers(tensors: Tensors) -> Tensors:
    """That name, masks, masking values and rotary frequencies; these are wrong here, to show that nobody reads them."""
    result = with_embed_out(tensors)
    for layer in range(2):
        attention = f"gpt_neox.layers.{layer}.attention"
        result[f"{attention}.bias"] = causal_mask(16)
        result[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        result[f"{attention}.rotary_emb.inv_freq"] = torch.tensor([0.7, 0.3])
    return result


def with_old_llama_buffers(tensors: Tensors) -> Tensors:
    """Rotary frequencies, wrong here, to show that nobody reads them."""
    frequencies = torch.tensor([0.7, 0.5, 0.3, 0.1])
    return tensors | {
        f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": frequencies.clone() for layer in range(2)
    }


def without_model_prefix(tensors: Tensors) -> Tensors:
    """OPTModel's names, as some of the first OPT checkpoints have them, and the tied head once more."""
    result = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return result | {"lm_head.weight": tensors["model.decoder.embed_tokens.weight"].clone()}


def without_transformer_prefix(tensors: Tensors) -> Tensors:
    """BloomModel's names, as most BLOOM checkpoints have them."""
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def with_multimodal_names(tensors: Tensors) -> Tensors:
    """The names of Gemma 3's checkpoints that see images."""
    renamed = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.": "",
    }

    def rename(name: str) -> str:
        old = next(prefix for prefix in renamed if name.startswith(prefix))
        return renamed[old] + name.removeprefix(old)

    return {rename(name): tensor for name, tensor in tensors.items()}


# --- The cases --------------------------------------------------------------------------------------------------

MPT_ATTENTION = BASES["mpt"]["attn_config"]
LONG = Prompt(8, (1, 3))  # longer than every window of attention here
LONG_LAST = Prompt(7, (5, 7))
TRACES = (
    Spec("state", MIDDLE, samples=4),
    Spec("mlp", LONG, window=1, samples=4),
    Spec("attn", FIRST, window=3, samples=4),
)
OTHER_TRACES = (
    Spec("attn", LONG, window=1, samples=4),
    Spec("state", ONE, samples=4, distribution="uniform", replace=True),
    Spec("mlp", LONG_LAST, window=3, samples=4, seed=3, target=True),
)
BF16, F16 = torch.bfloat16, torch.float16


def family_case(name: str, family: str, about: str, config: dict[str, Any] | None = None, **fields: Any) -> Case:
    """A case with the prompts and traces that all families have."""
    if family in SCALED_EMBEDDINGS:
        fields = {"embedding_std": 0.35} | fields  # times the square root of the width
    fields = {"prompts": (LONG,), "traces": TRACES, "stored": BF16} | fields
    return Case(name, about, config or {}, family, **fields)


def default_case(name: str, family: str, fields: str, changes: dict[str, Any] | None = None, **more: Any) -> Case:
    """A case whose config.json leaves out `fields`: transformers' defaults hold."""
    left_out = dict.fromkeys(fields.split())
    about = f"config.json without {', '.join(left_out)}: transformers' defaults hold"
    return family_case(name, family, about, left_out | (changes or {}), traces=TRACES[:1], **more)


FAMILY_CASES = (
    # GPT-J
    family_case(
        "gptj",
        "gptj",
        "a part of each head turned, parallel residual, a head with a bias",
        counts=({"rotary_dim": 8}, {"activation_function": "gelu"}),
    ),
    family_case(
        "gptj_old_buffers",
        "gptj",
        "n_inner set; attn.bias and attn.masked_bias in the file, to be ignored; four heads, turned whole",
        {"n_inner": 20, "n_head": 4},
        stored=F16,
        layout=with_old_gptj_buffers,
        traces=OTHER_TRACES,
        counts=({"rotary_dim": 2},),
    ),
    default_case(
        "gptj_default_fields",
        "gptj",
        "activation_function layer_norm_epsilon n_inner rotary tie_word_embeddings",
        stored=F16,
        counts=({"activation_function": "gelu"},),
    ),
    # GPT-Neo
    family_case(
        "gpt_neo",
        "gpt_neo",
        "global and local layers in turn, attention not scaled",
        stored=torch.float32,
        counts=({"window_size": 4}, {"attention_layers": ["global"] * 2}, {"attention_layers": ["local"] * 2}),
    ),
    family_case(
        "gpt_neo_old_buffers",
        "gpt_neo",
        "types in two runs, intermediate_size set, masks in the file, to be ignored",
        {
            "attention_layers": None,
            "attention_types": [[["global"], 1], [["local"], 2]],
            "num_layers": 3,
            "intermediate_size": 24,
            "window_size": 2,
        },
        stored=F16,
        layout=with_old_gpt_neo_buffers,
        traces=OTHER_TRACES,
        counts=({"attention_types": [[["local"], 1], [["global"], 2]]},),
    ),
    default_case(
        "gpt_neo_default_fields",
        "gpt_neo",
        "activation_function attention_layers intermediate_size layer_norm_epsilon window_size",
        stored=F16,
        counts=({"activation_function": "gelu"}, {"window_size": 3}),
    ),
    # GPT-NeoX and Pythia
    family_case(
        "gpt_neox",
        "gpt_neox",
        "Pythia: parallel residual, a quarter of each head turned; old buffers in the file, to be ignored",
        stored=F16,
        layout=with_old_gpt_neox_buffers,
        counts=({"use_parallel_residual": False}, {"rotary_pct": 0.5}, {"hidden_act": "relu"}),
    ),
    family_case(
        "gpt_neox_sequential",
        "gpt_neox",
        "sequential residual, heads turned whole, another base, gelu_fast, no attention bias, a tied head",
        {
            "attention_bias": False,
            "hidden_act": "gelu_fast",
            "hidden_size": 16,
            "rotary_emb_base": 500,
            "rotary_pct": 1.0,
            "tie_word_embeddings": True,
            "use_parallel_residual": False,
        },
        traces=OTHER_TRACES,
        counts=(
            {"use_parallel_residual": True},
            {"rotary_emb_base": 10000},
            {"rotary_pct": 0.5},
            {"hidden_act": "gelu"},
        ),
    ),
    family_case(
        "gpt_neox_rope_parameters",
        "gpt_neox",
        "fields of transformers 5: rope_parameters with partial_rotary_factor",
        {
            "hidden_size": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500, "partial_rotary_factor": 0.5},
            "rotary_emb_base": None,
            "rotary_pct": None,
        },
        counts=({"rope_parameters": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.5}},),
    ),
    family_case(
        "gpt_neox_default_fields",
        "gpt_neox",
        "config.json without residual, rotary fields, activation, epsilon and tying: transformers' defaults hold",
        {
            name: None
            for name in (
                "use_parallel_residual rotary_pct rotary_emb_base hidden_act layer_norm_eps tie_word_embeddings".split()
            )
        },
        stored=F16,
        layout=with_embed_out,
        traces=OTHER_TRACES,
        counts=({"rotary_pct": 1.0}, {"use_parallel_residual": False}, {"hidden_act": "gelu_new"}),
    ),
    # OPT
    family_case("opt", "opt", "norms before, ReLU, a tied head", stored=F16, counts=({"activation_function": "gelu"},)),
    family_case(
        "opt_norm_after",
        "opt",
        "OPT-350m: norms after, embeddings projected in and out",
        {"do_layer_norm_before": False, "word_embed_proj_dim": 10},
        stored=F16,
        traces=(*TRACES, *OTHER_TRACES),
        counts=({"activation_function": "gelu"},),
    ),
    family_case(
        "opt_no_final_norm",
        "opt",
        "no final norm; GELU; names without model., as in some of the first checkpoints, and the tied head once more",
        {"_remove_final_layer_norm": True, "activation_function": "gelu"},
        stored=F16,
        gain=0.5,
        layout=without_model_prefix,
        traces=OTHER_TRACES,
        counts=({"activation_function": "relu"},),
    ),
    family_case(
        "opt_no_bias",
        "opt",
        "Galactica: no biases and norms without weights",
        {"activation_function": "gelu", "enable_bias": False, "layer_norm_elementwise_affine": False},
        stored=F16,
    ),
    default_case(
        "opt_default_fields",
        "opt",
        "_remove_final_layer_norm activation_function do_layer_norm_before word_embed_proj_dim",
        stored=F16,
        counts=({"activation_function": "gelu"},),
    ),
    # Llama
    family_case(
        "llama",
        "llama",
        "Llama 1: as many keys as heads, no rope fields; rotary_emb.inv_freq in the file, to be ignored",
        {"num_key_value_heads": None, "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": None},
        stored=F16,
        layout=with_old_llama_buffers,
        counts=({"rope_theta": 500.0},),
    ),
    family_case(
        "llama_grouped",
        "llama",
        "Llama 2 70B: heads in groups, each with its keys",
        {"num_attention_heads": 4, "num_key_value_heads": 2, "rope_scaling": NULL},
        traces=OTHER_TRACES,
    ),
    family_case(
        "llama_biases",
        "llama",
        "biases everywhere, heads wider than their share, a tied head",
        {"attention_bias": True, "mlp_bias": True, "head_dim": 12, "tie_word_embeddings": True},
    ),
    family_case(
        "llama_large_epsilon",
        "llama",
        "rms_norm_eps 1e-2 on a stream small enough for it to count",
        {"rms_norm_eps": 1e-2},
        gain=0.1,
        embedding_std=0.15,
        traces=OTHER_TRACES[1:],
        counts=({"rms_norm_eps": 1e-5},),
    ),
    family_case(
        "llama_linear",
        "llama",
        "rope_scaling linear, in its first spelling",
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        traces=OTHER_TRACES,
        counts=({"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_scaling": None}),
    ),
    family_case(
        "llama_dynamic",
        "llama",
        "rope_scaling dynamic: nothing to scale in prompts that the model was trained for",
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_theta": 500.0},
        counts=({"rope_theta": 10000.0},),
    ),
    family_case(
        "llama_llama3",
        "llama",
        "Llama 3: rope_scaling llama3 with wavelengths of all three sorts, a tied head",
        {
            "head_dim": 16,
            "rope_scaling": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 32,
                "rope_type": "llama3",
            },
            "rope_theta": 500.0,
            "tie_word_embeddings": True,
        },
        traces=OTHER_TRACES,
        counts=({"rope_scaling": None},),
    ),
    family_case(
        "llama_yarn",
        "llama",
        "rope_scaling yarn",
        {
            "head_dim": 16,
            "rope_scaling": {
                "beta_fast": 4.0,
                "beta_slow": 0.5,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "rope_type": "yarn",
            },
        },
        counts=({"rope_scaling": None},),
    ),
    family_case(
        "llama_original_positions",
        "llama",
        "original_max_position_embeddings beside rope_scaling, which comes before the one in it",
        {
            "head_dim": 16,
            "original_max_position_embeddings": 4,
            "rope_scaling": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 32,
                "rope_type": "llama3",
            },
            "rope_theta": 500.0,
        },
        counts=({"original_max_position_embeddings": None},),
    ),
    family_case(
        "llama_rope_parameters",
        "llama",
        "fields of transformers 5: rope_parameters",
        {
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
            "rope_scaling": None,
            "rope_theta": None,
        },
        traces=OTHER_TRACES,
        counts=({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},),
    ),
    family_case(
        "llama_rope_parameters_linear",
        "llama",
        "fields of transformers 5: rope_parameters with scaling",
        {
            "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
            "rope_scaling": None,
            "rope_theta": None,
        },
        counts=({"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},),
    ),
    default_case(
        "llama_default_fields",
        "llama",
        "hidden_act num_key_value_heads rms_norm_eps rope_theta rope_scaling tie_word_embeddings",
        embedding_std=0.01,
        gain=0.05,
        counts=({"hidden_act": "gelu"}, {"rms_norm_eps": 1e-5}, {"rope_theta": 500.0}),
    ),
    # Mistral
    family_case(
        "mistral",
        "mistral",
        "a sliding window of three; only through three layers does the end of a prompt hear of its start",
        {"num_hidden_layers": 3},
        counts=({"sliding_window": 4}, {"sliding_window": NULL}),
    ),
    family_case(
        "mistral_full",
        "mistral",
        "sliding_window null; heads narrower than their share",
        {"head_dim": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": NULL},
        traces=OTHER_TRACES,
        counts=({"sliding_window": 3},),
    ),
    # Qwen 2
    family_case(
        "qwen2",
        "qwen2",
        "biases of queries, keys and values; a window that is not used; a tied head",
        counts=({"use_sliding_window": True},),
    ),
    family_case(
        "qwen2_sliding",
        "qwen2",
        "use_sliding_window with max_window_layers: the second layer slides; own head",
        {"use_sliding_window": True, "tie_word_embeddings": False},
        traces=OTHER_TRACES,
        counts=({"max_window_layers": 0}, {"max_window_layers": 2}),
    ),
    family_case(
        "qwen2_all_slide",
        "qwen2",
        "every layer slides: max_window_layers 0",
        {"max_window_layers": 0, "num_hidden_layers": 3, "sliding_window": 4, "use_sliding_window": True},
        counts=({"max_window_layers": 1}, {"use_sliding_window": False}),
    ),
    family_case(
        "qwen2_layer_types",
        "qwen2",
        "fields of transformers 5: layer_types and rope_parameters; the first layer slides",
        {
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
            "rope_theta": None,
            "use_sliding_window": True,
        },
        counts=({"layer_types": ["full_attention", "sliding_attention"]},),
    ),
    family_case(
        "qwen2_yarn",
        "qwen2",
        "rope_scaling yarn, in its first spelling and with its defaults",
        {
            "head_dim": 16,
            "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 512, "type": "yarn"},
            "max_position_embeddings": 2048,
        },
        traces=OTHER_TRACES,
        counts=({"rope_scaling": None},),
    ),
    # Qwen 3
    family_case("qwen3", "qwen3", "norms of queries and keys, heads wider than their share, a tied head"),
    family_case(
        "qwen3_sliding",
        "qwen3",
        "attention biases, a window in the second layer, groups of heads, own head",
        {
            "attention_bias": True,
            "head_dim": 6,
            "max_window_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "sliding_window": 3,
            "tie_word_embeddings": False,
            "use_sliding_window": True,
        },
        traces=OTHER_TRACES,
        counts=({"use_sliding_window": False},),
    ),
    # Gemma
    family_case(
        "gemma",
        "gemma",
        "Gemma 2B: scaled embeddings, (1 + w) norms, one pair of keys and values; hidden_act gelu means the tanh form",
        {"hidden_activation": NULL},
    ),
    family_case(
        "gemma_full",
        "gemma",
        "Gemma 7B: as many keys as heads; fields of transformers 5",
        {
            "head_dim": 6,
            "hidden_act": "gelu_pytorch_tanh",
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
            "rope_scaling": None,
            "rope_theta": None,
        },
        traces=OTHER_TRACES,
        counts=({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},),
    ),
    # Gemma 2
    family_case(
        "gemma2",
        "gemma2",
        "norms around each sub-layer, capped scores and logits, own scale of queries, every other layer slides",
        counts=(
            {"attn_logit_softcapping": 3.0},
            {"final_logit_softcapping": 30.0},
            {"query_pre_attn_scalar": 12},
            {"sliding_window": 4},
        ),
    ),
    family_case(
        "gemma2_layer_types",
        "gemma2",
        "no caps; fields of transformers 5: the second layer slides",
        {
            "attn_logit_softcapping": NULL,
            "final_logit_softcapping": NULL,
            "layer_types": ["full_attention", "sliding_attention"],
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
            "rope_theta": None,
        },
        traces=OTHER_TRACES,
        counts=({"layer_types": ["sliding_attention", "full_attention"]}, {"attn_logit_softcapping": 2.0}),
    ),
    default_case(
        "gemma2_default_fields",
        "gemma2",
        "attn_logit_softcapping final_logit_softcapping hidden_act hidden_activation query_pre_attn_scalar sliding_window",
        {"rms_norm_eps": None, "rope_theta": None, "tie_word_embeddings": None},
        counts=(
            {"attn_logit_softcapping": NULL},
            {"final_logit_softcapping": NULL},
            {"query_pre_attn_scalar": 12},
            {"sliding_window": 3},
        ),
    ),
    # Gemma 3
    family_case(
        "gemma3",
        "gemma3_text",
        "two local layers to a global one, each with its rope base, the global ones scaled; norms of queries and keys",
        {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
        counts=(
            {"rope_local_base_freq": 10000.0},
            {"rope_theta": 100},
            {"rope_scaling": None},
            {"sliding_window_pattern": 2},
            {"sliding_window": 4},
            {"query_pre_attn_scalar": 12},
        ),
    ),
    family_case(
        "gemma3_layer_types",
        "gemma3_text",
        "fields of transformers 5: layer_types and rope_parameters of each type",
        {
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "num_key_value_heads": 2,
            "rope_local_base_freq": None,
            "rope_parameters": {
                "full_attention": {"factor": 4.0, "rope_theta": 10000.0, "rope_type": "linear"},
                "sliding_attention": {"rope_theta": 100.0, "rope_type": "default"},
            },
            "rope_scaling": None,
            "rope_theta": None,
            "sliding_window_pattern": None,
        },
        traces=OTHER_TRACES,
        counts=({"layer_types": ["sliding_attention"] * 3},),
    ),
    default_case(
        "gemma3_default_fields",
        "gemma3_text",
        "query_pre_attn_scalar rms_norm_eps rope_local_base_freq rope_theta sliding_window sliding_window_pattern",
        {"hidden_activation": None, "max_position_embeddings": None, "num_hidden_layers": 6, "head_dim": 4},
        counts=(
            {"query_pre_attn_scalar": 4},
            {"rope_local_base_freq": 100.0},
            {"rope_theta": 100.0},
            {"sliding_window_pattern": 5},
        ),
    ),
    family_case(
        "gemma3_multimodal",
        "gemma3",
        "the text decoder of a model that sees images: text_config, and names that begin with language_model.model",
        {
            "text_config": BASES["gemma3"]["text_config"]
            | {"num_hidden_layers": 2, "rope_local_base_freq": 100.0, "sliding_window_pattern": 2}
        },
        layout=with_multimodal_names,
        traces=TRACES[:2],
    ),
    # GPT-BigCode
    family_case(
        "gpt_bigcode",
        "gpt_bigcode",
        "SantaCoder and StarCoder: one pair of keys and values, fused with the queries",
        stored=F16,
        counts=({"scale_attn_weights": False}, {"activation_function": "relu"}),
    ),
    family_case(
        "gpt_bigcode_multi_head",
        "gpt_bigcode",
        "multi_query false: each head has its keys, fused head by head; an own head",
        {"multi_query": False, "n_head": 4, "scale_attn_weights": False, "tie_word_embeddings": False},
        traces=OTHER_TRACES,
        counts=({"scale_attn_weights": True},),
    ),
    default_case(
        "gpt_bigcode_default_fields",
        "gpt_bigcode",
        "activation_function layer_norm_epsilon multi_query n_inner scale_attn_weights",
        stored=F16,
        counts=({"activation_function": "relu"},),
    ),
    # BLOOM
    family_case(
        "bloom",
        "bloom",
        "ALiBi, a norm behind the embeddings; the first files' fields",
        stored=F16,
        counts=({"layer_norm_epsilon": 0.05},),
    ),
    family_case(
        "bloom_three_heads",
        "bloom",
        "three heads, so that one has a slope between the others'; BloomModel's names, without transformer.",
        {
            "architectures": ["BloomModel"],
            "hidden_size": 24,
            "n_embed": None,
            "n_head": 3,
            "num_attention_heads": None,
            "seq_length": None,
        },
        layout=without_transformer_prefix,
        traces=OTHER_TRACES,
        counts=({"layer_norm_epsilon": 0.05},),
    ),
    default_case(
        "bloom_default_fields",
        "bloom",
        "apply_residual_connection_post_layernorm layer_norm_epsilon pretraining_tp seq_length slow_but_exact",
        {"tie_word_embeddings": False},
        stored=F16,
        counts=({"layer_norm_epsilon": 0.05},),
    ),
    # MPT
    family_case(
        "mpt",
        "mpt",
        "ALiBi, norms without biases, queries, keys and values side by side",
        counts=({"layer_norm_epsilon": 0.05},),
    ),
    family_case(
        "mpt_clipped",
        "mpt",
        "MPT-30B: queries, keys and values within a clip; a scale of scores; three heads",
        {"attn_config": MPT_ATTENTION | {"clip_qkv": 1.0, "softmax_scale": 0.5}, "d_model": 24, "n_heads": 3},
        traces=OTHER_TRACES,
        counts=(
            {"attn_config": MPT_ATTENTION | {"softmax_scale": 0.5}},
            {"attn_config": MPT_ATTENTION | {"clip_qkv": 1.0}},
        ),
    ),
    default_case(
        "mpt_default_fields",
        "mpt",
        "attn_config expansion_ratio layer_norm_epsilon learned_pos_emb logit_scale max_seq_len no_bias norm_type",
        counts=({"layer_norm_epsilon": 0.05},),
    ),
    # Falcon
    family_case(
        "falcon",
        "falcon",
        "Falcon-7B: parallel, one norm, one pair of keys and values, fused with the queries",
        counts=({"rope_theta": 100.0}, {"activation": "relu"}),
    ),
    family_case(
        "falcon_grouped",
        "falcon",
        "Falcon-40B: new_decoder_architecture, two norms in parallel, groups of heads",
        {"new_decoder_architecture": True, "num_attention_heads": 4, "num_kv_heads": 2},
        traces=OTHER_TRACES,
        counts=({"rope_theta": 100.0},),
    ),
    family_case(
        "falcon_one_norm",
        "falcon",
        "Falcon2-11B: new_decoder_architecture with one norm, an inner width of its own, an own head",
        {
            "ff_factor": 4,
            "ffn_hidden_size": 24,
            "new_decoder_architecture": True,
            "num_attention_heads": 4,
            "num_kv_heads": 1,
            "num_ln_in_parallel_attn": 1,
            "tie_word_embeddings": False,
        },
        counts=({"activation": "relu"},),
    ),
    family_case(
        "falcon_alibi",
        "falcon",
        "Falcon-RW: ALiBi in bfloat16, sequential, as many keys as heads, fused head by head, biases",
        {"alibi": True, "bias": True, "multi_query": False, "num_kv_heads": None, "parallel_attn": False},
        traces=(*TRACES, *OTHER_TRACES),
        counts=({"alibi": False},),
    ),
    default_case(
        "falcon_default_fields",
        "falcon",
        "alibi bias layer_norm_epsilon multi_query new_decoder_architecture num_kv_heads parallel_attn",
        counts=({"activation": "relu"},),
    ),
    # Phi
    family_case(
        "phi",
        "phi",
        "Phi-1.5: parallel, one norm, half of each head turned, a head with a bias",
        stored=F16,
        counts=({"partial_rotary_factor": 1.0}, {"hidden_act": "relu"}, {"rope_theta": 100.0}),
    ),
    family_case(
        "phi_norms_of_heads",
        "phi",
        "Phi-2's 0.4 of each head turned; qk_layernorm, groups of heads, a tied head",
        {
            "hidden_size": 40,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "partial_rotary_factor": 0.4,
            "qk_layernorm": True,
            "tie_word_embeddings": True,
        },
        traces=OTHER_TRACES,
        counts=({"layer_norm_eps": 0.05},),
    ),
    family_case(
        "phi_rope_parameters",
        "phi",
        "fields of transformers 5: rope_parameters with partial_rotary_factor and a scaling",
        {
            "partial_rotary_factor": None,
            "rope_parameters": {
                "factor": 4.0,
                "partial_rotary_factor": 1.0,
                "rope_theta": 500.0,
                "rope_type": "linear",
            },
            "rope_scaling": None,
            "rope_theta": None,
        },
        traces=TRACES[:1],
        counts=({"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}},),
    ),
    default_case(
        "phi_default_fields",
        "phi",
        "hidden_act layer_norm_eps num_key_value_heads partial_rotary_factor qk_layernorm rope_scaling rope_theta",
        stored=F16,
        counts=({"partial_rotary_factor": 1.0}, {"hidden_act": "relu"}),
    ),
    # Phi-3 and Phi-4
    family_case(
        "phi3",
        "phi3",
        "Phi-3-mini-4k: fused matrices, a window in three layers",
        {"num_hidden_layers": 3},
        counts=({"sliding_window": NULL}, {"rope_theta": 100.0}),
    ),
    family_case(
        "phi3_longrope",
        "phi3",
        "Phi-3-mini-128k: longrope, groups of heads",
        {
            "max_position_embeddings": 128,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_scaling": {"long_factor": [3.0, 4.0], "short_factor": [1.05, 1.3], "type": "longrope"},
            "sliding_window": NULL,
        },
        traces=OTHER_TRACES,
        counts=({"rope_scaling": None}, {"max_position_embeddings": 32}, {"original_max_position_embeddings": 16}),
    ),
    family_case(
        "phi4_mini",
        "phi3",
        "Phi-4-mini: longrope of three quarters of each head, a tied head",
        {
            "max_position_embeddings": 128,
            "partial_rotary_factor": 0.75,
            "rope_scaling": {"long_factor": [1.0, 4.0, 9.0], "short_factor": [1.0, 2.0, 4.0], "type": "longrope"},
            "sliding_window": NULL,
            "tie_word_embeddings": True,
        },
        counts=({"rope_scaling": None, "partial_rotary_factor": 0.75},),
    ),
    default_case(
        "phi3_default_fields",
        "phi3",
        "hidden_act num_key_value_heads original_max_position_embeddings rms_norm_eps rope_scaling rope_theta",
        {"sliding_window": None, "tie_word_embeddings": None},
        counts=({"rope_theta": 100.0},),
    ),
    # OLMo
    family_case(
        "olmo",
        "olmo",
        "OLMo-1B: norms without weights, a tied head",
        counts=({"rope_theta": 100.0}, {"hidden_act": "gelu"}),
    ),
    family_case(
        "olmo_clipped",
        "olmo",
        "OLMo-7B's clip_qkv, here small enough to bite; groups of heads, an own head",
        {"clip_qkv": 0.8, "num_key_value_heads": 1, "tie_word_embeddings": False},
        traces=OTHER_TRACES,
        counts=({"clip_qkv": NULL},),
    ),
    default_case(
        "olmo_default_fields",
        "olmo",
        "attention_bias clip_qkv hidden_act num_key_value_heads rope_scaling rope_theta tie_word_embeddings",
        counts=({"rope_theta": 100.0},),
    ),
    family_case(
        "olmo2",
        "olmo2",
        "norms of outputs alone, and of all queries and all keys together",
        counts=({"rope_theta": 100.0}, {"rms_norm_eps": 0.05}),
    ),
    family_case(
        "olmo2_grouped",
        "olmo2",
        "OLMo-2-32B: groups of heads, each with its keys",
        {"num_attention_heads": 4, "num_key_value_heads": 2},
        traces=OTHER_TRACES,
        counts=({"rope_theta": 100.0},),
    ),
    default_case(
        "olmo2_default_fields",
        "olmo2",
        "attention_bias hidden_act num_key_value_heads rms_norm_eps rope_scaling rope_theta tie_word_embeddings",
        counts=({"rope_theta": 100.0},),
    ),
    family_case(
        "olmo3",
        "olmo3",
        "layers that slide and layers that see all, whose positions alone are scaled (yarn)",
        {
            "head_dim": 16,
            "rope_scaling": {
                "attention_factor": 1.2,
                "beta_fast": 32,
                "beta_slow": 1,
                "factor": 8.0,
                "original_max_position_embeddings": 512,
                "rope_type": "yarn",
            },
            "rope_theta": 20000,
        },
        traces=OTHER_TRACES,
        counts=({"rope_scaling": None}, {"sliding_window": 4}, {"rope_theta": 100.0}),
    ),
    default_case(
        "olmo3_default_fields",
        "olmo3",
        "hidden_act layer_types num_key_value_heads rms_norm_eps rope_scaling rope_theta tie_word_embeddings",
        {"num_hidden_layers": 4},
        counts=({"layer_types": ["full_attention"] * 4},),
    ),
    # StableLM
    family_case(
        "stablelm",
        "stablelm",
        "StableLM-3B: LayerNorm, a quarter of each head turned, gated MLP",
        counts=({"partial_rotary_factor": 0.5}, {"rope_theta": 100}),
    ),
    family_case(
        "stablelm_parallel",
        "stablelm",
        "StableLM-2-12B: parallel with one norm, each head's own norm of queries and keys, groups of heads",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "qk_layernorm": True,
            "use_parallel_residual": True,
            "use_qkv_bias": True,
        },
        traces=OTHER_TRACES,
        counts=({"partial_rotary_factor": 0.5}, {"layer_norm_eps": 0.05}),
    ),
    default_case(
        "stablelm_default_fields",
        "stablelm",
        "hidden_act layer_norm_eps partial_rotary_factor qk_layernorm rope_scaling rope_theta use_parallel_residual",
        {"use_qkv_bias": None},
        counts=({"partial_rotary_factor": 0.5},),
    ),
    # StarCoder2
    family_case(
        "starcoder2",
        "starcoder2",
        "LayerNorm, biases everywhere, all three layers slide, a tied head",
        {"num_hidden_layers": 3},
        counts=({"sliding_window": NULL}, {"rope_theta": 100.0}),
    ),
    family_case(
        "starcoder2_full",
        "starcoder2",
        "no window, no biases, groups of heads, an own head",
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "sliding_window": NULL,
            "tie_word_embeddings": False,
            "use_bias": False,
        },
        traces=OTHER_TRACES,
        counts=({"sliding_window": 3},),
    ),
    default_case(
        "starcoder2_default_fields",
        "starcoder2",
        "hidden_act norm_epsilon rope_theta sliding_window use_bias",
        counts=({"rope_theta": 100.0},),
    ),
    # SmolLM3
    family_case(
        "smollm3",
        "smollm3",
        "the last layer's queries and keys know no positions",
        counts=({"no_rope_layers": [1, 1]}, {"no_rope_layers": [0, 0]}, {"rope_theta": 100.0}),
    ),
    family_case(
        "smollm3_sliding",
        "smollm3",
        "every other layer without positions slides; biases, an own head",
        {
            "attention_bias": True,
            "layer_types": None,
            "mlp_bias": True,
            "no_rope_layer_interval": 2,
            "no_rope_layers": None,
            "sliding_window": 3,
            "tie_word_embeddings": False,
            "use_sliding_window": True,
        },
        traces=OTHER_TRACES,
        counts=({"use_sliding_window": False}, {"no_rope_layer_interval": 4}),
    ),
    default_case(
        "smollm3_default_fields",
        "smollm3",
        "hidden_act layer_types no_rope_layer_interval no_rope_layers rms_norm_eps rope_scaling rope_theta",
        {"num_attention_heads": 4, "num_hidden_layers": 4, "num_key_value_heads": None, "tie_word_embeddings": None},
        counts=({"no_rope_layers": [1, 1, 1, 1]}, {"rope_theta": 100.0}),
    ),
    # Granite
    family_case(
        "granite",
        "granite",
        "multipliers of embeddings, scores, outputs and logits; a tied head",
        counts=(
            {"attention_multiplier": 0.5},
            {"embedding_multiplier": 1.0},
            {"logits_scaling": 1.0},
            {"residual_multiplier": 1.0},
        ),
    ),
    family_case(
        "granite_biases",
        "granite",
        "biases everywhere, as many keys as heads, an own head",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "num_key_value_heads": 2,
            "rope_theta": 500,
            "tie_word_embeddings": False,
        },
        gain=2,
        traces=OTHER_TRACES[:2],
        counts=({"rope_theta": 10000},),
    ),
    default_case(
        "granite_default_fields",
        "granite",
        "attention_multiplier embedding_multiplier hidden_act logits_scaling residual_multiplier rms_norm_eps rope_theta",
        counts=({"attention_multiplier": 0.5},),
    ),
    # Cohere
    family_case(
        "cohere",
        "cohere",
        "Command-R: parallel with one norm without biases, neighbours turn, scaled logits, a tied head",
        counts=({"logit_scale": 1.0}, {"rope_theta": 100.0}),
    ),
    family_case(
        "cohere_norms_of_heads",
        "cohere",
        "Command-R+: each head's own norm of queries and keys, groups of heads; attention biases",
        {"attention_bias": True, "num_attention_heads": 4, "num_key_value_heads": 2, "use_qk_norm": True},
        traces=OTHER_TRACES,
        counts=({"layer_norm_eps": 0.05},),
    ),
    default_case(
        "cohere_default_fields",
        "cohere",
        "attention_bias hidden_act layer_norm_eps logit_scale num_key_value_heads rope_theta use_qk_norm",
        embedding_std=10,
        counts=({"logit_scale": 1.0}, {"rope_theta": 100.0}),
    ),
    family_case(
        "cohere2",
        "cohere2",
        "Command-R7B: layers that slide and turn, and layers that see all and know no positions",
        counts=({"sliding_window": 4}, {"sliding_window_pattern": 3}, {"rope_theta": 100}),
    ),
    family_case(
        "cohere2_layer_types",
        "cohere2",
        "fields of transformers 5: layer_types and rope_parameters; the second layer slides",
        {
            "layer_types": ["full_attention", "sliding_attention"],
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
            "rope_theta": None,
            "sliding_window_pattern": None,
        },
        traces=OTHER_TRACES,
        counts=({"layer_types": ["sliding_attention", "full_attention"]},),
    ),
    default_case(
        "cohere2_default_fields",
        "cohere2",
        "attention_bias hidden_act layer_norm_eps logit_scale rope_theta sliding_window sliding_window_pattern",
        {"num_hidden_layers": 4},
        embedding_std=10,
        counts=({"layer_types": ["full_attention"] * 4},),
    ),
    # GLM-4
    family_case(
        "glm4",
        "glm4",
        "norms around each sub-layer, half of each head turned, neighbours together; gate and up fused",
        counts=({"partial_rotary_factor": 1.0}, {"rope_theta": 100.0}),
    ),
    family_case(
        "glm4_no_bias",
        "glm4",
        "no biases, groups of heads, a tied head",
        {
            "attention_bias": False,
            "head_dim": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        traces=OTHER_TRACES,
        counts=({"partial_rotary_factor": 1.0},),
    ),
    default_case(
        "glm4_default_fields",
        "glm4",
        "attention_bias hidden_act partial_rotary_factor rms_norm_eps rope_theta tie_word_embeddings",
        counts=({"partial_rotary_factor": 1.0},),
    ),
    # Nemotron
    family_case(
        "nemotron",
        "nemotron",
        "LayerNorm with (1 + w), squared ReLU, half of each head turned",
        counts=({"partial_rotary_factor": 1.0}, {"hidden_act": "relu"}),
    ),
    family_case(
        "nemotron_biases",
        "nemotron",
        "biases everywhere, heads wider than their share, groups of heads, a tied head",
        {
            "attention_bias": True,
            "head_dim": 12,
            "mlp_bias": True,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        traces=OTHER_TRACES,
        counts=({"partial_rotary_factor": 1.0},),
    ),
    default_case(
        "nemotron_default_fields",
        "nemotron",
        "attention_bias head_dim hidden_act mlp_bias norm_eps partial_rotary_factor rope_theta tie_word_embeddings",
        counts=({"partial_rotary_factor": 1.0},),
    ),
    # Mixtral
    family_case(
        "mixtral",
        "mixtral",
        "two of four experts with weights that sum to one, groups of heads",
        counts=({"num_experts_per_tok": 1}, {"rope_theta": 100.0}),
    ),
    family_case(
        "mixtral_sliding",
        "mixtral",
        "a window in all layers, heads wider than their share, two of three experts",
        {"head_dim": 12, "num_local_experts": 3, "sliding_window": 4},
        shards=2,
        counts=({"sliding_window": 3},),
    ),
    default_case(
        "mixtral_default_fields",
        "mixtral",
        "hidden_act num_experts_per_tok rms_norm_eps rope_theta sliding_window tie_word_embeddings",
        counts=({"num_experts_per_tok": 1}, {"rope_theta": 100.0}),
    ),
    # Qwen 2's mixtures
    family_case(
        "qwen2_moe",
        "qwen2_moe",
        "three of five experts with weights that do not sum to one, an expert of all tokens with its gate",
        counts=({"norm_topk_prob": True}, {"num_experts_per_tok": 2}, {"rope_theta": 100.0}),
    ),
    family_case(
        "qwen2_moe_dense_layers",
        "qwen2_moe",
        "of four layers one is dense by name and others by step; weights that sum to one, groups of heads, windows",
        {
            "decoder_sparse_step": 2,
            "max_window_layers": 3,
            "mlp_only_layers": [1],
            "norm_topk_prob": True,
            "num_attention_heads": 4,
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "use_sliding_window": True,
        },
        traces=OTHER_TRACES,
        counts=({"norm_topk_prob": False}, {"sliding_window": 4}),
    ),
    default_case(
        "qwen2_moe_default_fields",
        "qwen2_moe",
        "decoder_sparse_step hidden_act norm_topk_prob num_experts_per_tok rms_norm_eps rope_theta use_sliding_window",
        counts=({"num_experts_per_tok": 3}, {"rope_theta": 100.0}),
    ),
    # Qwen 3's mixtures
    family_case(
        "qwen3_moe",
        "qwen3_moe",
        "three of eight experts with weights that sum to one, norms of heads wider than their share",
        counts=({"norm_topk_prob": False}, {"num_experts_per_tok": 2}),
    ),
    family_case(
        "qwen3_moe_dense_layer",
        "qwen3_moe",
        "a dense layer among mixtures, weights as they are, biases, a window",
        {
            "attention_bias": True,
            "mlp_only_layers": [0],
            "norm_topk_prob": False,
            "sliding_window": 4,
            "use_sliding_window": True,
        },
        traces=OTHER_TRACES,
        counts=({"norm_topk_prob": True}, {"sliding_window": 3}),
    ),
    default_case(
        "qwen3_moe_default_fields",
        "qwen3_moe",
        "attention_bias decoder_sparse_step hidden_act mlp_only_layers norm_topk_prob num_experts_per_tok rms_norm_eps "
        "rope_theta sliding_window",
        {"num_experts": 12},
        counts=({"num_experts_per_tok": 3},),
    ),
    # OLMoE
    family_case(
        "olmoe",
        "olmoe",
        "four of eight experts, norms of all queries and all keys together",
        counts=({"norm_topk_prob": True}, {"num_experts_per_tok": 2}),
    ),
    family_case(
        "olmoe_grouped",
        "olmoe",
        "groups of heads, biases, weights that sum to one, a tied head",
        {
            "attention_bias": True,
            "norm_topk_prob": True,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        traces=OTHER_TRACES,
        counts=({"norm_topk_prob": False},),
    ),
    default_case(
        "olmoe_default_fields",
        "olmoe",
        "attention_bias clip_qkv hidden_act norm_topk_prob num_experts_per_tok num_key_value_heads rms_norm_eps "
        "rope_theta",
        {"num_experts": 12},
        counts=({"num_experts_per_tok": 3},),
    ),
    # Granite's mixtures
    family_case(
        "granitemoe",
        "granitemoe",
        "three of six experts by the softmax of their scores alone, multipliers, fused matrices, a tied head",
        counts=({"num_experts_per_tok": 2}, {"residual_multiplier": 0.5}, {"attention_multiplier": 0.5}),
    ),
    family_case(
        "granitemoe_biases",
        "granitemoe",
        "biases of attention, an untied head, two heads of keys",
        {"attention_bias": True, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False},
        counts=({"logits_scaling": 1.0},),
    ),
    default_case(
        "granitemoe_default_fields",
        "granitemoe",
        "attention_multiplier embedding_multiplier hidden_act logits_scaling num_experts_per_tok residual_multiplier "
        "rms_norm_eps rope_theta",
        counts=({"attention_multiplier": 0.5}, {"num_experts_per_tok": 3}),
    ),
    # Phi's mixtures
    family_case(
        "phimoe",
        "phimoe",
        "two experts chosen one after the other, LayerNorm, biases, longrope with a magnitude of its own, a window",
        counts=({"router_jitter_noise": 0.6}, {"sliding_window": 3}, {"rms_norm_eps": 0.05}),
    ),
    family_case(
        "phimoe_plain",
        "phimoe",
        "without biases, scaling and window; four heads that share two",
        {
            "attention_bias": False,
            "lm_head_bias": False,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_scaling": NULL,
            "sliding_window": NULL,
        },
        traces=OTHER_TRACES,
        counts=({"router_jitter_noise": 0.6}, {"rope_theta": 100.0}),
    ),
    default_case(
        "phimoe_default_fields",
        "phimoe",
        "attention_bias hidden_act lm_head_bias num_experts_per_tok rms_norm_eps rope_scaling rope_theta "
        "router_jitter_noise sliding_window",
        counts=({"router_jitter_noise": 0.6}, {"rope_theta": 100.0}),
    ),
    # GPT-OSS
    family_case(
        "gpt_oss",
        "gpt_oss",
        "two of four experts with biases and a clamped gate, sinks, a window in every other layer, yarn",
        counts=({"swiglu_limit": 7.0}, {"sliding_window": 4}, {"num_experts_per_tok": 1}),
    ),
    family_case(
        "gpt_oss_grouped",
        "gpt_oss",
        "four heads that share two, no biases of attention, positions without a scaling, three layers that slide in turn",
        {
            "attention_bias": False,
            "layer_types": None,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "rope_scaling": {"rope_type": "default"},
            "swiglu_limit": 0.8,
        },
        traces=OTHER_TRACES,
        counts=({"swiglu_limit": 7.0}, {"rope_theta": 100.0}),
    ),
    default_case(
        "gpt_oss_default_fields",
        "gpt_oss",
        "attention_bias hidden_act layer_types num_experts_per_tok rms_norm_eps rope_scaling rope_theta swiglu_limit",
        {"num_local_experts": 6},
        counts=({"num_experts_per_tok": 2}, {"rope_theta": 100.0}, {"swiglu_limit": 0.5}),
    ),
)

DENSE = (
    ("GPT-BigCode", "gpt_bigcode"),
    ("BLOOM", "bloom"),
    ("MPT", "mpt"),
    ("Falcon", "falcon_one_norm"),
    ("Phi", "phi"),
    ("Phi-3", "phi3"),
    ("OLMo", "olmo"),
    ("OLMo 2", "olmo2"),
    ("OLMo 3", "olmo3"),
    ("StableLM", "stablelm_parallel"),
    ("StarCoder2", "starcoder2"),
    ("SmolLM3", "smollm3"),
    ("Granite", "granite_biases"),
    ("Cohere", "cohere"),
    ("Cohere 2", "cohere2"),
    ("GLM-4", "glm4"),
    ("Nemotron", "nemotron"),
)
"""Families whose layers are put together of parts that others have, and a model of each."""
