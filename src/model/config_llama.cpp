#include <algorithm>
#include <cmath>

#include "model/config_families.hpp"
#include "model/config_parts.hpp"

// Llama and what came after it.

namespace rometrace {
void read_llama(const ConfigFields& fields, DecoderConfig& config) {
  read_llama_sizes(fields, {}, config);
  read_rms_norm(fields, 1e-6, config);
  read_rotary(fields, {}, config);
  config.query_bias = config.projection_bias = fields.flag("attention_bias", false);
  config.mlp_bias = fields.flag("mlp_bias", false);
}

void read_mistral(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.max_positions = 4096 * 32;
  defaults.mlp_width = 14336;
  defaults.kv_heads = 8;
  if (is_null(fields, "num_key_value_heads")) defaults.kv_heads = 0;
  read_llama_sizes(fields, defaults, config);
  read_rms_norm(fields, 1e-6, config);
  read_rotary(fields, {}, config);
  read_windows(
      fields, !is_null(fields, "sliding_window"), [](auto) { return true; }, config);
}

namespace {

void read_qwen(const ConfigFields& fields, bool third, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 151936;
  defaults.max_positions = 32768;
  defaults.mlp_width = 22016;
  defaults.kv_heads = fields.has("num_key_value_heads") ? 0 : 32;
  if (third) defaults.head_width = 128;
  read_llama_sizes(fields, defaults, config);
  read_rms_norm(fields, 1e-6, config);
  read_rotary(fields, {}, config);
  config.query_bias = third ? fields.flag("attention_bias", false) : true;
  config.projection_bias = third && config.query_bias;
  if (third) config.head_norms = HeadNorms::kShared;
  const bool windows = fields.flag("use_sliding_window", false) && !is_null(fields, "sliding_window");
  const auto slides = [&](auto layer) { return layer >= fields.count("max_window_layers", 28, kMaxLayers); };
  read_windows(fields, windows, slides, config);
}

}  // namespace

void read_qwen2(const ConfigFields& fields, DecoderConfig& config) {
  read_qwen(fields, /*third=*/false, config);
}

void read_qwen3(const ConfigFields& fields, DecoderConfig& config) {
  read_qwen(fields, /*third=*/true, config);
}

namespace {

void read_gemma_parts(const ConfigFields& fields, DecoderConfig& config) {
  read_rms_norm(fields, 1e-6, config);
  config.norm.offset = true;
  config.embedding_scale = std::sqrt(static_cast<double>(config.width));
  config.query_bias = config.projection_bias = fields.flag("attention_bias", false);
}

}  // namespace

void read_gemma(const ConfigFields& fields, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 256000;
  defaults.max_positions = 8192;
  defaults.width = 3072;
  defaults.layers = 28;
  defaults.heads = defaults.kv_heads = 16;
  defaults.head_width = 256;
  defaults.mlp_width = 24576;
  defaults.activation = "gelu_pytorch_tanh";
  defaults.tied = true;
  read_llama_sizes(fields, defaults, config);
  read_gemma_parts(fields, config);
  read_rotary(fields, {}, config);
  // The first files say "gelu" and mean the function that the models were trained with.
  if (config.activation == Activation::kGeluErf) config.activation = Activation::kGeluTanh;
}

namespace {

LlamaLike gemma2_defaults() {
  LlamaLike defaults;
  defaults.vocab_size = 256000;
  defaults.max_positions = 8192;
  defaults.width = 2304;
  defaults.layers = 26;
  defaults.heads = 8;
  defaults.kv_heads = 4;
  defaults.head_width = 256;
  defaults.mlp_width = 9216;
  defaults.activation_name = "hidden_activation";
  defaults.activation = "gelu_pytorch_tanh";
  defaults.tied = true;
  return defaults;
}

void read_gemma2_parts(const ConfigFields& fields, DecoderConfig& config) {
  read_gemma_parts(fields, config);
  config.output_norms = true;
  config.attention_scale = 1 / std::sqrt(fields.positive_number("query_pre_attn_scalar", 256));
}

}  // namespace

void read_gemma2(const ConfigFields& fields, DecoderConfig& config) {
  read_llama_sizes(fields, gemma2_defaults(), config);
  read_gemma2_parts(fields, config);
  read_rotary(fields, {}, config);
  const auto cap = [&](const char* name, double fallback) {
    return is_null(fields, name) ? 0 : fields.positive_number(name, fallback);
  };
  config.attention_softcap = cap("attn_logit_softcapping", 50);
  config.logit_softcap = cap("final_logit_softcapping", 30);
  set_windows(config, sliding_layers(fields, config, [](auto layer) { return layer % 2 == 0; }),
              fields.size("sliding_window", 4096, kMaxSize));
}

void read_gemma3(const ConfigFields& fields, DecoderConfig& config) {
  auto defaults = gemma2_defaults();
  defaults.vocab_size = 262208;
  defaults.max_positions = 131072;
  read_llama_sizes(fields, defaults, config);
  read_gemma2_parts(fields, config);
  config.head_norms = HeadNorms::kShared;
  if (fields.has_value("attn_logit_softcapping")) {
    fields.refuse("attn_logit_softcapping", "expected null: Gemma 3 has none");
  }
  config.logit_softcap = fields.positive_or_null("final_logit_softcapping", 0);
  const auto pattern = fields.size("sliding_window_pattern", 6, kMaxLayers);
  const auto sliding = sliding_layers(fields, config, [&](auto layer) { return (layer + 1) % pattern != 0; });
  set_windows(config, sliding, fields.size("sliding_window", 4096, kMaxSize));
  read_layer_rotaries(
      fields, sliding,
      {fields.positive_number("rope_theta", 1e6), fields.positive_number("rope_local_base_freq", 10000)}, config);
}

}  // namespace rometrace
