#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "model/config_fields.hpp"
#include "rometrace/model/config.hpp"

// Parts of config.json that families share. What is read is written into the config; Error is thrown for a value that
// cannot be honoured.

namespace rometrace {

bool is_null(const ConfigFields& fields, const char* name);  ///< there, and null

void refuse_unless_divides(const ConfigFields& fields, const char* name, std::int64_t value, const char* whole_name,
                           std::int64_t whole, const char* why);

/// Heads of equal width that make up the model's, as many of keys and values.
void heads_share_width(const ConfigFields& fields, const char* heads_name, const char* width_name,
                       DecoderConfig& config);

/// Fewer heads of keys and values, each of the same number of queries' heads: "num_key_value_heads", or as many as
/// heads where `fallback` is 0.
void read_kv_heads(const ConfigFields& fields, std::int64_t fallback, DecoderConfig& config);

/// Which field says what part of each head turns.
enum class RotaryPart {
  kWhole,    ///< none: a part would be refused
  kScaling,  ///< "partial_rotary_factor" of the scaling
  kAny,      ///< that, or else the one beside it
};

/// What of rotary positions is a family's own.
struct RotaryDefaults {
  const char* theta_name = "rope_theta";
  double theta = 10000;
  RotaryPart part_from = RotaryPart::kWhole;
  double part = 1;  ///< of a head, where no field says it
  /// Of the training before a scaling: "original_max_position_embeddings" where the file does not say it, but its class
  /// does.
  std::optional<double> trained_positions = std::nullopt;
  bool longrope_alone = false;           ///< other scalings are refused, as transformers' class does
  const char* magnitude_name = nullptr;  ///< the field of a scaling that says its magnitude, where the family has one
};

/// Rotary positions of all layers alike: "rope_parameters" of newer files, "rope_scaling" of older ones.
void read_rotary(const ConfigFields& fields, const RotaryDefaults& defaults, DecoderConfig& config);

/// Angles of sliding layers and of the others (Gemma 3, OLMo 3): those of "rope_parameters" by the layer's type, or
/// these values of theta; a "rope_scaling" is of the others alone.
struct LayerThetas {
  double full = 10000, sliding = 10000;
};
void read_layer_rotaries(const ConfigFields& fields, const std::vector<bool>& sliding, const LayerThetas& thetas,
                         DecoderConfig& config);

/// Refuses unless an even number of each head's numbers turns.
void check_rotary_width(const ConfigFields& fields, const Rotary& rotary, const DecoderConfig& config);

/// "layer_types" where the file has it, else what `slides` says of each layer: which layers slide.
std::vector<bool> sliding_layers(const ConfigFields& fields, const DecoderConfig& config,
                                 const std::function<bool(std::int64_t)>& slides);

void set_windows(DecoderConfig& config, const std::vector<bool>& sliding, std::int64_t window);

/// Layers that slide, as sliding_layers() says, and their window where there is one, `fallback` where no field
/// says it. Returns which slide.
std::vector<bool> read_windows(const ConfigFields& fields, bool windows,
                               const std::function<bool(std::int64_t)>& slides, DecoderConfig& config,
                               std::int64_t fallback = 4096);

/// The defaults in which the families after Llama differ.
struct LlamaLike {
  std::int64_t vocab_size = 32000, max_positions = 2048, width = 4096, layers = 32, heads = 32, mlp_width = 11008;
  std::int64_t kv_heads = 0;    ///< 0: as many as heads
  std::int64_t head_width = 0;  ///< 0: width / heads
  const char* activation_name = "hidden_act";
  const char* activation = "silu";
  bool tied = false;
};

/// Sizes, activation and tying; a gated MLP and no biases. Of norms nothing.
void read_llama_sizes(const ConfigFields& fields, const LlamaLike& defaults, DecoderConfig& config);

/// Granite's multipliers, and biases of attention.
void read_granite_parts(const ConfigFields& fields, DecoderConfig& config);

/// Whether "quantization_config" says that the matrices of experts are in MXFP4, as GPT-OSS has them.
bool has_microscaled_experts(const ConfigFields& fields, Family family);

/// RMSNorm by "rms_norm_eps".
void read_rms_norm(const ConfigFields& fields, double epsilon, DecoderConfig& config);

/// Refuses a "head_dim" other than width / heads, of a family whose class does not read it everywhere.
void refuse_other_head_width(const ConfigFields& fields, const DecoderConfig& config);

}  // namespace rometrace
