#include "model/gguf_config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "model/gguf.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

using nlohmann::json;
using Tensors = std::span<const TensorView>;

constexpr std::string_view kArchitecture = "general.architecture";

// What angles are divided by: of Llama 3.1 and later, and of Phi 3.
constexpr std::string_view kDivisors = "rope_freqs.weight";
constexpr std::string_view kShortDivisors = "rope_factors_short.weight", kLongDivisors = "rope_factors_long.weight";

/// The keys of a file's architecture, "llama.block_count" as "block_count". Whoever asks for one has it noted.
class Keys {
 public:
  Keys(const GgufHeader& header, std::string architecture) : header_(header), prefix_(std::move(architecture) + ".") {}

  const std::string& where() const { return header_.where(); }
  bool has(const std::string& name) { return header_.has(full(name)); }

  std::optional<std::int64_t> find_size(const std::string& name) {
    const auto key = full(name);
    if (!header_.is_list(key)) return header_.whole_number(key);
    const auto of_layers = *header_.whole_numbers(key);
    if (!of_layers.empty() && std::ranges::count(of_layers, of_layers.front()) == std::ssize(of_layers)) {
      return of_layers.front();
    }
    header_.refuse(key, "expected one number for all layers");
  }

  std::int64_t size(const std::string& name) {
    if (const auto value = find_size(name)) return *value;
    refuse_absent(name);
  }

  std::optional<double> find_number(const std::string& name) { return header_.number(full(name)); }

  double number(const std::string& name) {
    if (const auto value = find_number(name)) return *value;
    refuse_absent(name);
  }

  std::optional<bool> find_flag(const std::string& name) { return header_.flag(full(name)); }
  std::optional<std::string_view> find_text(const std::string& name) { return header_.text(full(name)); }
  bool is_list(const std::string& name) { return header_.is_list(full(name)); }
  std::vector<std::int64_t> list(const std::string& name) { return *header_.whole_numbers(full(name)); }

  [[noreturn]] void refuse(const std::string& name, const std::string& expected) {
    header_.refuse(full(name), expected);
  }

  /// Keys that change nothing, or nothing beside the tensors.
  void pass_over(std::initializer_list<const char*> names) {
    for (const auto* name : names) full(name);
  }

  void refuse_unused() const {
    for (const auto& key : header_.keys()) {
      if (!key.starts_with(prefix_) || used_.contains(key)) continue;
      header_.refuse(key, "what this key changes is not known here; expected a file without it");
    }
  }

 private:
  std::string full(const std::string& name) {
    auto key = prefix_ + name;
    used_.insert(key);
    return key;
  }

  [[noreturn]] void refuse_absent(const std::string& name) {
    throw Error(header_.where() + ": has no " + full(name) + "; expected a number");
  }

  const GgufHeader& header_;
  std::string prefix_;
  std::set<std::string> used_;
};

const TensorView* find(Tensors tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &TensorView::name);
  return found == tensors.end() ? nullptr : &*found;
}

bool has(Tensors tensors, std::string_view name) {
  return find(tensors, name) != nullptr;
}

/// Queries, keys and values are one matrix.
bool has_joined_inputs(Tensors tensors) {
  return has(tensors, "blk.0.attn_qkv.weight");
}

bool has_input_biases(Tensors tensors) {
  return has(tensors, "blk.0.attn_q.bias") || has(tensors, "blk.0.attn_qkv.bias");
}

// ---- Keys that families share ----

/// "rope_scaling" of config.json; null for none.
json scaling_of(Keys& keys) {
  keys.pass_over({"rope.scaling.finetuned"});
  const auto type = keys.find_text("rope.scaling.type");
  const auto old_factor = keys.find_number("rope.scale_linear");
  const auto factor = keys.find_number("rope.scaling.factor");
  const auto original = keys.find_size("rope.scaling.original_context_length");
  const auto fast = keys.find_number("rope.scaling.yarn_beta_fast"),
             slow = keys.find_number("rope.scaling.yarn_beta_slow");
  const auto magnitude = keys.find_number("rope.scaling.yarn_attn_factor");
  if (!type && old_factor.value_or(1) != 1) return {{"rope_type", "linear"}, {"factor", *old_factor}};
  if (!type || *type == "none") return nullptr;
  if (*type != "linear" && *type != "yarn") keys.refuse("rope.scaling.type", "expected none, linear or yarn");
  json scaling = {{"rope_type", *type}, {"factor", factor ? *factor : keys.number("rope.scaling.factor")}};
  if (*type == "linear") return scaling;
  if (original) scaling["original_max_position_embeddings"] = *original;
  if (fast) scaling["beta_fast"] = *fast;
  if (slow) scaling["beta_slow"] = *slow;
  if (magnitude) scaling["attention_factor"] = *magnitude;
  return scaling;
}

/// A key that says how large what has turned is, which only files with divisors of their own have use for.
constexpr const char* kMagnitude = "rope.scaling.attn_factor";

void refuse_magnitude(Keys& keys) {
  if (keys.find_number(kMagnitude).value_or(1) != 1) keys.refuse(kMagnitude, "expected none, or 1");
}

/// Queries, keys and values are of one width.
void check_value_width(Keys& keys, std::int64_t width) {
  if (keys.find_size("attention.value_length").value_or(width) != width) {
    keys.refuse("attention.value_length", "expected " + std::to_string(width) + ", the width of a head");
  }
}

/// And heads are turned as a whole.
void check_head_width(Keys& keys, std::int64_t width) {
  if (keys.find_size("rope.dimension_count").value_or(width) != width) {
    keys.refuse("rope.dimension_count", "expected " + std::to_string(width) + ", the width of a head");
  }
  check_value_width(keys, width);
}

std::int64_t head_width(Keys& keys) {
  if (const auto width = keys.find_size("attention.key_length")) {
    if (*width < 1) keys.refuse("attention.key_length", "expected a whole number from 1 up");
    return *width;
  }
  const auto heads = keys.size("attention.head_count"), width = keys.size("embedding_length");
  if (heads < 1 || width % heads != 0) {
    keys.refuse("attention.head_count",
                "expected a number that divides the embedding length, " + std::to_string(width));
  }
  return width / heads;
}

/// What most families have, under the names that Llama's config.json gave them; without the norms' epsilon.
json llama_sizes(const char* type, Keys& keys, Tensors tensors) {
  const auto heads = keys.size("attention.head_count");
  json config = {{"model_type", type},
                 {"max_position_embeddings", keys.size("context_length")},
                 {"hidden_size", keys.size("embedding_length")},
                 {"num_hidden_layers", keys.size("block_count")},
                 {"intermediate_size", keys.size("feed_forward_length")},
                 {"num_attention_heads", heads},
                 {"num_key_value_heads", keys.find_size("attention.head_count_kv").value_or(heads)},
                 {"head_dim", head_width(keys)},
                 {"rope_theta", keys.find_number("rope.freq_base").value_or(10000)}};
  if (const auto scaling = scaling_of(keys); !scaling.is_null()) config["rope_scaling"] = scaling;
  if (has_input_biases(tensors)) config["attention_bias"] = true;
  return config;
}

/// The same of families that turn heads as a whole, with RMSNorm.
json llama_like(const char* type, Keys& keys, Tensors tensors) {
  auto config = llama_sizes(type, keys, tensors);
  check_head_width(keys, config["head_dim"]);
  config["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon");
  return config;
}

/// The part of heads that turns. It is multiplied by their width again, and what that gives is cut to a whole number.
double turned_part(Keys& keys) {
  const auto width = head_width(keys), turned = keys.find_size("rope.dimension_count").value_or(width);
  if (turned < 1 || turned > width) {
    keys.refuse("rope.dimension_count", "expected 1 to " + std::to_string(width) + ", the width of a head");
  }
  check_value_width(keys, width);
  return turned == width ? 1.0 : (static_cast<double>(turned) + 0.5) / static_cast<double>(width);
}

/// A number that is what it must be, where the file has it.
void expect_size(Keys& keys, const char* name, std::int64_t value, const std::string& what) {
  if (keys.find_size(name).value_or(value) != value) {
    keys.refuse(name, "expected " + std::to_string(value) + ", " + what);
  }
}

/// As many keys and values as queries have heads.
void expect_one_key_a_head(Keys& keys) {
  expect_size(keys, "attention.head_count_kv", keys.size("attention.head_count"), "attention.head_count");
}

/// Of families whose MLP has one width.
void expect_four_widths(Keys& keys) {
  const auto width = keys.size("embedding_length");
  if (keys.size("feed_forward_length") / 4 != width || keys.size("feed_forward_length") % 4 != 0) {
    keys.refuse("feed_forward_length", "expected 4 times the embedding length, " + std::to_string(width));
  }
}

// ---- Architectures ----

json gpt2(Keys& keys, Tensors) {
  return {{"model_type", "gpt2"},
          {"n_positions", keys.size("context_length")},
          {"n_embd", keys.size("embedding_length")},
          {"n_layer", keys.size("block_count")},
          {"n_inner", keys.size("feed_forward_length")},
          {"n_head", keys.size("attention.head_count")},
          {"layer_norm_epsilon", keys.number("attention.layer_norm_epsilon")}};
}

json gptneox(Keys& keys, Tensors tensors) {
  return {{"model_type", "gpt_neox"},
          {"max_position_embeddings", keys.size("context_length")},
          {"hidden_size", keys.size("embedding_length")},
          {"num_hidden_layers", keys.size("block_count")},
          {"intermediate_size", keys.size("feed_forward_length")},
          {"num_attention_heads", keys.size("attention.head_count")},
          {"layer_norm_eps", keys.number("attention.layer_norm_epsilon")},
          {"rotary_emb_base", keys.find_number("rope.freq_base").value_or(10000)},
          {"rotary_pct", turned_part(keys)},
          {"use_parallel_residual", keys.find_flag("use_parallel_residual").value_or(true)},
          {"attention_bias", has(tensors, "blk.0.attn_qkv.bias")}};
}

json llama(Keys& keys, Tensors tensors) {
  const auto window = keys.find_size("attention.sliding_window").value_or(0);
  if (window != 0) {
    auto mistral = llama_like("mistral", keys, tensors);
    mistral["sliding_window"] = window;
    return mistral;
  }
  auto config = llama_like("llama", keys, tensors);
  if (has(tensors, "blk.0.ffn_up.bias")) config["mlp_bias"] = true;
  return config;
}

json qwen2(Keys& keys, Tensors tensors) {
  auto config = llama_like("qwen2", keys, tensors);
  config.erase("attention_bias");  // it always has them
  return config;
}

json qwen3(Keys& keys, Tensors tensors) {
  return llama_like("qwen3", keys, tensors);
}

json gemma(Keys& keys, Tensors tensors) {
  return llama_like("gemma", keys, tensors);
}

/// The scale of the scores, which no key says: as llama.cpp has it, the width of a head but for the largest model.
void set_score_scale(Keys& keys, std::int64_t layers_of_largest, json& config) {
  const auto heads = keys.size("attention.head_count");
  const bool is_largest = keys.size("block_count") == layers_of_largest;
  config["query_pre_attn_scalar"] = is_largest ? keys.size("embedding_length") / std::max<std::int64_t>(1, heads)
                                               : config["head_dim"].get<std::int64_t>();
}

/// Which layers see a window only, where the file says it.
void set_pattern(Keys& keys, json& config) {
  constexpr const char* kPattern = "attention.sliding_window_pattern";
  if (!keys.is_list(kPattern)) {
    if (const auto pattern = keys.find_size(kPattern)) config["sliding_window_pattern"] = *pattern;
    return;
  }
  auto types = json::array();
  for (const auto slides : keys.list(kPattern)) types.push_back(slides != 0 ? "sliding_attention" : "full_attention");
  config["layer_types"] = std::move(types);
}

json gemma2(Keys& keys, Tensors tensors) {
  constexpr std::int64_t kLayersOf27b = 46;
  auto config = llama_like("gemma2", keys, tensors);
  set_score_scale(keys, kLayersOf27b, config);
  set_pattern(keys, config);
  if (const auto window = keys.find_size("attention.sliding_window")) config["sliding_window"] = *window;
  if (const auto cap = keys.find_number("attn_logit_softcapping")) config["attn_logit_softcapping"] = *cap;
  if (const auto cap = keys.find_number("final_logit_softcapping")) config["final_logit_softcapping"] = *cap;
  return config;
}

json gemma3(Keys& keys, Tensors tensors) {
  constexpr std::int64_t kLayersOf27b = 62;
  auto config = llama_like("gemma3_text", keys, tensors);
  set_score_scale(keys, kLayersOf27b, config);
  if (const auto cap = keys.find_number("final_logit_softcapping")) config["final_logit_softcapping"] = *cap;
  config["rope_theta"] = keys.find_number("rope.freq_base").value_or(1e6);
  config["rope_local_base_freq"] = keys.find_number("rope.freq_base_swa").value_or(10000);
  set_pattern(keys, config);
  if (const auto window = keys.find_size("attention.sliding_window"); window.value_or(0) != 0) {
    config["sliding_window"] = *window;
  } else {  // then no layer has one
    const auto layers = std::clamp<std::int64_t>(keys.size("block_count"), 0, 10'000);
    config["layer_types"] = json(std::vector<std::string>(static_cast<std::size_t>(layers), "full_attention"));
  }
  return config;
}

json bloom(Keys& keys, Tensors) {
  expect_four_widths(keys);
  expect_one_key_a_head(keys);
  return {{"model_type", "bloom"},
          {"seq_length", keys.size("context_length")},
          {"hidden_size", keys.size("embedding_length")},
          {"n_layer", keys.size("block_count")},
          {"n_head", keys.size("attention.head_count")},
          {"layer_norm_epsilon", keys.number("attention.layer_norm_epsilon")}};
}

json mpt(Keys& keys, Tensors) {
  constexpr double kBias = 8;  // which is what transformers computes
  expect_four_widths(keys);
  expect_one_key_a_head(keys);
  if (keys.number("attention.max_alibi_bias") != kBias) keys.refuse("attention.max_alibi_bias", "expected 8");
  json config = {{"model_type", "mpt"},
                 {"max_seq_len", keys.size("context_length")},
                 {"d_model", keys.size("embedding_length")},
                 {"n_layers", keys.size("block_count")},
                 {"n_heads", keys.size("attention.head_count")},
                 {"layer_norm_epsilon", keys.number("attention.layer_norm_epsilon")}};
  if (const auto clip = keys.find_number("attention.clamp_kqv").value_or(0); clip != 0) {
    config["attn_config"] = {{"clip_qkv", clip}};
  }
  return config;
}

/// Both architectures that go parallel compute the same as the newer one, whose matrices are laid out alike.
json falcon(Keys& keys, Tensors tensors) {
  const auto heads = keys.size("attention.head_count");
  check_head_width(keys, head_width(keys));
  json config = {{"model_type", "falcon"},
                 {"max_position_embeddings", keys.size("context_length")},
                 {"hidden_size", keys.size("embedding_length")},
                 {"num_hidden_layers", keys.size("block_count")},
                 {"ffn_hidden_size", keys.size("feed_forward_length")},
                 {"num_attention_heads", heads},
                 {"num_kv_heads", keys.find_size("attention.head_count_kv").value_or(heads)},
                 {"layer_norm_epsilon", keys.number("attention.layer_norm_epsilon")},
                 {"rope_theta", keys.find_number("rope.freq_base").value_or(10000)},
                 {"new_decoder_architecture", true},
                 {"num_ln_in_parallel_attn", has(tensors, "blk.0.attn_norm_2.weight") ? 2 : 1}};
  if (const auto scaling = scaling_of(keys); !scaling.is_null()) config["rope_scaling"] = scaling;
  return config;
}

json starcoder(Keys& keys, Tensors) {
  expect_size(keys, "attention.head_count_kv", 1, "as all heads share their keys and values");
  return {{"model_type", "gpt_bigcode"},
          {"n_positions", keys.size("context_length")},
          {"n_embd", keys.size("embedding_length")},
          {"n_layer", keys.size("block_count")},
          {"n_inner", keys.size("feed_forward_length")},
          {"n_head", keys.size("attention.head_count")},
          {"layer_norm_epsilon", keys.number("attention.layer_norm_epsilon")},
          {"multi_query", true}};
}

json starcoder2(Keys& keys, Tensors tensors) {
  auto config = llama_sizes("starcoder2", keys, tensors);
  check_head_width(keys, config["head_dim"]);
  config.erase("attention_bias");
  config["norm_epsilon"] = keys.number("attention.layer_norm_epsilon");
  config["use_bias"] = has_input_biases(tensors);
  if (const auto window = keys.find_size("attention.sliding_window").value_or(0); window != 0) {
    config["sliding_window"] = window;
  }
  return config;
}

json phi2(Keys& keys, Tensors tensors) {
  auto config = llama_sizes("phi", keys, tensors);
  config.erase("attention_bias");  // it always has them
  config["layer_norm_eps"] = keys.number("attention.layer_norm_epsilon");
  config["partial_rotary_factor"] = turned_part(keys);
  return config;
}

/// What each pair's angle is divided by, a tensor of its own.
std::vector<float> divisors_of(const TensorView& tensor, std::int64_t pairs, const std::string& where) {
  const auto of_tensor = where + ": tensor " + in_quotes(tensor.name);
  if (tensor.dtype != "F32" || tensor.shape != std::vector{pairs}) {
    throw Error(of_tensor + " is " + tensor.dtype + " of shape " + shape_text(tensor.shape) + "; expected F32 of [" +
                std::to_string(pairs) + "]");
  }
  std::vector<float> divisors(static_cast<std::size_t>(pairs));
  std::memcpy(divisors.data(), tensor.bytes.data(), tensor.bytes.size());
  for (const float divisor : divisors) {
    if (!(divisor > 0)) throw Error(of_tensor + " has a number that is not above 0; expected divisors of angles");
  }
  return divisors;
}

json phi3(Keys& keys, Tensors tensors) {
  constexpr const char* kOriginal = "rope.scaling.original_context_length";
  auto config = llama_sizes("phi3", keys, tensors);
  config["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon");
  config["partial_rotary_factor"] = turned_part(keys);
  config["original_max_position_embeddings"] = keys.find_size(kOriginal).value_or(keys.size("context_length"));
  if (const auto window = keys.find_size("attention.sliding_window").value_or(0); window != 0) {
    config["sliding_window"] = window;
  }
  const auto* of_short = find(tensors, kShortDivisors);
  const auto* of_long = find(tensors, kLongDivisors);
  if (of_short == nullptr && of_long == nullptr) return config;
  if (of_short == nullptr || of_long == nullptr) {
    throw Error(keys.where() + ": has one of " + std::string(kShortDivisors) + " and " + std::string(kLongDivisors) +
                "; expected both");
  }
  const auto pairs = keys.find_size("rope.dimension_count").value_or(head_width(keys)) / 2;
  config["rope_scaling"] = {{"rope_type", "longrope"},
                            {"short_factor", divisors_of(*of_short, pairs, keys.where())},
                            {"long_factor", divisors_of(*of_long, pairs, keys.where())},
                            {"attention_factor", keys.find_number(kMagnitude).value_or(1)}};
  return config;
}

json stablelm(Keys& keys, Tensors tensors) {
  keys.pass_over({"use_parallel_residual"});  // what it says is not so in files of StableLM-3B; the tensors are right
  auto config = llama_sizes("stablelm", keys, tensors);
  config.erase("attention_bias");
  config["use_qkv_bias"] = has_input_biases(tensors);
  config["layer_norm_eps"] = keys.number("attention.layer_norm_epsilon");
  config["partial_rotary_factor"] = turned_part(keys);
  config["qk_layernorm"] = has(tensors, "blk.0.attn_q_norm.weight");
  config["use_parallel_residual"] = !has(tensors, "blk.0.ffn_norm.weight");
  return config;
}

json olmo(Keys& keys, Tensors tensors) {
  constexpr double kEpsilon = 1e-5;  // which is what transformers computes
  auto config = llama_sizes("olmo", keys, tensors);
  check_head_width(keys, config["head_dim"]);
  if (std::abs(keys.number("attention.layer_norm_epsilon") - kEpsilon) > kEpsilon * 1e-6) {
    keys.refuse("attention.layer_norm_epsilon", "expected 1e-05");
  }
  if (const auto clip = keys.find_number("attention.clamp_kqv").value_or(0); clip != 0) config["clip_qkv"] = clip;
  return config;
}

/// OLMo 2, and OLMo 3, which differs by windows and by the positions of layers that have them.
json olmo2(Keys& keys, Tensors tensors) {
  const auto window = keys.find_size("attention.sliding_window").value_or(0);
  if (window == 0) return llama_like("olmo2", keys, tensors);
  auto config = llama_like("olmo3", keys, tensors);
  config["sliding_window"] = window;
  set_pattern(keys, config);
  const json theta = config["rope_theta"];
  json full = config.value("rope_scaling", json::object());
  full["rope_theta"] = theta;
  const json sliding = {{"rope_theta", keys.find_number("rope.freq_base_swa").value_or(theta)}};
  config.erase("rope_theta");
  config.erase("rope_scaling");
  config["rope_parameters"] = {{"full_attention", full}, {"sliding_attention", sliding}};
  return config;
}

/// What both generations share.
json any_cohere(const char* type, Keys& keys, Tensors tensors) {
  auto config = llama_sizes(type, keys, tensors);
  check_head_width(keys, config["head_dim"]);
  config["layer_norm_eps"] = keys.number("attention.layer_norm_epsilon");
  config["logit_scale"] = keys.number("logit_scale");
  return config;
}

json command_r(Keys& keys, Tensors tensors) {
  auto config = any_cohere("cohere", keys, tensors);
  config["use_qk_norm"] = has(tensors, "blk.0.attn_q_norm.weight");
  return config;
}

json cohere2(Keys& keys, Tensors tensors) {
  auto config = any_cohere("cohere2", keys, tensors);
  config["sliding_window"] = keys.size("attention.sliding_window");
  set_pattern(keys, config);
  return config;
}

json granite(Keys& keys, Tensors tensors) {
  if (!keys.find_flag("rope.scaling.finetuned").value_or(true)) {  // Granite's way to say so
    keys.refuse("rope.scaling.finetuned", "expected true: queries and keys that know no positions");
  }
  auto config = llama_like("granite", keys, tensors);
  const auto width = config["head_dim"].get<double>();
  config["attention_multiplier"] = keys.find_number("attention.scale").value_or(1 / std::sqrt(width));
  config["embedding_multiplier"] = keys.find_number("embedding_scale").value_or(1);
  config["residual_multiplier"] = keys.find_number("residual_scale").value_or(1);
  config["logits_scaling"] = keys.number("logit_scale");
  if (has(tensors, "blk.0.ffn_up.bias")) config["mlp_bias"] = true;
  return config;
}

json smollm3(Keys& keys, Tensors tensors) {
  return llama_like("smollm3", keys, tensors);
}

json glm4(Keys& keys, Tensors tensors) {
  auto config = llama_sizes("glm4", keys, tensors);
  config["attention_bias"] = has_input_biases(tensors);
  config["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon");
  config["partial_rotary_factor"] = turned_part(keys);
  return config;
}

json nemotron(Keys& keys, Tensors tensors) {
  auto config = llama_sizes("nemotron", keys, tensors);
  config["norm_eps"] = keys.number("attention.layer_norm_epsilon");
  config["partial_rotary_factor"] = turned_part(keys);
  if (has(tensors, "blk.0.ffn_up.bias")) config["mlp_bias"] = true;
  return config;
}

struct Architecture {
  std::string_view name;
  json (*config)(Keys&, Tensors);
};

constexpr std::array<Architecture, 24> kArchitectures = {{
    {"gpt2", gpt2},
    {"gptneox", gptneox},
    {"llama", llama},
    {"qwen2", qwen2},
    {"qwen3", qwen3},
    {"gemma", gemma},
    {"gemma2", gemma2},
    {"gemma3", gemma3},
    {"bloom", bloom},
    {"mpt", mpt},
    {"falcon", falcon},
    {"starcoder", starcoder},
    {"starcoder2", starcoder2},
    {"phi2", phi2},
    {"phi3", phi3},
    {"stablelm", stablelm},
    {"olmo", olmo},
    {"olmo2", olmo2},
    {"command-r", command_r},
    {"cohere2", cohere2},
    {"granite", granite},
    {"smollm3", smollm3},
    {"glm4", glm4},
    {"nemotron", nemotron},
}};

const Architecture& architecture_of(const GgufHeader& header) {
  const auto name = header.text(kArchitecture);
  if (!name) throw Error(header.where() + ": has no " + std::string(kArchitecture) + "; expected a model's file");
  if (const auto type = header.text("general.type").value_or("model"); type != "model") {
    header.refuse("general.type", "expected \"model\"");
  }
  const auto* found = std::ranges::find(kArchitectures, *name, &Architecture::name);
  if (found != kArchitectures.end()) return *found;
  std::string known;
  for (const auto& each : kArchitectures) known += (known.empty() ? "" : ", ") + std::string(each.name);
  header.refuse(kArchitecture, "of GGUF files these can be traced: " + known);
}

void remark_on_namespaces(const GgufHeader& header, const std::string& architecture, DecoderConfig& config) {
  std::string names;
  for (const auto& key : header.keys()) {
    const auto space = key.substr(0, key.find('.'));
    if (space == architecture || space == "general" || space == "tokenizer" || space == "split" ||
        space == "quantize") {
      continue;
    }
    names += (names.empty() ? "" : ", ") + one_line(key);
  }
  if (names.empty()) return;
  config.remarks.push_back(header.where() + ": these keys are passed over: " + names +
                           "; should they change what the model computes, then the numbers are not its own");
}

}  // namespace

DecoderConfig to_config(const GgufHeader& header, Tensors tensors) {
  const auto& architecture = architecture_of(header);
  const std::string name(architecture.name);
  Keys keys(header, name);
  keys.pass_over({"vocab_size", "tensor_data_layout"});
  for (const auto* of_mixtures : {"expert_count", "expert_used_count"}) {
    if (keys.find_size(of_mixtures).value_or(0) != 0) {
      keys.refuse(of_mixtures, "expected none: a mixture of experts cannot be traced");
    }
  }
  if (!keys.find_flag("attention.causal").value_or(true)) {
    keys.refuse("attention.causal", "expected true: queries that see what comes after them are not computed");
  }
  auto values = architecture.config(keys, tensors);
  if (!has(tensors, kShortDivisors)) refuse_magnitude(keys);
  keys.refuse_unused();

  const auto* embedding = find(tensors, "token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    throw Error(header.where() + ": no matrix \"token_embd.weight\"; expected a model's weights");
  }
  values["vocab_size"] = embedding->shape.front();
  values["tie_word_embeddings"] = !has(tensors, "output.weight");
  auto config = parse_config(values.dump(-1, ' ', false, json::error_handler_t::replace),
                             header.where() + " (its keys as a config.json)");
  config.layout = TensorLayout::kLlamaCpp;
  config.joined_inputs = has_joined_inputs(tensors);
  config.norm.offset = false;  // the file has 1 + weight
  if (const auto* divisors = find(tensors, kDivisors); divisors != nullptr && (name == "llama" || name == "granite")) {
    auto& rotary = config.rotary.front();
    if (rotary.scaling != Rotary::Scaling::kNone || has(tensors, kShortDivisors) || has(tensors, kLongDivisors)) {
      throw Error(header.where() + ": has " + std::string(kDivisors) + " and another scaling; expected one of them");
    }
    rotary.scaling = Rotary::Scaling::kEach;
    rotary.divisors = divisors_of(*divisors, rotary.width / 2, header.where());
  }
  remark_on_namespaces(header, name, config);
  return config;
}

DecoderConfig read_gguf_config(const std::filesystem::path& file) {
  const auto files = GgufFile::open_all(file);
  std::vector<TensorView> tensors;
  for (const auto& part : files) tensors.insert(tensors.end(), part->tensors().begin(), part->tensors().end());
  return to_config(files.front()->header(), tensors);
}

}  // namespace rometrace
