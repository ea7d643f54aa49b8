#include "model/gguf_keys.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::gguf {

const TensorView* find(Tensors tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &TensorView::name);
  return found == tensors.end() ? nullptr : &*found;
}

bool has(Tensors tensors, std::string_view name) {
  return find(tensors, name) != nullptr;
}

bool has_joined_inputs(Tensors tensors) {
  return has(tensors, "blk.0.attn_qkv.weight");
}

bool has_input_biases(Tensors tensors) {
  return has(tensors, "blk.0.attn_q.bias") || has(tensors, "blk.0.attn_qkv.bias");
}

// ---- Keys that families share ----

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

void refuse_magnitude(Keys& keys) {
  if (keys.find_number(kMagnitude).value_or(1) != 1) keys.refuse(kMagnitude, "expected none, or 1");
}

void check_value_width(Keys& keys, std::int64_t width) {
  if (keys.find_size("attention.value_length").value_or(width) != width) {
    keys.refuse("attention.value_length", "expected " + std::to_string(width) + ", the width of a head");
  }
}

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

json llama_like(const char* type, Keys& keys, Tensors tensors) {
  auto config = llama_sizes(type, keys, tensors);
  check_head_width(keys, config["head_dim"]);
  config["rms_norm_eps"] = keys.number("attention.layer_norm_rms_epsilon");
  return config;
}

double turned_part(Keys& keys) {
  const auto width = head_width(keys), turned = keys.find_size("rope.dimension_count").value_or(width);
  if (turned < 1 || turned > width) {
    keys.refuse("rope.dimension_count", "expected 1 to " + std::to_string(width) + ", the width of a head");
  }
  check_value_width(keys, width);
  return turned == width ? 1.0 : (static_cast<double>(turned) + 0.5) / static_cast<double>(width);
}

void expect_size(Keys& keys, const char* name, std::int64_t value, const std::string& what) {
  if (keys.find_size(name).value_or(value) != value) {
    keys.refuse(name, "expected " + std::to_string(value) + ", " + what);
  }
}

void expect_one_key_a_head(Keys& keys) {
  expect_size(keys, "attention.head_count_kv", keys.size("attention.head_count"), "attention.head_count");
}

void expect_four_widths(Keys& keys) {
  const auto width = keys.size("embedding_length");
  if (keys.size("feed_forward_length") / 4 != width || keys.size("feed_forward_length") % 4 != 0) {
    keys.refuse("feed_forward_length", "expected 4 times the embedding length, " + std::to_string(width));
  }
}

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

}  // namespace rometrace::gguf
