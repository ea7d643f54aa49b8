#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace rometrace {

/// GPT-2's activation functions, by transformers' names (several names may mean the same function).
enum class Activation { kGeluTanh, kGeluErf, kGeluQuick, kRelu, kSilu, kTanh, kSigmoid };

/// The fields of a GPT-2 config.json that change the computation; defaults are transformers' (GPT2Config). The sizes
/// are at least 1 and small enough that a tensor's bytes can be counted in 64 bits.
struct DecoderConfig {
  std::int64_t vocab_size = 50257;                ///< V
  std::int64_t max_positions = 1024;              ///< longest prompt, in tokens
  std::int64_t width = 768;                       ///< D
  std::int64_t layers = 12;                       ///< L
  std::int64_t heads = 12;                        ///< H; D is a multiple of it
  std::int64_t mlp_width = 4 * 768;               ///< width of the MLP; config null or absent: 4 D
  Activation activation = Activation::kGeluTanh;  ///< activation_function
  double layer_norm_epsilon = 1e-5;
  bool scale_attn_weights = true;                ///< scores divided by sqrt(D / H)
  bool scale_attn_by_inverse_layer_idx = false;  ///< scores of layer l divided by l + 1 as well
  bool tie_word_embeddings = true;               ///< the head is wte
  std::string architecture = "GPT2LMHeadModel";  ///< as written in the file; for the record
};

/// Reads config.json; transformers' second names of the sizes (hidden_size, ...) and the old n_ctx are understood,
/// fields that do not change the computation ignored. Throws Error: unreadable, not JSON, not a GPT-2 language model, a
/// field of the wrong type or range, or a field that changes the computation in a way not supported (named, with the
/// value found).
DecoderConfig read_config(const std::filesystem::path& config_json);

}  // namespace rometrace
