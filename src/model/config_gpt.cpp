#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "model/config_families.hpp"
#include "model/config_parts.hpp"
#include "rometrace/text/input_file.hpp"

// GPT-2 and its relatives.

namespace rometrace {
namespace {

void read_gpt2_sizes(const ConfigFields& fields, const char* activation, DecoderConfig& config) {
  config.vocab_size = fields.size("vocab_size", config.vocab_size, kMaxSize);
  // The oldest files have n_ctx alone. Beside n_positions it says nothing: transformers does not read it any more.
  const std::int64_t n_ctx =
      fields.has("n_positions") ? config.max_positions : fields.size("n_ctx", config.max_positions, kMaxSize);
  config.max_positions = fields.size("n_positions", "max_position_embeddings", n_ctx, kMaxSize);
  config.width = fields.size("n_embd", "hidden_size", config.width, kMaxSize);
  config.layers = fields.size("n_layer", "num_hidden_layers", config.layers, kMaxLayers);
  config.heads = fields.size("n_head", "num_attention_heads", config.heads, kMaxSize);
  heads_share_width(fields, "n_head", "n_embd", config);
  config.mlp_width = fields.size_or_null("n_inner", 4 * config.width, kMaxSize);
  config.activation = fields.activation("activation_function", activation);
  config.norm.epsilon = fields.positive_number("layer_norm_epsilon", 1e-5);
}

}  // namespace

void read_gpt2(const ConfigFields& fields, DecoderConfig& config) {
  read_gpt2_sizes(fields, "gelu_new", config);
  config.learned_positions = config.max_positions;
  if (!fields.flag("scale_attn_weights", true)) config.attention_scale = 1;
  config.scale_attn_by_inverse_layer_idx = fields.flag("scale_attn_by_inverse_layer_idx", false);
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", true);
}

void read_gptj(const ConfigFields& fields, DecoderConfig& config) {
  config.vocab_size = 50400;
  config.max_positions = 2048;
  config.width = 4096;
  config.layers = 28;
  config.heads = 16;
  read_gpt2_sizes(fields, "gelu_new", config);
  config.learned_positions = 0;
  Rotary rotary;
  rotary.width = fields.size("rotary_dim", 64, kMaxSize);
  rotary.interleaved = true;
  rotary.longest = config.max_positions;  // transformers has a table of them
  check_rotary_width(fields, rotary, config);
  config.rotary = {rotary};
  config.order = BlockOrder::kParallel;
  config.one_norm = true;
  config.query_bias = config.projection_bias = false;
  config.head_bias = true;
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", false);
}

namespace {

/// [[["global", "local"], 12]] -> which layers see a window only. Files may have the list of all layers beside it,
/// which then counts.
std::vector<bool> local_layers(const ConfigFields& fields, const DecoderConfig& config) {
  if (fields.has_value("attention_layers")) {
    const nlohmann::json& layers = fields.at("attention_layers");
    std::vector<bool> local;
    for (std::size_t i = 0; layers.is_array() && i < layers.size(); ++i) {
      if (layers[i] == "global" || layers[i] == "local") local.push_back(layers[i] == "local");
    }
    if (static_cast<std::int64_t>(local.size()) == config.layers && local.size() == layers.size()) return local;
    fields.refuse("attention_layers",
                  "expected \"global\" or \"local\" for each of " + std::to_string(config.layers) + " layers");
  }
  const nlohmann::json types = fields.has_value("attention_types")
                                   ? fields.at("attention_types")
                                   : nlohmann::json::parse(R"([[["global", "local"], 12]])");
  std::vector<bool> local;
  const auto complete = [&] {
    if (!types.is_array()) return false;
    for (const auto& item : types) {
      if (!item.is_array() || item.size() != 2 || !item[0].is_array() || !item[1].is_number_unsigned()) return false;
      for (std::uint64_t i = 0; i < item[1].get<std::uint64_t>(); ++i) {
        for (const auto& type : item[0]) {
          if (type != "global" && type != "local") return false;
          local.push_back(type == "local");
          if (static_cast<std::int64_t>(local.size()) > config.layers) return false;
        }
        if (item[0].empty()) return false;
      }
    }
    return static_cast<std::int64_t>(local.size()) == config.layers;
  };
  if (complete()) return local;
  fields.refuse("attention_types is " + one_line(types.dump(), 200) +
                "; expected [[[\"global\", \"local\"], times], ...] for " + std::to_string(config.layers) + " layers");
}

}  // namespace

void read_gpt_neo(const ConfigFields& fields, DecoderConfig& config) {
  config.vocab_size = fields.size("vocab_size", 50257, kMaxSize);
  config.max_positions = fields.size("max_position_embeddings", 2048, kMaxSize);
  config.width = fields.size("hidden_size", 2048, kMaxSize);
  config.layers = fields.size("num_layers", "num_hidden_layers", 24, kMaxLayers);
  config.heads = fields.size("num_heads", "num_attention_heads", 16, kMaxSize);
  heads_share_width(fields, "num_heads", "hidden_size", config);
  config.mlp_width = fields.size_or_null("intermediate_size", 4 * config.width, kMaxSize);
  config.activation = fields.activation("activation_function", "gelu_new");
  config.norm.epsilon = fields.positive_number("layer_norm_epsilon", 1e-5);
  config.learned_positions = config.max_positions;
  config.attention_scale = 1;
  config.query_bias = false;
  config.attention.resize(static_cast<std::size_t>(config.layers));
  set_windows(config, local_layers(fields, config), fields.size("window_size", 256, kMaxSize));
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", true);
}

void read_gpt_neox(const ConfigFields& fields, DecoderConfig& config) {
  config.vocab_size = fields.size("vocab_size", 50432, kMaxSize);
  config.max_positions = fields.size("max_position_embeddings", 2048, kMaxSize);
  config.width = fields.size("hidden_size", 6144, kMaxSize);
  config.layers = fields.size("num_hidden_layers", 44, kMaxLayers);
  config.heads = fields.size("num_attention_heads", 64, kMaxSize);
  heads_share_width(fields, "num_attention_heads", "hidden_size", config);
  refuse_other_head_width(fields, config);
  config.mlp_width = fields.size("intermediate_size", 24576, kMaxSize);
  config.activation = fields.activation("hidden_act", "gelu");
  config.norm.epsilon = fields.positive_number("layer_norm_eps", 1e-5);
  read_rotary(fields,
              {.theta_name = "rotary_emb_base",
               .part_from = RotaryPart::kScaling,
               .part = fields.positive_number("rotary_pct", 0.25)},
              config);
  if (fields.flag("use_parallel_residual", true)) config.order = BlockOrder::kParallel;
  config.query_bias = config.projection_bias = fields.flag("attention_bias", true);
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", false);
}

void read_opt(const ConfigFields& fields, DecoderConfig& config) {
  config.vocab_size = fields.size("vocab_size", 50272, kMaxSize);
  config.max_positions = fields.size("max_position_embeddings", 2048, kMaxSize);
  config.width = fields.size("hidden_size", 768, kMaxSize);
  config.layers = fields.size("num_hidden_layers", 12, kMaxLayers);
  config.heads = fields.size("num_attention_heads", 12, kMaxSize);
  heads_share_width(fields, "num_attention_heads", "hidden_size", config);
  config.mlp_width = fields.size("ffn_dim", 3072, kMaxSize);
  config.embedding_width = fields.size_or_null("word_embed_proj_dim", config.width, kMaxSize);
  config.activation = fields.activation("activation_function", "relu");
  config.norm.affine = fields.flag("layer_norm_elementwise_affine", true);
  config.position_offset = 2;
  config.learned_positions = config.max_positions + config.position_offset;
  const bool before = fields.flag("do_layer_norm_before", true);
  if (!before) config.order = BlockOrder::kPostNorm;
  config.final_norm = !fields.flag("_remove_final_layer_norm", false) && before;
  config.query_bias = config.projection_bias = config.mlp_bias = fields.flag("enable_bias", true);
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", true);
}

void read_gpt_bigcode(const ConfigFields& fields, DecoderConfig& config) {
  read_gpt2_sizes(fields, "gelu_pytorch_tanh", config);
  config.learned_positions = config.max_positions;
  if (!fields.flag("scale_attn_weights", true)) config.attention_scale = 1;
  if (fields.flag("multi_query", true)) config.kv_heads = 1;
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", true);
}

void read_bloom(const ConfigFields& fields, DecoderConfig& config) {
  config.vocab_size = fields.size("vocab_size", 250880, kMaxSize);
  config.max_positions = fields.size("seq_length", 2048, kMaxSize);  // for the record: nothing ends there
  config.width = fields.size_or_null("n_embed", fields.size("hidden_size", 64, kMaxSize), kMaxSize);
  config.layers = fields.size("n_layer", "num_hidden_layers", 2, kMaxLayers);
  config.heads = fields.size("n_head", "num_attention_heads", 8, kMaxSize);
  heads_share_width(fields, "n_head", "hidden_size", config);
  config.mlp_width = 4 * config.width;
  config.activation = Activation::kGeluTanhRounded;
  config.norm.epsilon = fields.positive_number("layer_norm_epsilon", 1e-5);
  config.embedding_norm = true;
  config.learned_positions = 0;
  config.alibi = Alibi{};
  if (fields.flag("apply_residual_connection_post_layernorm", false)) {
    fields.refuse("apply_residual_connection_post_layernorm", "expected false: layers that add to norms' outputs");
  }
  if (fields.flag("slow_but_exact", false) && fields.size("pretraining_tp", 1, kMaxSize) > 1) {
    fields.refuse("slow_but_exact", "expected false: transformers leaves out biases where it is true");
  }
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", true);
}

void read_mpt(const ConfigFields& fields, DecoderConfig& config) {
  config.vocab_size = fields.size("vocab_size", 50368, kMaxSize);
  config.max_positions = fields.size("max_seq_len", 2048, kMaxSize);
  config.width = fields.size("d_model", "hidden_size", 2048, kMaxSize);
  config.layers = fields.size("n_layers", "num_hidden_layers", 24, kMaxLayers);
  config.heads = fields.size("n_heads", "num_attention_heads", 16, kMaxSize);
  heads_share_width(fields, "n_heads", "d_model", config);
  config.mlp_width = 4 * config.width;
  config.activation = Activation::kGeluErf;
  config.norm.epsilon = fields.positive_number("layer_norm_epsilon", 1e-5);
  config.norm.bias = false;
  config.learned_positions = 0;
  config.alibi = Alibi{.ends = true};  // transformers has a table of them
  config.query_bias = config.projection_bias = config.mlp_bias = false;
  const auto attention = fields.object_or_none("attn_config");
  config.attention_scale = attention.positive_or_null("softmax_scale", config.attention_scale);
  // What transformers' class has for a field, and computes one value of.
  const auto expect = [](const ConfigFields& of, const char* name, const std::vector<nlohmann::json>& values) {
    if (of.has(name) && std::ranges::find(values, of.at(name)) == values.end()) {
      of.refuse(name, "expected " + values.front().dump() + ", as transformers computes it");
    }
  };
  // A clip of 0 is none.
  if (!attention.has("clip_qkv") || attention.at("clip_qkv") != 0) {
    config.query_key_value_clip = attention.positive_or_null("clip_qkv", 0);
  }
  expect(attention, "attn_type", {"multihead_attention"});
  expect(attention, "prefix_lm", {false});
  expect(attention, "qk_ln", {false});
  expect(attention, "alibi", {true});
  expect(attention, "alibi_bias_max", {8});
  expect(fields, "expansion_ratio", {4});
  expect(fields, "logit_scale", {nullptr});
  expect(fields, "no_bias", {true});
  expect(fields, "norm_type", {"low_precision_layernorm", "layernorm"});
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", true);
}

void read_falcon(const ConfigFields& fields, DecoderConfig& config) {
  config.vocab_size = fields.size("vocab_size", 65024, kMaxSize);
  config.max_positions = fields.size("max_position_embeddings", 2048, kMaxSize);
  config.width = fields.size_or_null("n_embed", fields.size("hidden_size", 4544, kMaxSize), kMaxSize);
  config.layers = fields.size("num_hidden_layers", 32, kMaxLayers);
  config.heads = fields.size("num_attention_heads", 71, kMaxSize);
  heads_share_width(fields, "num_attention_heads", "hidden_size", config);
  refuse_other_head_width(fields, config);
  config.mlp_width = fields.size_or_null("ffn_hidden_size", 4 * config.width, kMaxSize);
  config.activation = fields.activation("activation", "gelu");
  config.norm.epsilon = fields.positive_number("layer_norm_epsilon", 1e-5);
  const auto flag = [&](const char* name, bool fallback) {
    return !is_null(fields, name) && fields.flag(name, fallback);
  };
  config.query_bias = config.projection_bias = config.mlp_bias = flag("bias", false);
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", true);
  config.learned_positions = 0;
  if (flag("alibi", false)) {
    config.alibi = Alibi{.rounded = true, .scale = config.attention_scale};
  } else {
    read_rotary(fields, {}, config);
  }

  const bool newer = flag("new_decoder_architecture", false), parallel = flag("parallel_attn", true);
  const auto kv_heads = fields.size_or_null("num_kv_heads", config.heads, kMaxSize);
  if (newer) {
    config.kv_heads = kv_heads;
    refuse_unless_divides(fields, "num_kv_heads", kv_heads, "num_attention_heads", config.heads,
                          "each serves the same number of queries' heads");
  } else if (flag("multi_query", true)) {
    config.kv_heads = 1;
  } else if (kv_heads != config.heads) {
    fields.refuse("num_kv_heads", "expected num_attention_heads, as multi_query is false");
  }
  const auto norms = fields.size_or_null("num_ln_in_parallel_attn", newer ? 2 : 1, 2);
  if (parallel) config.order = BlockOrder::kParallel;
  config.one_norm = parallel && norms == 1;
  if (newer && !parallel) fields.refuse("parallel_attn", "expected true in the newer architecture");
  if (!newer && parallel && norms == 2) {
    fields.refuse("num_ln_in_parallel_attn", "expected 1, as new_decoder_architecture is false");
  }
}

}  // namespace rometrace
