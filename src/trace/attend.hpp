#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "rometrace/trace/patch.hpp"

namespace rometrace {

/// The rows of one patched run (or of the base run) in a block: for each of the block's draws, positions
/// first .. first + length - 1, the last being the runs' last.
struct AttentionSegment {
  std::int64_t first = 0;
  std::int64_t length = 0;
  std::int64_t asking = 0;    ///< of each draw, rows asking .. length - 1 have a query
  bool other_prefix = false;  ///< positions before `first` are the other run's, not the base run's
  PositionRange cut;          ///< positions that no query sees; each sees another one
};

/// Causal attention of a block of rows over their own keys and the prefix that they share with another run.
struct AttentionBlock {
  at::Tensor queries;      ///< [queries, A], float32 or float64, of all segments: [segment][draw][asking ..]
  at::Tensor keys_values;  ///< [rows, K] of all segments: [segment][draw][row]
  at::Tensor runs;         ///< [runs, R, K]: keys and values of the runs that prefixes are of
  std::int64_t draws = 1;
  std::vector<std::int64_t> base_runs;   ///< [draws]: the base run of each draw, a place in `runs`
  std::vector<std::int64_t> other_runs;  ///< [draws]: the other run of each
  std::vector<AttentionSegment> segments;
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;  ///< head h reads keys and values h / (heads / kv_heads)
  double scale = 1;           ///< of the scores, before the softmax
  double softcap = 0;         ///< c tanh(score / c) of the scaled scores where it is above 0
  std::int64_t window = 0;    ///< positions that a query sees, its own among them; 0: all before it
  at::Tensor biases;  ///< [H, R] added to scores of keys by their positions, of the queries' dtype; undefined: none
  at::Tensor sinks;   ///< [H] likewise, scores of a key without a value that every query sees; undefined: none

  const std::vector<std::int64_t>& prefix_runs(bool other) const { return other ? other_runs : base_runs; }
};

/// Values mixed by the softmax of the scores, [queries, A]. On the CPU by a kernel of our own, which reads the prefix
/// where it lies; elsewhere as attend_by_products.
at::Tensor attend(const AttentionBlock& block);

/// The same by batched matrix products of libtorch, on any device.
at::Tensor attend_by_products(const AttentionBlock& block);

}  // namespace rometrace
