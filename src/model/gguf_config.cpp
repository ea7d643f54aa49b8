#include "model/gguf_config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "model/gguf.hpp"
#include "model/gguf_keys.hpp"
#include "model/gguf_mixtures.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace gguf {
namespace {

constexpr std::string_view kArchitecture = "general.architecture";

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

json mixtral(Keys& keys, Tensors tensors) {
  auto config = llama_like("mixtral", keys, tensors);
  add_experts(keys, config);
  if (const auto window = keys.find_size("attention.sliding_window").value_or(0); window != 0) {
    config["sliding_window"] = window;
  }
  return config;
}

json llama(Keys& keys, Tensors tensors) {
  if (has_experts(keys)) return mixtral(keys, tensors);
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

json any_granite(const char* type, Keys& keys, Tensors tensors) {
  if (!keys.find_flag("rope.scaling.finetuned").value_or(true)) {  // Granite's way to say so
    keys.refuse("rope.scaling.finetuned", "expected true: queries and keys that know no positions");
  }
  auto config = llama_like(type, keys, tensors);
  const auto width = config["head_dim"].get<double>();
  config["attention_multiplier"] = keys.find_number("attention.scale").value_or(1 / std::sqrt(width));
  config["embedding_multiplier"] = keys.find_number("embedding_scale").value_or(1);
  config["residual_multiplier"] = keys.find_number("residual_scale").value_or(1);
  config["logits_scaling"] = keys.number("logit_scale");
  return config;
}

json granite(Keys& keys, Tensors tensors) {
  auto config = any_granite("granite", keys, tensors);
  if (has(tensors, "blk.0.ffn_up.bias")) config["mlp_bias"] = true;
  return config;
}

json granitemoe(Keys& keys, Tensors tensors) {
  auto config = any_granite("granitemoe", keys, tensors);
  add_experts(keys, config);
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
  bool may_mix = false;  ///< its layers may be mixtures of experts
};

constexpr std::array<Architecture, 29> kArchitectures = {{
    {"gpt2", gpt2},
    {"gptneox", gptneox},
    {"llama", llama, true},
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
    {"qwen2moe", qwen2moe, true},
    {"qwen3moe", qwen3moe, true},
    {"olmoe", olmoe, true},
    {"granitemoe", granitemoe, true},
    {"gpt-oss", gpt_oss, true},
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
}  // namespace gguf

DecoderConfig to_config(const GgufHeader& header, std::span<const TensorView> tensors) {
  const auto& architecture = gguf::architecture_of(header);
  const std::string name(architecture.name);
  gguf::Keys keys(header, name);
  keys.pass_over({"vocab_size", "tensor_data_layout"});
  for (const auto* of_mixtures : {"expert_count", "expert_used_count"}) {
    if (keys.find_size(of_mixtures).value_or(0) != 0 && !architecture.may_mix) {
      keys.refuse(of_mixtures, "expected none: a mixture of experts of this architecture cannot be traced");
    }
  }
  if (!keys.find_flag("attention.causal").value_or(true)) {
    keys.refuse("attention.causal", "expected true: queries that see what comes after them are not computed");
  }
  auto values = architecture.config(keys, tensors);
  if (!gguf::has(tensors, gguf::kShortDivisors)) gguf::refuse_magnitude(keys);
  keys.refuse_unused();

  const auto* embedding = gguf::find(tensors, "token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    throw Error(header.where() + ": no matrix \"token_embd.weight\"; expected a model's weights");
  }
  values["vocab_size"] = embedding->shape.front();
  values["tie_word_embeddings"] = !gguf::has(tensors, "output.weight");
  auto config = parse_config(values.dump(-1, ' ', false, gguf::json::error_handler_t::replace),
                             header.where() + " (its keys as a config.json)");
  config.layout = TensorLayout::kLlamaCpp;
  config.joined_inputs = gguf::has_joined_inputs(tensors);
  config.norm.offset = false;  // the file has 1 + weight
  if (const auto* divisors = gguf::find(tensors, gguf::kDivisors);
      divisors != nullptr && (name == "llama" || name == "granite" || name == "granitemoe")) {
    auto& rotary = config.rotary.front();
    if (rotary.scaling != Rotary::Scaling::kNone || gguf::has(tensors, gguf::kShortDivisors) ||
        gguf::has(tensors, gguf::kLongDivisors)) {
      throw Error(header.where() + ": has " + std::string(gguf::kDivisors) +
                  " and another scaling; expected one of them");
    }
    rotary.scaling = Rotary::Scaling::kEach;
    rotary.divisors = gguf::divisors_of(*divisors, rotary.width / 2, header.where());
  }
  gguf::remark_on_namespaces(header, name, config);
  return config;
}

DecoderConfig read_gguf_config(const std::filesystem::path& file) {
  const auto files = GgufFile::open_all(file);
  std::vector<TensorView> tensors;
  for (const auto& part : files) tensors.insert(tensors.end(), part->tensors().begin(), part->tensors().end());
  return to_config(files.front()->header(), tensors);
}

}  // namespace rometrace
