#pragma once

#include <span>
#include <string>
#include <vector>

#include "rometrace/model/config.hpp"

namespace rometrace {

/// How a checkpoint of a family names its tensors, and lays out its matrices. A name that is empty: there is none.
struct TensorNames {
  /// What a layer's attention multiplies with to have queries, keys and values.
  enum class Inputs {
    kApart,       ///< three matrices
    kSideBySide,  ///< one: queries, then keys, then values (GPT-2)
    kHeadByHead,  ///< one: the first key's queries, itself and its value, then the next key's (GPT-NeoX, Falcon)
    kPairs,  ///< three, or one, side by side; of each head's query and key what turns together are neighbours (GGUF)
  };

  /// How the matrices of a layer's experts lie.
  enum class Experts {
    kApart,          ///< three of each expert: `experts`, its number, a dot and their names
    kStacked,        ///< two of all experts, [experts, out, in]: of gate, then up, and of what follows (Granite)
    kStackedInTurn,  ///< likewise [experts, in, out], with gate and up in turn, and biases [experts, out] (GPT-OSS)
    kStackedApart,   ///< three of all experts, [experts, out, in], and biases [experts, out] (GGUF)
  };

  std::vector<std::string> prefixes;  ///< of all names but the head's: whichever the file has
  std::vector<std::string> heads;     ///< names of the head, whichever the file has; without ".weight"
  std::string embedding, embedding_norm, positions, final_norm, enter, leave;
  std::string layers;      ///< before the layer's number
  bool transposed = true;  ///< matrices are [out, in], as torch.nn.Linear has them; GPT-2's are [in, out]

  // Within a layer.
  Inputs inputs = Inputs::kApart;
  std::string queries, keys, values;  ///< or `queries` alone, of all three
  std::string projection, query_norm, key_norm, sinks;
  bool head_norms_apart = false;  ///< norms of heads that each have one are tensors by their numbers (StableLM 2)
  std::string norm_1, norm_2, attn_norm, mlp_norm;
  std::string mlp_gate, mlp_in, mlp_out;  ///< a gated MLP without `mlp_gate` has gate, then up, in `mlp_in`

  // Within a layer that is a mixture of experts.
  Experts expert_layout = Experts::kApart;
  bool experts_transposed = false;  ///< of kStackedInTurn: matrices are [experts, out, in] all the same (MXFP4)
  std::string router, experts, expert_gate, expert_in, expert_out;
  std::string shared_gate, shared_mlp_gate, shared_mlp_in, shared_mlp_out;  ///< of the expert that all tokens share
};

/// Those of the file that `config` was read with.
TensorNames tensor_names(const DecoderConfig& config);

/// Those of the prefixes that the layers of a checkpoint with these names have; the first one where none has any.
std::string prefix_in(const TensorNames& names, std::span<const std::string> all);

}  // namespace rometrace
