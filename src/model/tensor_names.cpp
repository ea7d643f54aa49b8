#include "model/tensor_names.hpp"

#include <algorithm>

namespace rometrace {
namespace {

// GPT2LMHeadModel writes "transformer.wte.weight", GPT2Model (and the first GPT-2 checkpoints) "wte.weight".
TensorNames gpt2_like() {
  TensorNames names;
  names.prefixes = {"transformer.", ""};
  names.heads = {"lm_head"};
  names.embedding = "wte";
  names.positions = "wpe";
  names.final_norm = "ln_f";
  names.layers = "h.";
  names.norm_1 = "ln_1";
  names.norm_2 = "ln_2";
  return names;
}

TensorNames gpt2() {
  auto names = gpt2_like();
  names.transposed = false;
  names.inputs = TensorNames::Inputs::kSideBySide;
  names.queries = "attn.c_attn";
  names.projection = "attn.c_proj";
  names.mlp_in = "mlp.c_fc";
  names.mlp_out = "mlp.c_proj";
  return names;
}

TensorNames gptj() {
  auto names = gpt2_like();
  names.positions = names.norm_2 = "";
  names.queries = "attn.q_proj";
  names.keys = "attn.k_proj";
  names.values = "attn.v_proj";
  names.projection = "attn.out_proj";
  names.mlp_in = "mlp.fc_in";
  names.mlp_out = "mlp.fc_out";
  return names;
}

TensorNames gpt_neo() {
  auto names = gpt2_like();
  names.queries = "attn.attention.q_proj";
  names.keys = "attn.attention.k_proj";
  names.values = "attn.attention.v_proj";
  names.projection = "attn.attention.out_proj";
  names.mlp_in = "mlp.c_fc";
  names.mlp_out = "mlp.c_proj";
  return names;
}

TensorNames gpt_neox() {
  TensorNames names;
  names.prefixes = {"gpt_neox.", ""};
  names.heads = {"embed_out", "lm_head"};
  names.embedding = "embed_in";
  names.final_norm = "final_layer_norm";
  names.layers = "layers.";
  names.inputs = TensorNames::Inputs::kHeadByHead;
  names.norm_1 = "input_layernorm";
  names.norm_2 = "post_attention_layernorm";
  names.queries = "attention.query_key_value";
  names.projection = "attention.dense";
  names.mlp_in = "mlp.dense_h_to_4h";
  names.mlp_out = "mlp.dense_4h_to_h";
  return names;
}

TensorNames gpt_bigcode() {
  auto names = gpt2();
  names.transposed = true;
  names.inputs = TensorNames::Inputs::kHeadByHead;
  return names;
}

// BLOOM's and Falcon's. The first BLOOM checkpoints have no "transformer.".
TensorNames bloom() {
  TensorNames names;
  names.prefixes = {"transformer.", ""};
  names.heads = {"lm_head"};
  names.embedding = "word_embeddings";
  names.embedding_norm = "word_embeddings_layernorm";
  names.final_norm = "ln_f";
  names.layers = "h.";
  names.inputs = TensorNames::Inputs::kHeadByHead;
  names.norm_1 = "input_layernorm";
  names.norm_2 = "post_attention_layernorm";
  names.queries = "self_attention.query_key_value";
  names.projection = "self_attention.dense";
  names.mlp_in = "mlp.dense_h_to_4h";
  names.mlp_out = "mlp.dense_4h_to_h";
  return names;
}

TensorNames falcon(const DecoderConfig& config) {
  auto names = bloom();
  if (config.order == BlockOrder::kParallel && !config.one_norm) {
    names.norm_1 = "ln_attn";
    names.norm_2 = "ln_mlp";
  }
  return names;
}

TensorNames mpt() {
  TensorNames names;
  names.prefixes = {"transformer.", ""};
  names.heads = {"lm_head"};
  names.embedding = "wte";
  names.final_norm = "norm_f";
  names.layers = "blocks.";
  names.inputs = TensorNames::Inputs::kSideBySide;
  names.norm_1 = "norm_1";
  names.norm_2 = "norm_2";
  names.queries = "attn.Wqkv";
  names.projection = "attn.out_proj";
  names.mlp_in = "ffn.up_proj";
  names.mlp_out = "ffn.down_proj";
  return names;
}

TensorNames opt() {
  TensorNames names;
  names.prefixes = {"model.decoder.", "decoder."};
  names.heads = {"lm_head"};
  names.embedding = "embed_tokens";
  names.positions = "embed_positions";
  names.final_norm = "final_layer_norm";
  names.enter = "project_in";
  names.leave = "project_out";
  names.layers = "layers.";
  names.queries = "self_attn.q_proj";
  names.keys = "self_attn.k_proj";
  names.values = "self_attn.v_proj";
  names.projection = "self_attn.out_proj";
  names.norm_1 = "self_attn_layer_norm";
  names.norm_2 = "final_layer_norm";
  names.mlp_in = "fc1";
  names.mlp_out = "fc2";
  return names;
}

TensorNames llama() {
  TensorNames names;
  names.prefixes = {"model.", ""};
  names.heads = {"lm_head"};
  names.embedding = "embed_tokens";
  names.final_norm = "norm";
  names.layers = "layers.";
  names.queries = "self_attn.q_proj";
  names.keys = "self_attn.k_proj";
  names.values = "self_attn.v_proj";
  names.projection = "self_attn.o_proj";
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  names.norm_1 = "input_layernorm";
  names.norm_2 = "post_attention_layernorm";
  names.mlp_gate = "mlp.gate_proj";
  names.mlp_in = "mlp.up_proj";
  names.mlp_out = "mlp.down_proj";
  return names;
}

TensorNames phi() {
  auto names = llama();
  names.final_norm = "final_layernorm";
  names.projection = "self_attn.dense";
  names.query_norm = "self_attn.q_layernorm";
  names.key_norm = "self_attn.k_layernorm";
  names.mlp_in = "mlp.fc1";
  names.mlp_out = "mlp.fc2";
  return names;
}

TensorNames phi3() {
  auto names = llama();
  names.inputs = TensorNames::Inputs::kSideBySide;
  names.queries = "self_attn.qkv_proj";
  names.mlp_gate = "";
  names.mlp_in = "mlp.gate_up_proj";
  return names;
}

TensorNames olmo2() {
  auto names = llama();
  names.attn_norm = "post_attention_layernorm";
  names.mlp_norm = "post_feedforward_layernorm";
  return names;
}

TensorNames stablelm() {
  auto names = llama();
  names.query_norm = "self_attn.q_layernorm.norms";
  names.key_norm = "self_attn.k_layernorm.norms";
  names.head_norms_apart = true;
  return names;
}

TensorNames starcoder2() {
  auto names = llama();
  names.mlp_in = "mlp.c_fc";
  names.mlp_out = "mlp.c_proj";
  return names;
}

TensorNames glm4() {
  auto names = llama();
  names.attn_norm = "post_self_attn_layernorm";
  names.mlp_norm = "post_mlp_layernorm";
  names.mlp_gate = "";
  names.mlp_in = "mlp.gate_up_proj";
  return names;
}

TensorNames gemma2() {
  auto names = llama();
  names.attn_norm = "post_attention_layernorm";
  names.norm_2 = "pre_feedforward_layernorm";
  names.mlp_norm = "post_feedforward_layernorm";
  return names;
}

TensorNames gemma3() {
  auto names = gemma2();  // with pictures, older and newer files
  names.prefixes = {"model.", "language_model.model.", "model.language_model.", ""};
  names.heads = {"lm_head", "language_model.lm_head"};
  return names;
}

TensorNames mixtral() {
  auto names = llama();
  names.router = "block_sparse_moe.gate";
  names.experts = "block_sparse_moe.experts.";
  names.expert_gate = "w1";
  names.expert_in = "w3";
  names.expert_out = "w2";
  return names;
}

TensorNames qwen_moe() {
  auto names = llama();
  names.router = "mlp.gate";
  names.experts = "mlp.experts.";
  names.expert_gate = "gate_proj";
  names.expert_in = "up_proj";
  names.expert_out = "down_proj";
  names.shared_gate = "mlp.shared_expert_gate";
  names.shared_mlp_gate = "mlp.shared_expert.gate_proj";
  names.shared_mlp_in = "mlp.shared_expert.up_proj";
  names.shared_mlp_out = "mlp.shared_expert.down_proj";
  return names;
}

TensorNames granitemoe() {
  auto names = llama();
  names.expert_layout = TensorNames::Experts::kStacked;
  names.router = "block_sparse_moe.router.layer";
  names.experts = "block_sparse_moe.";
  names.expert_in = "input_linear";
  names.expert_out = "output_linear";
  return names;
}

TensorNames gpt_oss(const DecoderConfig& config) {
  auto names = llama();
  names.sinks = "self_attn.sinks";
  names.expert_layout = TensorNames::Experts::kStackedInTurn;
  names.experts_transposed = config.experts->microscaled;
  names.router = "mlp.router";
  names.experts = "mlp.experts.";
  names.expert_in = "gate_up_proj";
  names.expert_out = "down_proj";
  return names;
}

/// Families whose rotary positions llama.cpp turns by neighbours, after it has put the rows in that order.
bool turns_by_neighbours(Family family) {
  return family == Family::kLlama || family == Family::kMistral || family == Family::kMixtral ||
         family == Family::kOlmo || family == Family::kSmolLm3 || family == Family::kGranite ||
         family == Family::kGraniteMoe;
}

// GGUF files name tensors alike in all families.
TensorNames llama_cpp(const DecoderConfig& config) {
  using Inputs = TensorNames::Inputs;
  TensorNames names;
  names.prefixes = {""};
  names.heads = {"output"};
  names.embedding = "token_embd";
  names.embedding_norm = "token_embd_norm";
  names.positions = "position_embd";
  names.final_norm = "output_norm";
  names.layers = "blk.";
  names.inputs = turns_by_neighbours(config.family) ? Inputs::kPairs
                 : config.joined_inputs             ? Inputs::kSideBySide
                                                    : Inputs::kApart;
  names.queries = config.joined_inputs ? "attn_qkv" : "attn_q";
  if (!config.joined_inputs) {
    names.keys = "attn_k";
    names.values = "attn_v";
  }
  names.projection = "attn_output";
  names.query_norm = "attn_q_norm";
  names.key_norm = "attn_k_norm";
  names.norm_1 = "attn_norm";
  names.norm_2 = "ffn_norm";
  if (config.family == Family::kFalcon && !config.one_norm) {
    names.norm_1 = "attn_norm_2";
    names.norm_2 = "attn_norm";
  }
  if (config.family == Family::kGptOss) names.norm_2 = "post_attention_norm";
  names.attn_norm = "post_attention_norm";
  names.mlp_norm = "post_ffw_norm";
  names.sinks = "attn_sinks.weight";
  if (config.family != Family::kPhi3 && config.family != Family::kGlm4) names.mlp_gate = "ffn_gate";
  names.mlp_in = "ffn_up";
  names.mlp_out = "ffn_down";
  names.expert_layout = TensorNames::Experts::kStackedApart;
  names.router = "ffn_gate_inp";
  names.expert_gate = "ffn_gate_exps";
  names.expert_in = "ffn_up_exps";
  names.expert_out = "ffn_down_exps";
  names.shared_gate = "ffn_gate_inp_shexp";
  names.shared_mlp_gate = "ffn_gate_shexp";
  names.shared_mlp_in = "ffn_up_shexp";
  names.shared_mlp_out = "ffn_down_shexp";
  return names;
}

TensorNames transformers(const DecoderConfig& config) {
  switch (config.family) {
    case Family::kGpt2:
      return gpt2();
    case Family::kGptJ:
      return gptj();
    case Family::kGptNeo:
      return gpt_neo();
    case Family::kGptNeoX:
      return gpt_neox();
    case Family::kGptBigCode:
      return gpt_bigcode();
    case Family::kOpt:
      return opt();
    case Family::kBloom:
      return bloom();
    case Family::kMpt:
      return mpt();
    case Family::kFalcon:
      return falcon(config);
    case Family::kLlama:
    case Family::kMistral:
    case Family::kQwen2:
    case Family::kQwen3:
    case Family::kGemma:
    case Family::kOlmo:
    case Family::kSmolLm3:
    case Family::kGranite:
    case Family::kCohere:
    case Family::kCohere2:
    case Family::kNemotron:
      return llama();
    case Family::kPhi:
      return phi();
    case Family::kPhi3:
      return phi3();
    case Family::kOlmo2:
    case Family::kOlmo3:
      return olmo2();
    case Family::kStableLm:
      return stablelm();
    case Family::kStarcoder2:
      return starcoder2();
    case Family::kGlm4:
      return glm4();
    case Family::kGemma2:
      return gemma2();
    case Family::kGemma3:
      return gemma3();
    case Family::kMixtral:
    case Family::kPhimoe:
      return mixtral();
    case Family::kQwen2Moe:
    case Family::kQwen3Moe:
    case Family::kOlmoe:
      return qwen_moe();
    case Family::kGraniteMoe:
      return granitemoe();
    case Family::kGptOss:
      return gpt_oss(config);
  }
  return {};
}

}  // namespace

TensorNames tensor_names(const DecoderConfig& config) {
  return config.layout == TensorLayout::kLlamaCpp ? llama_cpp(config) : transformers(config);
}

std::string prefix_in(const TensorNames& names, std::span<const std::string> all) {
  for (const auto& prefix : names.prefixes) {
    const auto layers = prefix + names.layers;
    if (std::any_of(all.begin(), all.end(), [&](const auto& name) { return name.starts_with(layers); })) return prefix;
  }
  return names.prefixes.front();
}

}  // namespace rometrace
