#include "rometrace/model/config.hpp"

#include <array>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

// So large that no model meets them, so small that the bytes of a [3 D, V] tensor of doubles fit in 64 bits.
constexpr std::int64_t kMaxSize = std::int64_t{1} << 28;
constexpr std::int64_t kMaxLayers = 10'000;

// transformers' names (ACT2FN) of the functions that this version computes. The names of one function differ there in
// how it is computed only: by less than float32 resolves.
constexpr std::array<std::pair<std::string_view, Activation>, 13> kActivations{{
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_python_tanh", Activation::kGeluTanh},
    {"gelu_accurate", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"gelu", Activation::kGeluErf},
    {"gelu_python", Activation::kGeluErf},
    {"quick_gelu", Activation::kGeluQuick},
    {"relu", Activation::kRelu},
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"tanh", Activation::kTanh},
    {"sigmoid", Activation::kSigmoid},
}};

/// The fields of one config.json. Every complaint names the file, the field, the value found and the one expected.
class Fields {
 public:
  Fields(json values, std::string where) : values_(std::move(values)), where_(std::move(where)) {}

  bool has(const char* name) const { return values_.contains(name); }
  bool has_value(const char* name) const { return has(name) && !values_.at(name).is_null(); }
  const json& at(const char* name) const { return values_.at(name); }

  [[noreturn]] void refuse(const std::string& complaint) const { throw Error(where_ + ": " + complaint); }

  [[noreturn]] void refuse(const char* name, const std::string& expected) const {
    refuse(std::string(name) + " is " + one_line(at(name).dump()) + "; " + expected);
  }

  std::int64_t size(const char* name, std::int64_t fallback, std::int64_t maximum) const {
    if (!has(name)) return fallback;
    const json& value = at(name);
    // A number too large for 64 bits is a float by now.
    if (value.is_number_unsigned() && value.get<std::uint64_t>() >= 1 &&
        value.get<std::uint64_t>() <= static_cast<std::uint64_t>(maximum)) {
      return value.get<std::int64_t>();
    }
    refuse(name, "expected a whole number from 1 to " + std::to_string(maximum));
  }

  /// A size that goes by two names.
  std::int64_t size(const char* name, const char* other_name, std::int64_t fallback, std::int64_t maximum) const {
    const std::int64_t value = size(name, size(other_name, fallback, maximum), maximum);
    if (const std::int64_t other = size(other_name, value, maximum); other != value) {
      refuse(std::string(other_name) + " is " + std::to_string(other) + ", but " + name + " is " +
             std::to_string(value) + ": two names of one size; remove the wrong one");
    }
    return value;
  }

  bool flag(const char* name, bool fallback) const {
    if (!has(name)) return fallback;
    if (!at(name).is_boolean()) refuse(name, "expected true or false");
    return at(name).get<bool>();
  }

  double positive_number(const char* name, double fallback) const {
    if (!has(name)) return fallback;
    // Not `<= 0`: that would let a NaN pass.
    if (!at(name).is_number() || !(at(name).get<double>() > 0.0)) refuse(name, "expected a number above 0");
    return at(name).get<double>();
  }

  std::string text(const char* name, std::string_view fallback) const {
    if (!has(name)) return std::string(fallback);
    if (!at(name).is_string()) refuse(name, "expected a string");
    return at(name).get<std::string>();
  }

 private:
  json values_;
  std::string where_;
};

/// The class that wrote the weights, as the file names it; empty if it names none.
std::string read_architecture(const Fields& fields) {
  if (!fields.has_value("architectures")) return "";
  const json& names = fields.at("architectures");
  if (!names.is_array()) fields.refuse("architectures", "expected a list of class names");
  if (names.empty()) return "";
  if (names.size() != 1 || !names[0].is_string()) fields.refuse("architectures", "expected one class name");
  return names[0].get<std::string>();
}

void check_is_gpt2_language_model(const Fields& fields, const std::string& architecture) {
  const bool named_gpt2 = architecture.find("GPT2") != std::string::npos;
  if (fields.has_value("model_type") ? fields.at("model_type") != "gpt2" : !named_gpt2) {
    const std::string found = fields.has_value("model_type") ? one_line(fields.at("model_type").dump()) : "absent";
    fields.refuse("model_type is " + found + "; only GPT-2 models (\"gpt2\") can be traced");
  }
  if (architecture.empty()) return;
  std::string_view name = architecture;
  for (const std::string_view framework : {"TF", "Flax"}) {  // the same weights, saved from another framework
    if (name.starts_with(framework)) name.remove_prefix(framework.size());
  }
  // GPT2Model is the body alone: its head is wte. The classes for classification and question answering were trained
  // away from predicting the next token, and others that call themselves GPT-2 compute something else.
  for (const std::string_view known : {"GPT2LMHeadModel", "GPT2DoubleHeadsModel", "GPT2Model"}) {
    if (name == known) return;
  }
  fields.refuse("architectures", "expected a language model: GPT2LMHeadModel, GPT2DoubleHeadsModel or GPT2Model");
}

Activation read_activation(const Fields& fields) {
  const std::string name = fields.text("activation_function", "gelu_new");
  std::string known;
  for (const auto& [known_name, activation] : kActivations) {
    if (name == known_name) return activation;
    known += (known.empty() ? "" : ", ") + std::string(known_name);
  }
  fields.refuse("activation_function", "expected one of " + known);
}

/// Fields that change the computation in a way that is not computed here.
void check_nothing_unsupported(const Fields& fields) {
  if (fields.flag("add_cross_attention", false)) {
    fields.refuse("add_cross_attention", "expected false: models that attend to an encoder cannot be traced");
  }
  if (fields.has_value("pruned_heads") && !fields.at("pruned_heads").empty()) {
    fields.refuse("pruned_heads", "expected none: models with heads cut out cannot be traced");
  }
  if (fields.has_value("quantization_config") && !fields.at("quantization_config").empty()) {
    fields.refuse("quantization_config", "expected none: give the model's unquantised weights");
  }
  if (fields.has_value("transformers_weights")) {
    fields.refuse("transformers_weights", "expected none: the weights are read from model.safetensors");
  }
}

}  // namespace

DecoderConfig read_config(const std::filesystem::path& config_json) {
  const std::string where = label_of(config_json);
  json values = parse_json_file(config_json);
  if (!values.is_object()) throw Error(where + ": expected an object of fields, found " + one_line(values.dump()));
  const Fields fields(std::move(values), where);

  DecoderConfig config;
  const std::string architecture = read_architecture(fields);
  check_is_gpt2_language_model(fields, architecture);
  if (!architecture.empty()) config.architecture = architecture;
  check_nothing_unsupported(fields);

  config.vocab_size = fields.size("vocab_size", config.vocab_size, kMaxSize);
  // The oldest files have n_ctx alone. Beside n_positions it says nothing: transformers does not read it any more.
  const std::int64_t n_ctx =
      fields.has("n_positions") ? config.max_positions : fields.size("n_ctx", config.max_positions, kMaxSize);
  config.max_positions = fields.size("n_positions", "max_position_embeddings", n_ctx, kMaxSize);
  config.width = fields.size("n_embd", "hidden_size", config.width, kMaxSize);
  config.layers = fields.size("n_layer", "num_hidden_layers", config.layers, kMaxLayers);
  config.heads = fields.size("n_head", "num_attention_heads", config.heads, kMaxSize);
  if (config.width % config.heads != 0) {
    fields.refuse("n_head is " + std::to_string(config.heads) + ", which does not divide n_embd " +
                  std::to_string(config.width) + "; all heads have the same width");
  }
  config.mlp_width = 4 * config.width;
  if (fields.has_value("n_inner")) config.mlp_width = fields.size("n_inner", config.mlp_width, kMaxSize);

  config.activation = read_activation(fields);
  config.layer_norm_epsilon = fields.positive_number("layer_norm_epsilon", config.layer_norm_epsilon);
  config.scale_attn_weights = fields.flag("scale_attn_weights", config.scale_attn_weights);
  config.scale_attn_by_inverse_layer_idx =
      fields.flag("scale_attn_by_inverse_layer_idx", config.scale_attn_by_inverse_layer_idx);
  config.tie_word_embeddings = fields.flag("tie_word_embeddings", config.tie_word_embeddings);
  // reorder_and_upcast_attn takes the scores of half-precision models in float32, as is always done here. Dropout does
  // nothing outside training; the other fields are about generation, saving and training.
  return config;
}

}  // namespace rometrace
