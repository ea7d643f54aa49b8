#include "rometrace/model/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "model/config_fields.hpp"
#include "model/gguf_config.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

// Each family's fields, defaults and old forms are those of its configuration class in transformers 5.

namespace rometrace {
namespace {

using nlohmann::json;

/// One family: its name in config.json, the classes whose weights are a language model's (without "TF" or "Flax" in
/// front), and who reads its fields.
struct FamilyEntry {
  Family family;
  std::string_view name;
  std::vector<std::string_view> classes;
  void (*read)(const ConfigFields&, DecoderConfig&);
  std::vector<std::string_view> idle;  ///< fields that change nothing, or nothing beside another that is there
};

const std::vector<FamilyEntry>& families();

const FamilyEntry& entry_of(Family family) {
  return *std::ranges::find(families(), family, &FamilyEntry::family);
}

// ---- What kind of model it is ----

/// The class that wrote the weights, as the file names it; empty if it names none.
std::string read_architecture(const ConfigFields& fields) {
  if (!fields.has_value("architectures")) return "";
  const json& names = fields.at("architectures");
  if (!names.is_array()) fields.refuse("architectures", "expected a list of class names");
  if (names.empty()) return "";
  if (names.size() != 1 || !names[0].is_string()) fields.refuse("architectures", "expected one class name");
  return names[0].get<std::string>();
}

/// Why models of another kind cannot be traced, where the name tells.
std::string what_it_is(const std::string& model_type) {
  const auto has = [&](std::string_view part) { return model_type.find(part) != std::string::npos; };
  for (const auto* part : {"moe", "mixtral", "deepseek", "gpt_oss", "dbrx", "jamba", "llama4", "grok", "arctic"}) {
    if (has(part)) return " (a mixture of experts)";
  }
  for (const auto* part : {"t5", "bart", "pegasus", "marian", "m2m", "nllb", "whisper", "prophetnet", "fsmt"}) {
    if (has(part)) return " (an encoder-decoder)";
  }
  for (const auto* part : {"bert", "electra", "deberta", "xlnet"}) {
    if (has(part)) return " (an encoder)";
  }
  return "";
}

constexpr std::string_view kGemma3WithPictures = "gemma3";  // the text's part is traced

std::string family_names() {
  std::string names;
  for (const auto& entry : families()) names += std::string(entry.name) + ", ";
  return names.append(kGemma3WithPictures);
}

Family read_family(const ConfigFields& fields, const std::string& architecture) {
  std::optional<Family> found;
  if (fields.has_value("model_type")) {
    for (const auto& entry : families()) {
      if (fields.at("model_type") == entry.name) found = entry.family;
    }
    if (fields.at("model_type") == kGemma3WithPictures) found = Family::kGemma3;
  } else if (architecture.find("GPT2") != std::string::npos) {
    found = Family::kGpt2;  // the first files name no model_type
  }
  if (!found) {
    const bool named = fields.has_value("model_type");
    const auto what = named && fields.at("model_type").is_string()
                          ? what_it_is(fields.at("model_type").get<std::string>())
                          : std::string();
    fields.refuse("model_type is " + (named ? one_line(fields.at("model_type").dump()) : "absent") + what +
                  "; only dense decoders of these families can be traced: " + family_names());
  }
  if (architecture.empty()) return *found;
  std::string_view name = architecture;
  for (const std::string_view framework : {"TF", "Flax"}) {  // the same weights, saved from another framework
    if (name.starts_with(framework)) name.remove_prefix(framework.size());
  }
  // The classes for classification and question answering were trained away from predicting the next token, and
  // others that call themselves by the family's name compute something else.
  const auto& classes = entry_of(*found).classes;
  if (std::ranges::find(classes, name) != classes.end()) return *found;
  std::string expected;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    expected += (i == 0 ? "" : i + 1 == classes.size() ? " or " : ", ") + std::string(classes[i]);
  }
  fields.refuse("architectures", "expected a language model: " + expected);
}

/// Fields of any family that change the computation in a way that is not computed here.
void check_nothing_unsupported(const ConfigFields& fields) {
  if (fields.flag("is_encoder_decoder", false)) {
    fields.refuse("is_encoder_decoder", "expected false: encoder-decoders cannot be traced");
  }
  if (fields.flag("add_cross_attention", false)) {
    fields.refuse("add_cross_attention", "expected false: models that attend to an encoder cannot be traced");
  }
  for (const auto* name : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    if (fields.has_value(name) && fields.at(name) != 0) {
      fields.refuse(name, "expected none: a mixture of experts cannot be traced");
    }
  }
  for (const auto* name : {"use_bidirectional_attention", "alibi"}) {
    if (fields.has_value(name) && fields.at(name) != false) fields.refuse(name, "expected false");
  }
  if (fields.has("is_causal") && fields.at("is_causal") != true) {  // null, too, means false
    fields.refuse("is_causal", "expected true: queries that see what comes after them are not computed");
  }
  if (fields.has_value("pruned_heads") && !fields.at("pruned_heads").empty()) {
    fields.refuse("pruned_heads", "expected none: models with heads cut out cannot be traced");
  }
  if (fields.has_value("per_layer_config") && !fields.at("per_layer_config").empty()) {
    fields.refuse("per_layer_config", "expected none: layers of several kinds cannot be traced");
  }
  if (fields.has_value("quantization_config") && !fields.at("quantization_config").empty()) {
    fields.refuse("quantization_config", "expected none: give the model's unquantised weights");
  }
  if (fields.has_value("transformers_weights")) {
    fields.refuse("transformers_weights", "expected none: the weights are read from files of the usual names");
  }
}

// ---- Parts that families share ----

void refuse_unless_divides(const ConfigFields& fields, const char* name, std::int64_t value, const char* whole_name,
                           std::int64_t whole, const char* why) {
  if (whole % value == 0) return;
  fields.refuse(std::string(name) + " is " + std::to_string(value) + ", which does not divide " + whole_name + " " +
                std::to_string(whole) + "; " + why);
}

/// Heads of equal width that make up the model's.
void heads_share_width(const ConfigFields& fields, const char* heads_name, const char* width_name,
                       DecoderConfig& config) {
  refuse_unless_divides(fields, heads_name, config.heads, width_name, config.width, "all heads have the same width");
  config.kv_heads = config.heads;
  config.head_width = config.width / config.heads;
  config.attention_scale = 1 / std::sqrt(static_cast<double>(config.head_width));
}

/// "rope_parameters" of newer files, "rope_scaling" of older ones. `trained_positions`: what is said outside of them of
/// the positions before scaling; it comes before what they say themselves.
Rotary read_rotary(const ConfigFields& scaling, const DecoderConfig& config, double theta,
                   std::optional<double> trained_positions = std::nullopt) {
  Rotary rotary;
  rotary.width = config.head_width;
  rotary.theta = scaling.positive_or_null("rope_theta", theta);
  const bool has_old_name = scaling.has_value("type");
  const char* type_name = scaling.has_value("rope_type") || !has_old_name ? "rope_type" : "type";
  const auto type = scaling.text(type_name, "default");
  const auto need = [&](const char* name) {
    if (!scaling.has_value(name)) {
      scaling.refuse("rotary positions of type " + type + " have no " + name + "; expected a number");
    }
    return scaling.positive_number(name, 1);
  };
  const auto positions = static_cast<double>(config.max_positions);
  const auto original = [&] {
    return trained_positions.value_or(scaling.positive_or_null("original_max_position_embeddings", positions));
  };
  if (type == "linear") {
    rotary.scaling = Rotary::Scaling::kLinear;
    rotary.factor = need("factor");
  } else if (type == "dynamic") {  // changes all angles of a text beyond max_positions
    need("factor");
    rotary.ends = true;
  } else if (type == "llama3") {
    rotary.scaling = Rotary::Scaling::kLlama3;
    rotary.factor = need("factor");
    rotary.low_frequency = need("low_freq_factor");
    rotary.high_frequency = need("high_freq_factor");
    rotary.original_positions = original();
    if (rotary.low_frequency == rotary.high_frequency) {
      scaling.refuse("high_freq_factor", "expected another number than low_freq_factor");
    }
  } else if (type == "yarn") {
    rotary.scaling = Rotary::Scaling::kYarn;
    rotary.original_positions = original();
    if (!scaling.has("factor")) need("factor");
    rotary.factor = scaling.positive_or_null("factor", positions / rotary.original_positions);
    rotary.beta_fast = scaling.positive_or_null("beta_fast", rotary.beta_fast);
    rotary.beta_slow = scaling.positive_or_null("beta_slow", rotary.beta_slow);
    rotary.whole_pairs = scaling.flag("truncate", rotary.whole_pairs);
    const auto magnitude = [&](double scale) {
      return rotary.factor <= 1 ? 1.0 : 0.1 * scale * std::log(rotary.factor) + 1;
    };
    const bool scaled = scaling.has_value("mscale") && scaling.has_value("mscale_all_dim");
    const auto ordinary = scaled ? magnitude(scaling.positive_number("mscale", 1)) /
                                       magnitude(scaling.positive_number("mscale_all_dim", 1))
                                 : magnitude(1);
    rotary.magnitude = scaling.positive_or_null("attention_factor", ordinary);
    if (rotary.theta == 1) scaling.refuse("rope_theta", "expected another number than 1");
  } else if (type != "default") {
    scaling.refuse(type_name, "expected default, linear, dynamic, llama3 or yarn");
  }
  return rotary;
}

void check_rotary_width(const ConfigFields& fields, const Rotary& rotary, const DecoderConfig& config) {
  if (rotary.width >= 2 && rotary.width % 2 == 0 && rotary.width <= config.head_width) return;
  fields.refuse("rotary positions would turn " + std::to_string(rotary.width) + " numbers of heads of width " +
                std::to_string(config.head_width) + "; expected an even number of them, from 2 up");
}

/// The object that says how positions turn, or one with no fields. Of two, the older one counts unless it is empty.
ConfigFields rotary_fields(const ConfigFields& fields) {
  if (fields.has_value("rope_scaling") && !fields.at("rope_scaling").empty()) return fields.object("rope_scaling");
  return fields.object_or_none("rope_parameters");
}

/// The part of each head that turns: GPT-NeoX's alone is not all of it.
double rotary_part(const ConfigFields& fields, const ConfigFields& scaling, double part, const DecoderConfig& config) {
  const auto* name = "partial_rotary_factor";
  part = scaling.positive_or_null(name, part);
  if (part > 1) fields.refuse("the rotary part of a head is " + std::to_string(part) + "; expected at most 1");
  if (config.family == Family::kGptNeoX) return part;
  for (const auto* of : {&scaling, &fields}) {
    if (of->positive_or_null(name, 1) != 1) {
      of->refuse(name, "expected 1: " + std::string(to_string(config.family)) + " turns whole heads");
    }
  }
  return part;
}

/// Rotary positions of all layers alike, of a part of each head.
void read_rotary(const ConfigFields& fields, const char* theta_name, double part, DecoderConfig& config) {
  const auto scaling = rotary_fields(fields);
  for (const auto* type : {"full_attention", "sliding_attention"}) {
    if (scaling.has_value(type)) scaling.refuse(type, "expected none: positions of all layers turn alike");
  }
  std::optional<double> trained_positions;
  if (fields.has_value("original_max_position_embeddings")) {
    trained_positions = fields.positive_number("original_max_position_embeddings", 1);
  }
  auto rotary = read_rotary(scaling, config, fields.positive_number(theta_name, 10000), trained_positions);
  part = rotary_part(fields, scaling, part, config);
  rotary.width = static_cast<std::int64_t>(static_cast<double>(config.head_width) * part);
  check_rotary_width(fields, rotary, config);
  config.learned_positions = 0;
  config.rotary = {rotary};
}

/// "layer_types" where the file has it, else what `slides` says of each layer. Layers that slide have the window.
std::vector<bool> sliding_layers(const ConfigFields& fields, const DecoderConfig& config,
                                 const std::function<bool(std::int64_t)>& slides) {
  std::vector<bool> sliding;
  if (!fields.has_value("layer_types")) {
    for (std::int64_t layer = 0; layer < config.layers; ++layer) sliding.push_back(slides(layer));
    return sliding;
  }
  const json& types = fields.at("layer_types");
  const bool list = types.is_array() && static_cast<std::int64_t>(types.size()) == config.layers;
  for (std::size_t i = 0; list && i < types.size(); ++i) {
    if (types[i] == "sliding_attention" || types[i] == "full_attention") {
      sliding.push_back(types[i] == "sliding_attention");
    }
  }
  if (static_cast<std::int64_t>(sliding.size()) != config.layers) {
    fields.refuse("layer_types", "expected a list of \"full_attention\" and \"sliding_attention\", one for each of " +
                                     std::to_string(config.layers) + " layers");
  }
  return sliding;
}

void set_windows(DecoderConfig& config, const std::vector<bool>& sliding, std::int64_t window) {
  for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
    if (sliding[layer]) config.attention[layer].window = window;
  }
}

/// Layers that slide, as sliding_layers() says, and their window where there is one.
void read_windows(const ConfigFields& fields, bool windows, const std::function<bool(std::int64_t)>& slides,
                  DecoderConfig& config) {
  const auto sliding = sliding_layers(fields, config, [&](auto layer) { return windows && slides(layer); });
  if (windows) {
    set_windows(config, sliding, fields.size("sliding_window", 4096, kMaxSize));
  } else if (std::ranges::find(sliding, true) != sliding.end()) {
    fields.refuse("layer_types",
                  "expected \"full_attention\" only, as there is no window (sliding_window is null, or "
                  "use_sliding_window is not true)");
  }
}

bool is_null(const ConfigFields& fields, const char* name) {
  return fields.has(name) && !fields.has_value(name);
}

// ---- Families ----

void read_gpt2_sizes(const ConfigFields& fields, DecoderConfig& config) {
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
  config.activation = fields.activation("activation_function", "gelu_new");
  config.norm.epsilon = fields.positive_number("layer_norm_epsilon", 1e-5);
}

void read_gpt2(const ConfigFields& fields, DecoderConfig& config) {
  read_gpt2_sizes(fields, config);
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
  read_gpt2_sizes(fields, config);
  config.learned_positions = 0;
  Rotary rotary;
  rotary.width = fields.size("rotary_dim", 64, kMaxSize);
  rotary.interleaved = true;
  rotary.ends = true;  // transformers has a table of them
  check_rotary_width(fields, rotary, config);
  config.rotary = {rotary};
  config.order = BlockOrder::kParallel;
  config.one_norm = true;
  config.query_bias = config.projection_bias = false;
  config.head_bias = true;
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", false);
}

/// [[["global", "local"], 12]] -> which layers see a window only. Files may have the list of all layers beside it,
/// which then counts.
std::vector<bool> local_layers(const ConfigFields& fields, const DecoderConfig& config) {
  if (fields.has_value("attention_layers")) {
    const json& layers = fields.at("attention_layers");
    std::vector<bool> local;
    for (std::size_t i = 0; layers.is_array() && i < layers.size(); ++i) {
      if (layers[i] == "global" || layers[i] == "local") local.push_back(layers[i] == "local");
    }
    if (static_cast<std::int64_t>(local.size()) == config.layers && local.size() == layers.size()) return local;
    fields.refuse("attention_layers",
                  "expected \"global\" or \"local\" for each of " + std::to_string(config.layers) + " layers");
  }
  const json types = fields.has_value("attention_types") ? fields.at("attention_types")
                                                         : json::parse(R"([[["global", "local"], 12]])");
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
  if (fields.has_value("head_dim") && fields.at("head_dim") != config.head_width) {
    fields.refuse("head_dim", "expected none, or hidden_size / num_attention_heads");
  }
  config.mlp_width = fields.size("intermediate_size", 24576, kMaxSize);
  config.activation = fields.activation("hidden_act", "gelu");
  config.norm.epsilon = fields.positive_number("layer_norm_eps", 1e-5);
  read_rotary(fields, "rotary_emb_base", fields.positive_number("rotary_pct", 0.25), config);
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

/// The defaults in which the families after Llama differ.
struct LlamaLike {
  std::int64_t vocab_size = 32000, max_positions = 2048, width = 4096, layers = 32, heads = 32, mlp_width = 11008;
  std::int64_t kv_heads = 0;    // 0: as many as heads
  std::int64_t head_width = 0;  // 0: width / heads
  const char* activation_name = "hidden_act";
  const char* activation = "silu";
  bool tied = false;
};

void read_llama_sizes(const ConfigFields& fields, const LlamaLike& defaults, DecoderConfig& config) {
  config.vocab_size = fields.size("vocab_size", defaults.vocab_size, kMaxSize);
  config.max_positions = fields.size("max_position_embeddings", defaults.max_positions, kMaxSize);
  config.width = fields.size("hidden_size", defaults.width, kMaxSize);
  config.layers = fields.size("num_hidden_layers", defaults.layers, kMaxLayers);
  config.heads = fields.size("num_attention_heads", defaults.heads, kMaxSize);
  if (defaults.head_width == 0 && !fields.has_value("head_dim")) {
    heads_share_width(fields, "num_attention_heads", "hidden_size", config);
  } else {
    config.head_width = fields.size("head_dim", defaults.head_width, kMaxSize);
  }
  config.attention_scale = 1 / std::sqrt(static_cast<double>(config.head_width));
  const auto kv_heads = defaults.kv_heads == 0 ? config.heads : defaults.kv_heads;
  config.kv_heads = fields.size_or_null("num_key_value_heads", kv_heads, kMaxSize);
  refuse_unless_divides(fields, "num_key_value_heads", config.kv_heads, "num_attention_heads", config.heads,
                        "each serves the same number of queries' heads");
  if (config.heads > kMaxSize / config.head_width) {
    fields.refuse("head_dim is " + std::to_string(config.head_width) + ", too large for " +
                  std::to_string(config.heads) + " heads");
  }
  config.mlp_width = fields.size("intermediate_size", defaults.mlp_width, kMaxSize);
  config.activation = fields.activation(defaults.activation_name, defaults.activation);
  config.gated_mlp = true;
  config.norm = {Norm::Type::kRms, fields.positive_number("rms_norm_eps", 1e-6), true};
  config.query_bias = config.projection_bias = config.mlp_bias = false;
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", defaults.tied);
  config.attention.resize(static_cast<std::size_t>(config.layers));
}

void read_llama(const ConfigFields& fields, DecoderConfig& config) {
  read_llama_sizes(fields, {}, config);
  read_rotary(fields, "rope_theta", 1, config);
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
  read_rotary(fields, "rope_theta", 1, config);
  read_windows(
      fields, !is_null(fields, "sliding_window"), [](auto) { return true; }, config);
}

void read_qwen(const ConfigFields& fields, bool third, DecoderConfig& config) {
  LlamaLike defaults;
  defaults.vocab_size = 151936;
  defaults.max_positions = 32768;
  defaults.mlp_width = 22016;
  defaults.kv_heads = fields.has("num_key_value_heads") ? 0 : 32;
  if (third) defaults.head_width = 128;
  read_llama_sizes(fields, defaults, config);
  read_rotary(fields, "rope_theta", 1, config);
  config.query_bias = third ? fields.flag("attention_bias", false) : true;
  config.projection_bias = third && config.query_bias;
  config.query_key_norms = third;
  const bool windows = fields.flag("use_sliding_window", false) && !is_null(fields, "sliding_window");
  const auto slides = [&](auto layer) { return layer >= fields.count("max_window_layers", 28, kMaxLayers); };
  read_windows(fields, windows, slides, config);
}

void read_qwen2(const ConfigFields& fields, DecoderConfig& config) {
  read_qwen(fields, /*third=*/false, config);
}

void read_qwen3(const ConfigFields& fields, DecoderConfig& config) {
  read_qwen(fields, /*third=*/true, config);
}

void read_gemma_parts(const ConfigFields& fields, DecoderConfig& config) {
  config.norm.type = Norm::Type::kRmsOffset;
  config.embedding_scale = std::sqrt(static_cast<double>(config.width));
  config.query_bias = config.projection_bias = fields.flag("attention_bias", false);
}

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
  read_rotary(fields, "rope_theta", 1, config);
  // The first files say "gelu" and mean the function that the models were trained with.
  if (config.activation == Activation::kGeluErf) config.activation = Activation::kGeluTanh;
}

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

void read_gemma2(const ConfigFields& fields, DecoderConfig& config) {
  read_llama_sizes(fields, gemma2_defaults(), config);
  read_gemma2_parts(fields, config);
  read_rotary(fields, "rope_theta", 1, config);
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
  config.query_key_norms = true;
  if (fields.has_value("attn_logit_softcapping")) {
    fields.refuse("attn_logit_softcapping", "expected null: Gemma 3 has none");
  }
  config.logit_softcap = fields.positive_or_null("final_logit_softcapping", 0);
  const auto pattern = fields.size("sliding_window_pattern", 6, kMaxLayers);
  const auto sliding = sliding_layers(fields, config, [&](auto layer) { return (layer + 1) % pattern != 0; });
  set_windows(config, sliding, fields.size("sliding_window", 4096, kMaxSize));

  config.learned_positions = 0;
  const auto by_type = fields.object_or_none("rope_parameters");
  for (const auto* of_all : {"rope_type", "type", "rope_theta", "factor"}) {
    if (by_type.has_value(of_all)) {
      by_type.refuse(of_all, "expected none here, but in full_attention and sliding_attention");
    }
  }
  const auto scaling = fields.object_or_none("rope_scaling");
  if (scaling.has_value("type") && !scaling.has_value("rope_type") && scaling.at("type") != "default") {
    scaling.refuse("type", "expected none, but rope_type: transformers does not read the old name in Gemma 3");
  }
  const auto global = by_type.object_or_none("full_attention").with(scaling);
  const auto local = by_type.object_or_none("sliding_attention");
  config.rotary = {read_rotary(global, config, fields.positive_number("rope_theta", 1e6)),
                   read_rotary(local, config, fields.positive_number("rope_local_base_freq", 10000))};
  check_rotary_width(fields, config.rotary.front(), config);
  for (std::size_t layer = 0; layer < sliding.size(); ++layer) config.attention[layer].rotary = sliding[layer] ? 1 : 0;
}

// Fields of any family that change nothing in a forward pass: of generation, of training, of what a call returns, of
// classifiers, of saving.
constexpr std::array kIdleFields = std::to_array<std::string_view>({
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_name_or_path",
    "_num_labels",
    "architectures",  // within text_config, like model_type
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "attention_dropout",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "eos_token_id",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "label2id",
    "length_penalty",
    "line_by_line",
    "max_length",
    "min_length",
    "model_type",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "rope_parameters.finetuned",
    "rope_scaling.finetuned",
    "sep_token_id",
    "suppress_tokens",
    "target_lookbehind",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
});

const std::vector<FamilyEntry>& families() {
  static const std::vector<FamilyEntry> all{
      // GPT2Model is the body alone: its head is the embedding. reorder_and_upcast_attn takes the scores of models in
      // half precision in float32, as is always done here; n_ctx says nothing beside n_positions.
      {Family::kGpt2,
       "gpt2",
       {"GPT2LMHeadModel", "GPT2DoubleHeadsModel", "GPT2Model"},
       read_gpt2,
       {"attn_pdrop", "embd_pdrop", "n_ctx", "reorder_and_upcast_attn", "resid_pdrop", "summary_activation",
        "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"}},
      {Family::kGptJ,
       "gptj",
       {"GPTJForCausalLM"},
       read_gptj,
       {"attn_pdrop", "embd_pdrop", "n_ctx", "resid_pdrop", "rotary", "scale_attn_weights", "summary_activation",
        "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"}},
      // attention_types says nothing beside attention_layers.
      {Family::kGptNeo,
       "gpt_neo",
       {"GPTNeoForCausalLM", "GPTNeoModel"},
       read_gpt_neo,
       {"attention_types", "embed_dropout", "resid_dropout", "summary_activation", "summary_first_dropout",
        "summary_proj_to_labels", "summary_type", "summary_use_proj"}},
      // Of rope_parameters and rope_scaling one counts, here and below.
      {Family::kGptNeoX,
       "gpt_neox",
       {"GPTNeoXForCausalLM"},
       read_gpt_neox,
       {"hidden_dropout", "partial_rotary_factor", "rope_parameters", "rope_theta"}},
      {Family::kOpt,
       "opt",
       {"OPTForCausalLM", "OPTModel"},
       read_opt,
       {"activation_dropout", "dropout", "init_std", "layerdrop"}},
      {Family::kLlama,
       "llama",
       {"LlamaForCausalLM", "LLaMAForCausalLM"},
       read_llama,
       {"max_sequence_length", "pretraining_tp", "rope_parameters"}},
      {Family::kMistral, "mistral", {"MistralForCausalLM"}, read_mistral, {"rope_parameters"}},
      // The window's fields say nothing where use_sliding_window is false, max_window_layers nothing beside
      // layer_types.
      {Family::kQwen2,
       "qwen2",
       {"Qwen2ForCausalLM"},
       read_qwen2,
       {"max_window_layers", "rope_parameters", "sliding_window", "use_mrope"}},
      {Family::kQwen3,
       "qwen3",
       {"Qwen3ForCausalLM"},
       read_qwen3,
       {"max_window_layers", "rope_parameters", "sliding_window"}},
      {Family::kGemma, "gemma", {"GemmaForCausalLM"}, read_gemma, {"hidden_activation", "rope_parameters"}},
      {Family::kGemma2, "gemma2", {"Gemma2ForCausalLM"}, read_gemma2, {"hidden_act", "rope_parameters"}},
      // The last six are of the part that sees pictures.
      {Family::kGemma3,
       "gemma3_text",
       {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
       read_gemma3,
       {"_sliding_window_pattern", "boi_token_index", "eoi_token_index", "image_token_id", "image_token_index",
        "mm_tokens_per_image", "vision_config"}},
  };
  return all;
}

/// What is to be said of fields that are on no list: neither used, nor refused, nor known to be idle.
std::vector<std::string> remarks_on(const ConfigFields& fields, const FamilyEntry& entry, const std::string& where) {
  constexpr std::size_t kShown = 8;
  std::string names;
  std::size_t count = 0;
  for (const auto& full : fields.unused()) {
    std::string_view name = full;
    if (constexpr std::string_view text = "text_config."; name.starts_with(text)) name.remove_prefix(text.size());
    if (std::ranges::find(kIdleFields, name) != kIdleFields.end()) continue;
    if (std::ranges::find(entry.idle, name) != entry.idle.end()) continue;
    if (count++ < kShown) names += (names.empty() ? "" : ", ") + one_line(full);
  }
  if (count == 0) return {};
  if (count > kShown) names += " and " + std::to_string(count - kShown) + " more";
  return {where + ": these fields are passed over: " + names +
          "; should they change what the model computes, then the numbers are not its own"};
}

}  // namespace

std::string_view to_string(Family family) {
  return entry_of(family).name;
}

DecoderConfig parse_config(std::string_view text, const std::string& where) {
  json values = parse_json(text, where);
  if (!values.is_object()) throw Error(where + ": expected an object of fields, found " + one_line(values.dump()));
  const ConfigFields fields(std::move(values), where);

  DecoderConfig config;
  const std::string architecture = read_architecture(fields);
  config.family = read_family(fields, architecture);
  const auto& entry = entry_of(config.family);
  config.architecture = architecture.empty() ? std::string(entry.classes.front()) : architecture;
  check_nothing_unsupported(fields);
  config.embedding_width = 0;
  // A model that sees pictures, too, has its decoder's fields in an object of their own.
  if (config.family == Family::kGemma3 && fields.has_value("text_config")) {
    const auto text_fields = fields.object("text_config");
    check_nothing_unsupported(text_fields);
    entry.read(text_fields, config);
    config.tie_word_embeddings = fields.flag("tie_word_embeddings", true);  // of the whole model
  } else {
    entry.read(fields, config);
  }
  if (config.embedding_width == 0) config.embedding_width = config.width;
  config.attention.resize(static_cast<std::size_t>(config.layers));
  config.remarks = remarks_on(fields, entry, where);
  return config;
}

DecoderConfig read_config(const std::filesystem::path& config_json) {
  return parse_config(read_text_file(config_json), label_of(config_json));
}

DecoderConfig config_of_model(const std::filesystem::path& model) {
  return is_model_file(model) ? read_gguf_config(model) : read_config(model / "config.json");
}

}  // namespace rometrace
