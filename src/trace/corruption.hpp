#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/corruption.hpp"

namespace rometrace {

/// What corrupts the embeddings of one prompt: made once, put on those of every corrupted run.
class Corruption {
 public:
  /// Draws number `first_draw` .. `first_draw + draws - 1` of the corruption. `counter_ids` [T] are read with kTokens
  /// only. Throws Error for one outside the model's vocabulary.
  Corruption(const Decoder& model, const CorruptionOptions& options, TokenRange subject,
             std::span<const std::int32_t> counter_ids, std::int64_t first_draw, std::int64_t draws);

  /// Writes in place into token embeddings [draws, T or more, D]; what stands behind the prompt stays as it is. Added
  /// in double and rounded once, as the reference does.
  void apply(const at::Tensor& embeddings) const;

 private:
  TokenRange range_;  // of the positions that are written
  bool added_;
  at::Tensor values_;  // [draws or 1, positions or 1, D]
};

}  // namespace rometrace
