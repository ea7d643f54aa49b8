#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace rometrace {

/// The rows of one restored run (or of the corrupted one) in a block: for each of the block's draws, positions
/// first .. first + length - 1, the last being the prompts' last.
struct AttentionSegment {
  std::int64_t first = 0;
  std::int64_t length = 0;
  std::int64_t asking = 0;    ///< of each draw, rows asking .. length - 1 have a query
  bool clean_prefix = false;  ///< positions before `first` are the clean run's, not the corrupted run's
};

/// Causal attention of a block of rows over their own keys and the prefix that they share with a base run. The draws
/// are those of J facts in turn, N of each.
struct AttentionBlock {
  at::Tensor queries;      ///< [queries, D], float32 or float64, of all segments: [segment][draw][asking ..]
  at::Tensor keys_values;  ///< [rows, 2 D] of all segments: [segment][draw][row]
  /// [J + J N, T, 2 D]: keys and values of each fact's clean run, then of each draw of the corrupted runs.
  at::Tensor base;
  std::int64_t facts = 1;       ///< J
  std::int64_t first_draw = 0;  ///< of the block's draws, counted over all facts
  std::int64_t draws = 1;
  std::vector<AttentionSegment> segments;
  std::int64_t heads = 1;
  double scale = 1;  ///< of the scores, before the softmax

  /// The run in `base` whose keys the block's draw `draw` sees before its own.
  std::int64_t base_run(std::int64_t draw, bool clean) const {
    const auto of_all = first_draw + draw;
    return clean ? of_all / (base.size(0) / facts - 1) : facts + of_all;
  }
};

/// Values mixed by the softmax of the scores, [queries, D]. On the CPU by a kernel of our own, which reads the prefix
/// where it lies; elsewhere as attend_by_products.
at::Tensor attend(const AttentionBlock& block);

/// The same by batched matrix products of libtorch, on any device.
at::Tensor attend_by_products(const AttentionBlock& block);

}  // namespace rometrace
