#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "model/config_families.hpp"
#include "model/config_parts.hpp"

// Families whose layers are mixtures of experts: Mixtral, the Qwen ones, OLMoE, Granite's, Phi's, GPT-OSS.

namespace rometrace {
namespace {

/// How many experts there are, under either name, and how many of them a position has.
struct ExpertDefaults {
  const char* name = "num_local_experts";
  const char* other_name = "num_experts";
  std::int64_t count = 8, chosen = 2;
};

Experts read_experts(const ConfigFields& fields, const ExpertDefaults& defaults, std::int64_t width) {
  Experts experts;
  experts.count = fields.size(defaults.name, defaults.other_name, defaults.count, kMaxSize);
  experts.chosen = fields.size("num_experts_per_tok", defaults.chosen, kMaxSize);
  experts.width = width;
  if (experts.chosen > experts.count) {
    fields.refuse("num_experts_per_tok",
                  "expected at most " + std::to_string(experts.count) + ", as there are experts");
  }
  return experts;
}

/// "mlp_only_layers", and "decoder_sparse_step": of so many layers one, the last, is a mixture.
std::vector<std::int64_t> read_dense_layers(const ConfigFields& fields, const DecoderConfig& config) {
  const auto step = fields.size("decoder_sparse_step", 1, kMaxLayers);
  std::vector<bool> dense;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) dense.push_back((layer + 1) % step != 0);
  if (fields.has_value("mlp_only_layers")) {
    const nlohmann::json& list = fields.at("mlp_only_layers");
    if (!list.is_array()) fields.refuse("mlp_only_layers", "expected a list of layers");
    for (const auto& layer : list) {
      if (!layer.is_number_integer()) fields.refuse("mlp_only_layers", "expected a list of layers");
      if (layer >= 0 && layer < config.layers) dense[layer.get<std::size_t>()] = true;
    }
  }
  std::vector<std::int64_t> layers;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    if (dense[static_cast<std::size_t>(layer)]) layers.push_back(layer);
  }
  return layers;
}

/// What the Qwen mixtures share, once sizes have been read.
void read_qwen_experts(const ConfigFields& fields, const ExpertDefaults& defaults, std::int64_t width,
                       std::int64_t shared_width, DecoderConfig& config) {
  config.dense_layers = read_dense_layers(fields, config);
  const bool none = fields.has_value(defaults.name) && fields.at(defaults.name) == 0;
  if (none || static_cast<std::int64_t>(config.dense_layers.size()) == config.layers) {
    config.dense_layers.clear();
    return;
  }
  config.experts = read_experts(fields, defaults, fields.size("moe_intermediate_size", width, kMaxSize));
  config.experts->sums_to_one = fields.flag("norm_topk_prob", false);
  if (shared_width > 0) {
    config.experts->shared_width = fields.size("shared_expert_intermediate_size", shared_width, kMaxSize);
  }
}

/// A window of all layers alike.
void read_window_of_all(const ConfigFields& fields, bool windows, DecoderConfig& config) {
  if (!windows || !fields.has_value("sliding_window")) return;
  set_windows(config, std::vector<bool>(config.attention.size(), true), fields.size("sliding_window", 1, kMaxSize));
}

}  // namespace

void read_mixtral(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.max_positions = 4096 * 32;
  defaults.mlp_width = 14336;
  defaults.kv_heads = is_null(fields, "num_key_value_heads") ? 0 : 8;
  read_llama_sizes(fields, defaults, config);
  read_rms_norm(fields, 1e-5, config);
  read_rotary(fields, {.theta = 1e6}, config);
  read_window_of_all(fields, true, config);
  config.experts = read_experts(fields, {}, config.mlp_width);
  config.experts->sums_to_one = true;
}

void read_qwen2_moe(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 151936;
  defaults.max_positions = 32768;
  defaults.width = 2048;
  defaults.layers = 24;
  defaults.heads = 16;
  defaults.mlp_width = 5632;
  defaults.kv_heads = is_null(fields, "num_key_value_heads") ? 0 : 16;
  read_llama_sizes(fields, defaults, config);
  read_rms_norm(fields, 1e-6, config);
  read_rotary(fields, {}, config);
  config.query_bias = fields.flag("qkv_bias", true);
  const bool windows = fields.flag("use_sliding_window", false) && !is_null(fields, "sliding_window");
  const auto slides = [&](auto layer) {
    return (layer + 1) % 2 != 0 && layer < fields.count("max_window_layers", 28, kMaxLayers);
  };
  read_windows(fields, windows, slides, config);
  read_qwen_experts(fields, {"num_experts", "num_local_experts", 60, 4}, 1408, 5632, config);
}

void read_qwen3_moe(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 151936;
  defaults.max_positions = 32768;
  defaults.width = 2048;
  defaults.layers = 24;
  defaults.mlp_width = 6144;
  defaults.kv_heads = 4;
  read_llama_sizes(fields, defaults, config);
  read_rms_norm(fields, 1e-6, config);
  read_rotary(fields, {}, config);
  config.query_bias = config.projection_bias = fields.flag("attention_bias", false);
  config.head_norms = HeadNorms::kShared;
  read_window_of_all(fields, fields.flag("use_sliding_window", false), config);
  read_qwen_experts(fields, {"num_experts", "num_local_experts", 128, 8}, 768, 0, config);
}

void read_olmoe(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 50304;
  defaults.max_positions = 4096;
  defaults.width = 2048;
  defaults.layers = defaults.heads = 16;
  defaults.mlp_width = 2048;
  read_llama_sizes(fields, defaults, config);
  refuse_other_head_width(fields, config);
  read_rms_norm(fields, 1e-5, config);
  read_rotary(fields, {}, config);
  config.query_bias = config.projection_bias = fields.flag("attention_bias", false);
  config.head_norms = HeadNorms::kTogether;
  if (fields.has_value("clip_qkv")) fields.refuse("clip_qkv", "expected null: a clip behind norms is not computed");
  config.experts = read_experts(fields, {"num_experts", "num_local_experts", 64, 8}, config.mlp_width);
  config.experts->sums_to_one = fields.flag("norm_topk_prob", false);
}

void read_granitemoe(const ConfigFields& fields, DecoderConfig& config) {
  read_llama_sizes(fields, {}, config);
  read_rms_norm(fields, 1e-6, config);
  read_rotary(fields, {}, config);
  read_granite_parts(fields, config);
  config.experts = read_experts(fields, {}, config.mlp_width);
  config.experts->weights = Experts::Weights::kOfChosen;
}

void read_phimoe(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 32064;
  defaults.max_positions = 4096 * 32;
  defaults.mlp_width = 6400;
  defaults.kv_heads = is_null(fields, "num_key_value_heads") ? 0 : 8;
  read_llama_sizes(fields, defaults, config);
  config.norm.type = Norm::Type::kLayerNorm;
  config.norm.epsilon = fields.positive_number("rms_norm_eps", 1e-5);
  read_rotary(fields, {.theta = 1e6, .longrope_alone = true, .magnitude_name = "short_mscale"}, config);
  config.query_bias = config.projection_bias = fields.flag("attention_bias", false);
  config.head_bias = fields.flag("lm_head_bias", false);
  read_window_of_all(fields, true, config);
  config.experts = read_experts(fields, {.count = 16}, config.mlp_width);
  config.experts->weights = Experts::Weights::kOneByOne;
  const bool noise = !fields.has_value("router_jitter_noise") || fields.at("router_jitter_noise") != 0;
  config.experts->nearness = 2 * (noise ? fields.positive_number("router_jitter_noise", 0.01) : 0);
  if (config.experts->chosen != 2) {
    fields.refuse("num_experts_per_tok", "expected 2, as many as this family's router chooses");
  }
}

void read_gpt_oss(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 201088;
  defaults.max_positions = 131072;
  defaults.width = defaults.mlp_width = 2880;
  defaults.layers = 36;
  defaults.heads = 64;
  defaults.kv_heads = is_null(fields, "num_key_value_heads") ? 0 : 8;
  defaults.head_width = is_null(fields, "head_dim") ? 0 : 64;
  read_llama_sizes(fields, defaults, config);
  read_rms_norm(fields, 1e-5, config);
  read_rotary(fields, {.theta = 150000}, config);
  const auto says = [&](const char* name) { return fields.has_value(name) && !fields.at(name).empty(); };
  if (!says("rope_scaling") && !says("rope_parameters")) {
    auto& rotary = config.rotary.front();
    rotary.scaling = Rotary::Scaling::kYarn;
    rotary.factor = 32;
    rotary.original_positions = 4096;
    rotary.whole_pairs = false;
    rotary.magnitude = 0.1 * std::log(rotary.factor) + 1;
  }
  config.query_bias = config.projection_bias = fields.flag("attention_bias", true);
  config.attention_sinks = true;
  if (is_null(fields, "sliding_window")) fields.refuse("sliding_window", "expected a number of positions");
  const auto slides = [](auto layer) { return layer % 2 == 0; };
  read_windows(fields, /*windows=*/true, slides, config, /*fallback=*/128);
  config.experts = read_experts(fields, {.count = 128, .chosen = 4}, config.mlp_width);
  config.experts->weights = Experts::Weights::kOfChosen;
  config.experts->router_bias = config.mlp_bias = true;
  config.experts->microscaled = has_microscaled_experts(fields, Family::kGptOss);
  config.activation = Activation::kGeluQuick;
  if (fields.positive_number("swiglu_alpha", 1.702) != 1.702) fields.refuse("swiglu_alpha", "expected 1.702");
  config.gate_limit = fields.positive_number("swiglu_limit", 7);
  config.up_offset = 1;
}

}  // namespace rometrace
