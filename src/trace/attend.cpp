#include "trace/attend.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

// One binary for every processor: the loader picks the widest vectors that the machine has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define ROMETRACE_WIDEST_VECTORS [[gnu::target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")]]
#else
#define ROMETRACE_WIDEST_VECTORS
#endif

namespace rometrace {
namespace {

// Keys and values of successive positions, of one head.
template <typename Number>
struct Positions {
  const Number* keys;
  const Number* values;
  std::int64_t stride;  // from one position to the next
  std::int64_t count;
};

// One run of one draw, one head: `asking` .. `own.count` - 1 are the own rows with a query.
template <typename Number>
struct HeadRows {
  Positions<Number> prefix, own;
  std::int64_t asking;
  PositionRange cut;    // positions; the prefix begins with the text
  std::int64_t window;  // positions that a query sees; 0: all
  const Number* queries;
  Number* mixed;
  std::int64_t stride;  // from one query to the next, and of `mixed`
  std::int64_t width;   // of a head
  Number scale, softcap;
  const Number* biases;  // by position, or null
  const Number* sink;    // or null
  Number* weights;       // scratch, prefix.count + own.count
};

template <typename Number>
[[gnu::always_inline]] inline Number dot(const Number* a, const Number* b, std::int64_t n) {
  Number sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

template <typename Number>
[[gnu::always_inline]] inline void add_scaled(Number* to, const Number* from, Number factor, std::int64_t n) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) to[i] += factor * from[i];
}

template <typename Number>
[[gnu::always_inline]] inline void mix_values(const HeadRows<Number>& line) {
  for (std::int64_t row = line.asking; row < line.own.count; ++row) {
    const Number* query = line.queries + (row - line.asking) * line.stride;
    const std::int64_t own = row + 1, seen = line.prefix.count + own;
    const std::int64_t from = line.window > 0 ? std::max<std::int64_t>(0, seen - line.window) : 0;
    const std::int64_t own_from = std::max<std::int64_t>(0, from - line.prefix.count);
    Number* weights = line.weights;
    for (std::int64_t i = from; i < line.prefix.count; ++i) {
      weights[i] = line.scale * dot(query, line.prefix.keys + i * line.prefix.stride, line.width);
    }
    for (std::int64_t i = own_from; i < own; ++i) {
      weights[line.prefix.count + i] = line.scale * dot(query, line.own.keys + i * line.own.stride, line.width);
    }
    if (line.softcap > 0) {
      for (std::int64_t i = from; i < seen; ++i) weights[i] = line.softcap * std::tanh(weights[i] / line.softcap);
    }
    if (line.biases != nullptr) {
      for (std::int64_t i = from; i < seen; ++i) weights[i] += line.biases[i];
    }
    for (std::int64_t i = std::max(from, line.cut.begin); i < std::min(line.cut.end, seen); ++i) {
      weights[i] = -std::numeric_limits<Number>::infinity();
    }
    Number largest = weights[from];
    for (std::int64_t i = from + 1; i < seen; ++i) largest = std::max(largest, weights[i]);
    if (line.sink != nullptr) largest = std::max(largest, *line.sink);
    Number sum = line.sink != nullptr ? std::exp(*line.sink - largest) : Number{0};
    for (std::int64_t i = from; i < seen; ++i) sum += weights[i] = std::exp(weights[i] - largest);

    Number* mixed = line.mixed + (row - line.asking) * line.stride;
    std::fill_n(mixed, line.width, Number{0});
    for (std::int64_t i = from; i < line.prefix.count; ++i) {
      add_scaled(mixed, line.prefix.values + i * line.prefix.stride, weights[i] / sum, line.width);
    }
    for (std::int64_t i = own_from; i < own; ++i) {
      const Number weight = weights[line.prefix.count + i] / sum;
      add_scaled(mixed, line.own.values + i * line.own.stride, weight, line.width);
    }
  }
}

ROMETRACE_WIDEST_VECTORS void mix(const HeadRows<float>& line) {
  mix_values(line);
}

ROMETRACE_WIDEST_VECTORS void mix(const HeadRows<double>& line) {
  mix_values(line);
}

template <typename Number>
at::Tensor attend_on_cpu(const AttentionBlock& block) {
  const auto queries = block.queries.contiguous(), keys_values = block.keys_values.contiguous(),
             runs = block.runs.contiguous(), biases = block.biases.defined() ? block.biases.contiguous() : block.biases,
             sinks = block.sinks.defined() ? block.sinks.contiguous() : block.sinks;
  auto mixed = at::empty_like(queries);
  const auto A = queries.size(1), K = runs.size(2), R = runs.size(1), width = A / block.heads;
  const auto sharing = block.heads / block.kv_heads;
  std::vector<Number> weights(static_cast<std::size_t>(R));
  std::int64_t row = 0, query = 0;  // where those of a draw begin
  for (const auto& segment : block.segments) {
    const auto& prefix = block.prefixes[segment.prefix];
    for (std::int64_t draw = 0; draw < segment.draws; ++draw) {
      const auto run = prefix.const_data_ptr<std::int64_t>()[prefix.size(0) == 1 ? 0 : draw];
      for (std::int64_t head = 0; head < block.heads; ++head) {
        const auto positions = [&](const at::Tensor& rows, std::int64_t begin, std::int64_t count) {
          const Number* keys = rows.const_data_ptr<Number>() + begin * K + head / sharing * width;
          return Positions<Number>{keys, keys + K / 2, K, count};
        };
        const auto begin = query * A + head * width;
        mix(HeadRows<Number>{positions(runs, run * R, segment.first), positions(keys_values, row, segment.length),
                             segment.asking, segment.cut, block.window, queries.const_data_ptr<Number>() + begin,
                             mixed.data_ptr<Number>() + begin, A, width, static_cast<Number>(block.scale),
                             static_cast<Number>(block.softcap),
                             biases.defined() ? biases.const_data_ptr<Number>() + head * biases.size(1) : nullptr,
                             sinks.defined() ? sinks.const_data_ptr<Number>() + head : nullptr, weights.data()});
      }
      row += segment.length;
      query += segment.length - segment.asking;
    }
  }
  return mixed;
}

// What one group's queries see, with the places of its rows. Of each segment there are `longest` positions W up to the
// runs' last: those before its first are only there so that all have as many.
class GroupedRows {
 public:
  // `positions` [R]: 0 .. R - 1.
  GroupedRows(const AttentionGroup& group, const at::Tensor& positions)
      : table_(group.table),
        own_(positions.slice(0, positions.size(0) - group.longest)),
        keys_(at::cat({positions.slice(0, 0, group.prefix_end), own_})),
        draws_(at::arange(group.draws, positions.options()).unsqueeze(1)),
        prefix_end_(group.prefix_end),
        cuts_(group.cuts) {}

  // Of the block's rows, [segments, draws, W].
  at::Tensor rows() const { return column(kRow) + draws_ * column(kLength) + (own_ - column(kFirst)).clamp_min(0); }

  // Of its queries, and where what they mix goes: `nowhere` for those that are none.
  at::Tensor queries() const { return all_queries().clamp_min(0); }
  at::Tensor mixed(std::int64_t nowhere) const { return all_queries().masked_fill(asked() < 0, nowhere); }

  // Of a table by positions [.., R] those of the keys, [.., P + W]: the prefix's, then a segment's own.
  const at::Tensor& keys() const { return keys_; }

  // Bool [segments, W, P + W]: which keys each query sees.
  at::Tensor seen(std::int64_t window) const {
    const auto of_queries = own_.unsqueeze(1);
    const auto is_own = at::arange(keys_.size(0), keys_.options()) >= prefix_end_;
    auto seen = ((keys_ >= column(kFirst)) == is_own).logical_and(keys_ <= of_queries);
    if (window > 0) seen = seen.logical_and(keys_ > of_queries - window);
    return cuts_ ? seen.logical_and((keys_ < column(kCutBegin)).logical_or(keys_ >= column(kCutEnd))) : seen;
  }

 private:
  enum Column { kFirst, kLength, kAsking, kRow, kQuery, kCutBegin, kCutEnd };

  at::Tensor column(Column which) const { return table_.select(1, which).view({-1, 1, 1}); }

  // Which query of its draw each position has; below 0: none.
  at::Tensor asked() const { return own_ - (column(kFirst) + column(kAsking)); }
  at::Tensor all_queries() const { return column(kQuery) + draws_ * (column(kLength) - column(kAsking)) + asked(); }

  at::Tensor table_, own_, keys_, draws_;
  std::int64_t prefix_end_;
  bool cuts_;
};

}  // namespace

std::vector<AttentionGroup> group_segments(std::span<const AttentionSegment> segments) {
  std::map<std::pair<std::int64_t, std::size_t>, AttentionGroup> groups;
  std::int64_t row = 0, query = 0;
  for (const auto& segment : segments) {
    const auto [draws, first, length, asking, prefix, cut] = segment;
    if (asking < length) {
      auto& group = groups[{draws, prefix}];
      group.draws = draws;
      group.prefix = prefix;
      group.prefix_end = std::max(group.prefix_end, first);
      group.longest = std::max(group.longest, length);
      group.cuts = group.cuts || cut.begin < cut.end;
      group.list.insert(group.list.end(), {first, length, asking, row, query, cut.begin, cut.end});
    }
    row += draws * length;
    query += draws * (length - asking);
  }
  std::vector<AttentionGroup> list;
  for (auto& [key, group] : groups) list.push_back(std::move(group));
  return list;
}

at::Tensor attend_by_products(const AttentionBlock& block) {
  const auto A = block.queries.size(1), H = block.heads, width = A / H, queries = block.queries.size(0);
  const auto of_queries = [&](const at::Tensor& heads) {  // [draws, H', ...] -> [draws, H, ...]
    return block.kv_heads == H ? heads : heads.repeat_interleave(H / block.kv_heads, 1);
  };
  const auto positions = at::arange(block.runs.size(1), block.prefixes.front().options());
  auto result = at::empty({queries + 1, A}, block.queries.options());  // the last one of those that are no queries
  for (const auto& group : block.groups) {
    const GroupedRows places(group, positions);
    const auto G = group.table.size(0), draws = group.draws, P = group.prefix_end, W = group.longest;
    // [draws, H, ...]: what the segments of a draw share is multiplied once for all of them.
    const auto q = (block.queries.index_select(0, places.queries().flatten()) * block.scale)
                       .view({G, draws, W, H, width})
                       .permute({1, 3, 0, 2, 4});
    const auto kv = block.keys_values.index_select(0, places.rows().flatten()).view({G, draws, W, 2, -1, width});
    const auto own = [&](std::int64_t part) { return of_queries(kv.select(3, part).permute({1, 3, 0, 2, 4})); };
    const auto runs = block.runs.slice(1, 0, P).index_select(0, block.prefixes[group.prefix]);
    const auto prefix = runs.view({runs.size(0), P, 2, block.kv_heads, width});
    const auto shared = [&](std::int64_t part) { return of_queries(prefix.select(2, part).permute({0, 2, 1, 3})); };
    const auto stacked = q.reshape({draws, H, G * W, width});
    const auto prefix_scores = at::matmul(stacked, shared(0).transpose(-1, -2)).view({draws, H, G, W, P});
    auto scores = at::cat({prefix_scores, at::matmul(q, own(0).transpose(-1, -2))}, -1);
    if (block.softcap > 0) scores = at::tanh(scores / block.softcap) * block.softcap;
    if (block.biases.defined()) scores = scores + block.biases.index_select(1, places.keys()).view({1, H, 1, 1, -1});
    scores.masked_fill_(places.seen(block.window).logical_not(), -std::numeric_limits<double>::infinity());
    if (block.sinks.defined()) {
      scores = at::cat({scores, block.sinks.view({1, H, 1, 1, 1}).expand({draws, H, G, W, 1})}, -1);
    }
    const auto weights = at::softmax(scores, -1);
    const auto prefix_weights = weights.slice(-1, 0, P).reshape({draws, H, G * W, P});
    const auto mixed = at::matmul(prefix_weights, shared(1)).view({draws, H, G, W, width}) +
                       at::matmul(weights.slice(-1, P, P + W), own(1));
    result.index_copy_(0, places.mixed(queries).flatten(), mixed.permute({2, 0, 3, 1, 4}).reshape({G * draws * W, A}));
  }
  return result.slice(0, 0, queries);
}

at::Tensor attend(const AttentionBlock& block) {
  if (!block.queries.is_cpu()) return attend_by_products(block);
  return block.queries.scalar_type() == at::kDouble ? attend_on_cpu<double>(block) : attend_on_cpu<float>(block);
}

}  // namespace rometrace
