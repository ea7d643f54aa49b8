#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace rometrace {

/// The rows of one restored run (or of the corrupted one) in a block: for each of the block's draws, positions
/// first .. first + length - 1, the last being the prompt's last.
struct AttentionSegment {
  std::int64_t first = 0;
  std::int64_t length = 0;
  std::int64_t asking = 0;    ///< of each draw, rows asking .. length - 1 have a query
  bool clean_prefix = false;  ///< positions before `first` are the clean run's, not the corrupted run's
};

/// Causal attention of a block of rows over their own keys and the prefix that they share with a base run.
struct AttentionBlock {
  at::Tensor queries;      ///< [queries, D], float32 or float64, of all segments: [segment][draw][asking ..]
  at::Tensor keys_values;  ///< [rows, 2 D] of all segments: [segment][draw][row]
  /// [1 + N, T, 2 D]: keys and values of the clean run, then of each draw of the corrupted run.
  at::Tensor base;
  std::int64_t first_draw = 0;  ///< of the block's draws
  std::int64_t draws = 1;
  std::vector<AttentionSegment> segments;
  std::int64_t heads = 1;
  double scale = 1;  ///< of the scores, before the softmax
};

/// Values mixed by the softmax of the scores, [queries, D]. On the CPU by a kernel of our own, which reads the prefix
/// where it lies; elsewhere as attend_by_products.
at::Tensor attend(const AttentionBlock& block);

/// The same by batched matrix products of libtorch, on any device.
at::Tensor attend_by_products(const AttentionBlock& block);

}  // namespace rometrace
