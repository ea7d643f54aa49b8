#include "model/gguf_mixtures.hpp"

#include <nlohmann/json.hpp>

namespace rometrace::gguf {
namespace {

/// The width of an expert: older files say it by the shape of a tensor only.
std::int64_t width_of(Keys& keys, const char* key, Tensors tensors, const char* name, std::size_t dimension) {
  if (const auto width = keys.find_size(key)) return *width;
  const auto* tensor = find(tensors, name);
  if (tensor == nullptr || tensor->shape.size() <= dimension) return keys.size(key);
  return tensor->shape[dimension];
}

json any_qwen_moe(const char* type, Keys& keys, Tensors tensors) {
  auto config = llama_like(type, keys, tensors);
  add_experts(keys, config);
  config["moe_intermediate_size"] =
      width_of(keys, "expert_feed_forward_length", tensors, "blk.0.ffn_gate_exps.weight", 1);
  return config;
}

}  // namespace

bool has_experts(Keys& keys) {
  return keys.find_size("expert_count").value_or(0) != 0;
}

void add_experts(Keys& keys, json& config) {
  config["num_local_experts"] = keys.size("expert_count");
  config["num_experts_per_tok"] = keys.size("expert_used_count");
}

json qwen2moe(Keys& keys, Tensors tensors) {
  auto config = any_qwen_moe("qwen2_moe", keys, tensors);
  config.erase("attention_bias");
  config["qkv_bias"] = has_input_biases(tensors);
  config["norm_topk_prob"] = false;
  config["shared_expert_intermediate_size"] =
      width_of(keys, "expert_shared_feed_forward_length", tensors, "blk.0.ffn_gate_shexp.weight", 0);
  return config;
}

json qwen3moe(Keys& keys, Tensors tensors) {
  auto config = any_qwen_moe("qwen3_moe", keys, tensors);
  config["norm_topk_prob"] = true;
  return config;
}

json olmoe(Keys& keys, Tensors tensors) {
  auto config = llama_like("olmoe", keys, tensors);
  add_experts(keys, config);
  config["norm_topk_prob"] = false;
  return config;
}

json gpt_oss(Keys& keys, Tensors tensors) {
  auto config = llama_like("gpt_oss", keys, tensors);
  add_experts(keys, config);
  config["attention_bias"] = has_input_biases(tensors);
  config["intermediate_size"] = keys.size("expert_feed_forward_length");
  config["sliding_window"] = keys.size("attention.sliding_window");
  if (!config.contains("rope_scaling")) config["rope_scaling"] = {{"rope_type", "default"}};
  if (config["rope_scaling"]["rope_type"] == "yarn") config["rope_scaling"]["truncate"] = false;  // the model's own
  return config;
}

}  // namespace rometrace::gguf
