#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "rometrace/trace/patch.hpp"

namespace rometrace {

/// The rows of one patched run (or of the base run) in a block: for each of its draws, positions
/// first .. first + length - 1, the last being the runs' last.
struct AttentionSegment {
  std::int64_t draws = 1;
  std::int64_t first = 0;
  std::int64_t length = 0;
  std::int64_t asking = 0;  ///< of each draw, rows asking .. length - 1 have a query
  std::size_t prefix = 0;   ///< in AttentionBlock::prefixes: the runs whose positions before `first` its draws see
  PositionRange cut = {};   ///< positions that no query sees; each sees another one

  auto operator<=>(const AttentionSegment&) const = default;
};

/// Segments with as many draws and the same prefix, which attend_by_products() takes together, whatever their lengths.
struct AttentionGroup {
  std::int64_t draws = 1;
  std::size_t prefix = 0;
  std::int64_t prefix_end = 0;  ///< the largest `first`
  std::int64_t longest = 0;     ///< the largest `length`
  bool cuts = false;            ///< whether some have positions cut

  static constexpr std::int64_t kColumns = 7;
  /// Of each segment: first, length, asking, where its rows and its queries begin in the block, cut.begin, cut.end.
  std::vector<std::int64_t> list;
  at::Tensor table;  ///< the same on the block's device, [segments, kColumns]
};

/// The groups of segments with queries, without tables.
std::vector<AttentionGroup> group_segments(std::span<const AttentionSegment> segments);

/// Causal attention of a block of rows over their own keys and the prefix that they share with another run.
struct AttentionBlock {
  at::Tensor queries;      ///< [queries, A], float32 or float64, of all segments: [segment][draw][asking ..]
  at::Tensor keys_values;  ///< [rows, K] of all segments: [segment][draw][row]
  at::Tensor runs;         ///< [runs, R, K]: keys and values of the runs that prefixes are of
  std::vector<at::Tensor>
      prefixes;  ///< each [draws], int64: of each draw of a segment a place in `runs`; or [1]: of all
  std::vector<AttentionSegment> segments;
  std::vector<AttentionGroup> groups;  ///< those with queries, with tables; for attend_by_products() only
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;  ///< head h reads keys and values h / (heads / kv_heads)
  double scale = 1;           ///< of the scores, before the softmax
  double softcap = 0;         ///< c tanh(score / c) of the scaled scores where it is above 0
  std::int64_t window = 0;    ///< positions that a query sees, its own among them; 0: all before it
  at::Tensor biases;  ///< [H, R] added to scores of keys by their positions, of the queries' dtype; undefined: none
  at::Tensor sinks;   ///< [H] likewise, scores of a key without a value that every query sees; undefined: none
};

/// Values mixed by the softmax of the scores, [queries, A]. On the CPU by a kernel of our own, which reads the prefix
/// where it lies; elsewhere as attend_by_products.
at::Tensor attend(const AttentionBlock& block);

/// The same by batched matrix products of libtorch, on any device: so many operations a group, however many segments it
/// has. Their rows are filled up to as many as the longest has.
at::Tensor attend_by_products(const AttentionBlock& block);

}  // namespace rometrace
