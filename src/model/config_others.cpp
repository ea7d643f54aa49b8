#include <cmath>
#include <nlohmann/json.hpp>

#include "model/config_families.hpp"
#include "model/config_parts.hpp"

// Families that are put together of Llama's parts and others: Phi, OLMo, StableLM, StarCoder2, SmolLM3, Granite,
// Cohere, GLM-4, Nemotron.

namespace rometrace {
namespace {

/// LayerNorm by a field with its epsilon.
void read_layer_norm(const ConfigFields& fields, const char* name, DecoderConfig& config) {
  config.norm.type = Norm::Type::kLayerNorm;
  config.norm.epsilon = fields.positive_number(name, 1e-5);
}

/// One field for biases of queries, keys, values and of attention's output.
void read_attention_bias(const ConfigFields& fields, DecoderConfig& config) {
  config.query_bias = config.projection_bias = fields.flag("attention_bias", false);
}

/// Refuses null for the window of a family whose layers slide.
void need_window(const ConfigFields& fields) {
  if (is_null(fields, "sliding_window")) fields.refuse("sliding_window", "expected a number of positions");
}

/// A window of all layers alike, where there is one.
void read_window(const ConfigFields& fields, DecoderConfig& config) {
  if (!fields.has_value("sliding_window")) return;
  set_windows(config, std::vector<bool>(config.attention.size(), true), fields.size("sliding_window", 1, kMaxSize));
}

}  // namespace

// ---- Phi ----

void read_phi(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 51200;
  defaults.width = 2048;
  defaults.layers = 24;
  defaults.mlp_width = 8192;
  defaults.activation = "gelu_new";
  read_llama_sizes(fields, defaults, config);
  refuse_other_head_width(fields, config);
  read_layer_norm(fields, "layer_norm_eps", config);
  read_rotary(fields, {.part_from = RotaryPart::kAny, .part = 0.5}, config);
  config.gated_mlp = false;
  config.order = BlockOrder::kParallel;
  config.one_norm = true;
  config.query_bias = config.projection_bias = config.mlp_bias = config.head_bias = true;
  if (fields.flag("qk_layernorm", false)) config.head_norms = HeadNorms::kShared;
}

void read_phi3(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 32064;
  defaults.max_positions = 4096;
  defaults.width = 3072;
  defaults.mlp_width = 8192;
  read_llama_sizes(fields, defaults, config);
  read_rms_norm(fields, 1e-5, config);
  read_rotary(fields, {.part_from = RotaryPart::kAny, .trained_positions = 4096, .longrope_alone = true}, config);
  read_window(fields, config);
}

// ---- OLMo ----

namespace {

void read_olmo_sizes(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 50304;
  read_llama_sizes(fields, defaults, config);
  read_attention_bias(fields, config);
}

/// What OLMo 2 and 3 share: norms of outputs alone, and of all queries, and all keys, together.
void read_olmo_norms(const ConfigFields& fields, DecoderConfig& config) {
  read_rms_norm(fields, 1e-5, config);
  config.input_norms = false;
  config.output_norms = true;
  config.head_norms = HeadNorms::kTogether;
}

}  // namespace

void read_olmo(const ConfigFields& fields, DecoderConfig& config) {
  read_olmo_sizes(fields, config);
  config.norm = {.epsilon = 1e-5, .affine = false};
  read_rotary(fields, {}, config);
  config.query_key_value_clip = fields.positive_or_null("clip_qkv", 0);
}

void read_olmo2(const ConfigFields& fields, DecoderConfig& config) {
  read_olmo_sizes(fields, config);
  read_olmo_norms(fields, config);
  read_rotary(fields, {}, config);
}

void read_olmo3(const ConfigFields& fields, DecoderConfig& config) {
  read_olmo_sizes(fields, config);
  read_olmo_norms(fields, config);
  need_window(fields);
  const auto sliding = read_windows(
      fields, /*windows=*/true, [](auto layer) { return (layer + 1) % 4 != 0; }, config);
  // A theta beside them is of the layers that see all alone, in transformers.
  read_layer_rotaries(fields, sliding, {.full = fields.positive_number("rope_theta", 5e5), .sliding = 5e5}, config);
}

// ---- StableLM, StarCoder2, SmolLM3 ----

void read_stablelm(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 50304;
  defaults.max_positions = 4096;
  defaults.width = 2560;
  defaults.mlp_width = 6912;
  defaults.kv_heads = 32;
  read_llama_sizes(fields, defaults, config);
  refuse_other_head_width(fields, config);
  read_layer_norm(fields, "layer_norm_eps", config);
  read_rotary(fields, {.part_from = RotaryPart::kAny, .part = 0.25}, config);
  config.query_bias = fields.flag("use_qkv_bias", false);
  if (fields.flag("qk_layernorm", false)) config.head_norms = HeadNorms::kOwn;
  if (fields.flag("use_parallel_residual", false)) {
    config.order = BlockOrder::kParallel;
    config.one_norm = true;
  }
}

void read_starcoder2(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 49152;
  defaults.max_positions = 4096;
  defaults.width = 3072;
  defaults.layers = 30;
  defaults.heads = 24;
  defaults.mlp_width = 12288;
  defaults.kv_heads = 2;
  defaults.activation = "gelu_pytorch_tanh";
  defaults.tied = true;
  read_llama_sizes(fields, defaults, config);
  read_layer_norm(fields, "norm_epsilon", config);
  read_rotary(fields, {}, config);
  config.gated_mlp = false;
  config.query_bias = config.projection_bias = config.mlp_bias = fields.flag("use_bias", true);
  read_window(fields, config);
}

namespace {

/// "no_rope_layers": 1 for each layer whose queries and keys turn, 0 for one whose do not; or every so many layers one
/// that does not.
std::vector<bool> turning_layers(const ConfigFields& fields, const DecoderConfig& config) {
  std::vector<bool> turning;
  if (!fields.has_value("no_rope_layers")) {
    const auto interval = fields.size("no_rope_layer_interval", 4, kMaxLayers);
    for (std::int64_t layer = 0; layer < config.layers; ++layer) turning.push_back((layer + 1) % interval != 0);
    return turning;
  }
  const nlohmann::json& list = fields.at("no_rope_layers");
  for (std::size_t i = 0; list.is_array() && i < list.size(); ++i) {
    if (list[i] == 0 || list[i] == 1) turning.push_back(list[i] == 1);
  }
  if (static_cast<std::int64_t>(turning.size()) == config.layers && list.size() == turning.size()) return turning;
  fields.refuse("no_rope_layers", "expected a list of 0 (does not turn) and 1, one for each of " +
                                      std::to_string(config.layers) + " layers");
}

void set_turning(DecoderConfig& config, const std::vector<bool>& turning) {
  for (std::size_t layer = 0; layer < turning.size(); ++layer) config.attention[layer].turns = turning[layer];
}

}  // namespace

void read_smollm3(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 128256;
  defaults.max_positions = 32768;
  defaults.width = 2048;
  defaults.layers = 36;
  defaults.heads = 16;
  defaults.kv_heads = is_null(fields, "num_key_value_heads") ? 0 : 4;
  defaults.tied = true;
  read_llama_sizes(fields, defaults, config);
  read_rms_norm(fields, 1e-6, config);
  read_rotary(fields, {.theta = 2e6}, config);
  read_attention_bias(fields, config);
  config.mlp_bias = fields.flag("mlp_bias", false);
  const auto turning = turning_layers(fields, config);
  set_turning(config, turning);
  const bool slides = fields.flag("use_sliding_window", false);
  read_windows(
      fields, fields.has_value("sliding_window"),
      [&](auto layer) { return slides && !turning[static_cast<std::size_t>(layer)]; }, config);
}

// ---- Granite, Cohere ----

void read_granite_parts(const ConfigFields& fields, DecoderConfig& config) {
  read_attention_bias(fields, config);
  config.entry_scale = fields.positive_number("embedding_multiplier", 1);
  config.attention_scale = fields.positive_number("attention_multiplier", 1);
  config.output_scale = fields.positive_number("residual_multiplier", 1);
  config.logit_scale = 1 / fields.positive_number("logits_scaling", 1);
}

void read_granite(const ConfigFields& fields, DecoderConfig& config) {
  read_llama_sizes(fields, {}, config);
  read_rms_norm(fields, 1e-6, config);
  read_rotary(fields, {}, config);
  read_granite_parts(fields, config);
  config.mlp_bias = fields.flag("mlp_bias", false);
}

namespace {

/// What both generations share. The first has its own default of theta.
void read_any_cohere(const ConfigFields& fields, double theta, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 256000;
  defaults.max_positions = 8192;
  defaults.width = 8192;
  defaults.layers = 40;
  defaults.heads = 64;
  defaults.mlp_width = 22528;
  defaults.tied = true;
  read_llama_sizes(fields, defaults, config);
  read_layer_norm(fields, "layer_norm_eps", config);
  config.norm.bias = false;
  read_rotary(fields, {.theta = theta}, config);
  config.rotary.front().interleaved = true;
  read_attention_bias(fields, config);
  config.order = BlockOrder::kParallel;
  config.one_norm = true;
  config.logit_scale = fields.positive_number("logit_scale", 0.0625);
}

}  // namespace

void read_cohere(const ConfigFields& fields, DecoderConfig& config) {
  read_any_cohere(fields, 5e5, config);
  if (!is_null(fields, "use_qk_norm") && fields.flag("use_qk_norm", false)) config.head_norms = HeadNorms::kOwn;
}

void read_cohere2(const ConfigFields& fields, DecoderConfig& config) {
  read_any_cohere(fields, 10000, config);
  refuse_other_head_width(fields, config);
  const auto pattern = fields.size("sliding_window_pattern", 4, kMaxLayers);
  const auto slides = [&](auto layer) { return (layer + 1) % pattern != 0; };
  need_window(fields);
  set_turning(config, read_windows(fields, /*windows=*/true, slides, config));
}

// ---- GLM-4, Nemotron ----

void read_glm4(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 151552;
  defaults.max_positions = 131072;
  defaults.layers = 40;
  defaults.mlp_width = 13696;
  defaults.kv_heads = 2;
  defaults.head_width = 128;
  read_llama_sizes(fields, defaults, config);
  read_rms_norm(fields, 1.5625e-7, config);
  read_rotary(fields, {.part_from = RotaryPart::kAny, .part = 0.5}, config);
  config.rotary.front().interleaved = true;
  config.query_bias = fields.flag("attention_bias", true);
  config.output_norms = true;
}

void read_nemotron(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 256000;
  defaults.max_positions = 4096;
  defaults.width = 6144;
  defaults.heads = 48;
  defaults.mlp_width = 24576;
  defaults.activation = "relu2";
  read_llama_sizes(fields, defaults, config);
  read_layer_norm(fields, "norm_eps", config);
  config.norm.offset = true;
  read_rotary(fields, {.part_from = RotaryPart::kAny, .part = 0.5}, config);
  config.gated_mlp = false;
  read_attention_bias(fields, config);
  config.mlp_bias = fields.flag("mlp_bias", false);
}

}  // namespace rometrace
