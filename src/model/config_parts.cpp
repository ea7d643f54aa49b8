#include "model/config_parts.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {

void refuse_unless_divides(const ConfigFields& fields, const char* name, std::int64_t value, const char* whole_name,
                           std::int64_t whole, const char* why) {
  if (whole % value == 0) return;
  fields.refuse(std::string(name) + " is " + std::to_string(value) + ", which does not divide " + whole_name + " " +
                std::to_string(whole) + "; " + why);
}

void heads_share_width(const ConfigFields& fields, const char* heads_name, const char* width_name,
                       DecoderConfig& config) {
  refuse_unless_divides(fields, heads_name, config.heads, width_name, config.width, "all heads have the same width");
  config.kv_heads = config.heads;
  config.head_width = config.width / config.heads;
  config.attention_scale = 1 / std::sqrt(static_cast<double>(config.head_width));
}

namespace {

constexpr const char* kPart = "partial_rotary_factor";

/// A list of a factor for each pair, all above 0.
std::vector<float> read_factors(const ConfigFields& scaling, const char* type_name, const char* name,
                                std::int64_t pairs) {
  std::vector<float> factors;
  if (scaling.has_value(name)) {
    const nlohmann::json& list = scaling.at(name);
    for (std::size_t i = 0; list.is_array() && i < list.size(); ++i) {
      if (list[i].is_number() && list[i].get<double>() > 0) factors.push_back(list[i].get<float>());
    }
    if (list.is_array() && list.size() == factors.size() && factors.size() == static_cast<std::size_t>(pairs)) {
      return factors;
    }
  }
  scaling.refuse(type_name, "expected " + std::string(name) + " beside it, a list of " + std::to_string(pairs) +
                                " numbers above 0, one for each pair of a head's numbers that turns");
}

/// The newer name of a scaling's type, or the older one where it is alone.
const char* name_of_type(const ConfigFields& scaling) {
  return scaling.has_value("rope_type") || !scaling.has_value("type") ? "rope_type" : "type";
}

/// Of a scaling. `width`: numbers of a head that turn. `trained_positions`: what is said outside of it of the positions
/// before scaling; it comes before what it says itself.
Rotary read_scaling(const ConfigFields& scaling, const DecoderConfig& config, double theta, std::int64_t width,
                    std::optional<double> trained_positions = std::nullopt) {
  Rotary rotary;
  rotary.width = width;
  rotary.theta = scaling.positive_or_null("rope_theta", theta);
  const char* type_name = name_of_type(scaling);
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
    rotary.longest = config.max_positions;
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
  } else if (type == "longrope") {  // has other factors for all angles of a text beyond the original positions
    rotary.scaling = Rotary::Scaling::kEach;
    rotary.divisors = read_factors(scaling, type_name, "short_factor", width / 2);
    read_factors(scaling, type_name, "long_factor", width / 2);
    rotary.original_positions = original();
    rotary.factor = scaling.positive_or_null("factor", positions / rotary.original_positions);
    const auto ordinary =
        rotary.factor <= 1 ? 1.0 : std::sqrt(1 + std::log(rotary.factor) / std::log(rotary.original_positions));
    rotary.magnitude = scaling.positive_or_null("attention_factor", ordinary);
    rotary.longest = static_cast<std::int64_t>(std::min(rotary.original_positions, static_cast<double>(kMaxSize)));
  } else if (type != "default") {
    scaling.refuse(type_name, "expected default, linear, dynamic, llama3, yarn or longrope");
  }
  return rotary;
}

/// The object that says how positions turn, or one with no fields. Of two, the older one counts unless it is empty.
ConfigFields rotary_fields(const ConfigFields& fields) {
  if (fields.has_value("rope_scaling") && !fields.at("rope_scaling").empty()) return fields.object("rope_scaling");
  return fields.object_or_none("rope_parameters");
}

/// Numbers of each head that turn.
std::int64_t rotary_width(const ConfigFields& fields, const ConfigFields& scaling, const RotaryDefaults& defaults,
                          const DecoderConfig& config) {
  const bool any = defaults.part_from == RotaryPart::kAny;
  const auto part =
      scaling.positive_or_null(kPart, any ? fields.positive_or_null(kPart, defaults.part) : defaults.part);
  if (part > 1) fields.refuse("the rotary part of a head is " + std::to_string(part) + "; expected at most 1");
  if (defaults.part_from == RotaryPart::kWhole) {
    for (const auto* of : {&scaling, &fields}) {
      if (of->positive_or_null(kPart, 1) != 1) {
        of->refuse(kPart, "expected 1: " + std::string(to_string(config.family)) + " turns whole heads");
      }
    }
  }
  return static_cast<std::int64_t>(static_cast<double>(config.head_width) * part);
}

}  // namespace

void check_rotary_width(const ConfigFields& fields, const Rotary& rotary, const DecoderConfig& config) {
  if (rotary.width >= 2 && rotary.width % 2 == 0 && rotary.width <= config.head_width) return;
  fields.refuse("rotary positions would turn " + std::to_string(rotary.width) + " numbers of heads of width " +
                std::to_string(config.head_width) + "; expected an even number of them, from 2 up");
}

void read_rotary(const ConfigFields& fields, const RotaryDefaults& defaults, DecoderConfig& config) {
  const auto scaling = rotary_fields(fields);
  for (const auto* type : {"full_attention", "sliding_attention"}) {
    if (scaling.has_value(type)) scaling.refuse(type, "expected none: positions of all layers turn alike");
  }
  if (const auto* name = name_of_type(scaling); defaults.longrope_alone && scaling.has_value(name) &&
                                                scaling.at(name) != "default" && scaling.at(name) != "longrope") {
    scaling.refuse(name, "expected default or longrope");
  }
  auto trained_positions = defaults.trained_positions;
  if (fields.has_value("original_max_position_embeddings")) {
    trained_positions = fields.positive_number("original_max_position_embeddings", 1);
  }
  const auto width = rotary_width(fields, scaling, defaults, config);
  const auto theta = fields.positive_number(defaults.theta_name, defaults.theta);
  auto rotary = read_scaling(scaling, config, theta, width, trained_positions);
  if (defaults.magnitude_name != nullptr && rotary.scaling != Rotary::Scaling::kNone) {
    if (!scaling.has_value(defaults.magnitude_name)) {
      scaling.refuse(name_of_type(scaling),
                     "expected " + std::string(defaults.magnitude_name) + " beside it, a number above 0");
    }
    rotary.magnitude = scaling.positive_number(defaults.magnitude_name, 1);
  }
  check_rotary_width(fields, rotary, config);
  config.learned_positions = 0;
  config.rotary = {rotary};
}

void read_layer_rotaries(const ConfigFields& fields, const std::vector<bool>& sliding, const LayerThetas& thetas,
                         DecoderConfig& config) {
  config.learned_positions = 0;
  const auto by_type = fields.object_or_none("rope_parameters");
  for (const auto* of_all : {"rope_type", "type", "rope_theta", "factor"}) {
    if (by_type.has_value(of_all)) {
      by_type.refuse(of_all, "expected none here, but in full_attention and sliding_attention");
    }
  }
  const auto scaling = fields.object_or_none("rope_scaling");
  if (scaling.has_value("type") && !scaling.has_value("rope_type") && scaling.at("type") != "default") {
    scaling.refuse("type", "expected none, but rope_type: transformers does not read the old name in " +
                               std::string(to_string(config.family)));
  }
  const auto full = by_type.object_or_none("full_attention").with(scaling);
  const auto local = by_type.object_or_none("sliding_attention");
  config.rotary = {read_scaling(full, config, thetas.full, config.head_width),
                   read_scaling(local, config, thetas.sliding, config.head_width)};
  check_rotary_width(fields, config.rotary.front(), config);
  for (std::size_t layer = 0; layer < sliding.size(); ++layer) config.attention[layer].rotary = sliding[layer] ? 1 : 0;
}

std::vector<bool> sliding_layers(const ConfigFields& fields, const DecoderConfig& config,
                                 const std::function<bool(std::int64_t)>& slides) {
  std::vector<bool> sliding;
  if (!fields.has_value("layer_types")) {
    for (std::int64_t layer = 0; layer < config.layers; ++layer) sliding.push_back(slides(layer));
    return sliding;
  }
  const nlohmann::json& types = fields.at("layer_types");
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

std::vector<bool> read_windows(const ConfigFields& fields, bool windows,
                               const std::function<bool(std::int64_t)>& slides, DecoderConfig& config,
                               std::int64_t fallback) {
  auto sliding = sliding_layers(fields, config, [&](auto layer) { return windows && slides(layer); });
  if (windows) {
    set_windows(config, sliding, fields.size("sliding_window", fallback, kMaxSize));
  } else if (std::ranges::find(sliding, true) != sliding.end()) {
    fields.refuse("layer_types",
                  "expected \"full_attention\" only, as there is no window (sliding_window is null, or "
                  "use_sliding_window is not true)");
  }
  return sliding;
}

bool is_null(const ConfigFields& fields, const char* name) {
  return fields.has(name) && !fields.has_value(name);
}

void read_kv_heads(const ConfigFields& fields, std::int64_t fallback, DecoderConfig& config) {
  config.kv_heads = fields.size_or_null("num_key_value_heads", fallback == 0 ? config.heads : fallback, kMaxSize);
  refuse_unless_divides(fields, "num_key_value_heads", config.kv_heads, "num_attention_heads", config.heads,
                        "each serves the same number of queries' heads");
}

bool has_microscaled_experts(const ConfigFields& fields, Family family) {
  if (family != Family::kGptOss || !fields.has_value("quantization_config")) return false;
  const auto& quantised = fields.at("quantization_config");
  return quantised.is_object() && quantised.contains("quant_method") && quantised.at("quant_method") == "mxfp4";
}

void read_rms_norm(const ConfigFields& fields, double epsilon, DecoderConfig& config) {
  config.norm.type = Norm::Type::kRms;
  config.norm.epsilon = fields.positive_number("rms_norm_eps", epsilon);
}

void refuse_other_head_width(const ConfigFields& fields, const DecoderConfig& config) {
  if (fields.has_value("head_dim") && fields.at("head_dim") != config.width / config.heads) {
    fields.refuse("head_dim", "expected none, or hidden_size / num_attention_heads");
  }
}

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
  read_kv_heads(fields, defaults.kv_heads, config);
  if (config.heads > kMaxSize / config.head_width) {
    fields.refuse("head_dim is " + std::to_string(config.head_width) + ", too large for " +
                  std::to_string(config.heads) + " heads");
  }
  config.mlp_width = fields.size("intermediate_size", defaults.mlp_width, kMaxSize);
  config.activation = fields.activation(defaults.activation_name, defaults.activation);
  config.gated_mlp = true;
  config.query_bias = config.projection_bias = config.mlp_bias = false;
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", defaults.tied);
  config.attention.resize(static_cast<std::size_t>(config.layers));
}

}  // namespace rometrace
