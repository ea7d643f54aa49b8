#include "trace/attend.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>

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
  // Where the rows and queries of each segment begin.
  struct Offsets {
    std::int64_t rows, queries;
  };
  std::vector<Offsets> offsets;
  Offsets end{0, 0};
  for (const auto& segment : block.segments) {
    offsets.push_back(end);
    end.rows += block.draws * segment.length;
    end.queries += block.draws * (segment.length - segment.asking);
  }
  const auto queries = block.queries.contiguous(), keys_values = block.keys_values.contiguous(),
             runs = block.runs.contiguous(), biases = block.biases.defined() ? block.biases.contiguous() : block.biases,
             sinks = block.sinks.defined() ? block.sinks.contiguous() : block.sinks;
  auto mixed = at::empty_like(queries);
  const auto A = queries.size(1), K = runs.size(2), R = runs.size(1), width = A / block.heads;
  const auto sharing = block.heads / block.kv_heads;
  const auto tasks = static_cast<std::int64_t>(block.segments.size()) * block.draws * block.heads;
  at::parallel_for(0, tasks, /*grain_size=*/16, [&](std::int64_t from, std::int64_t to) {
    std::vector<Number> weights(static_cast<std::size_t>(R));
    for (std::int64_t task = from; task < to; ++task) {
      const auto head = task % block.heads, draw = task / block.heads % block.draws;
      const auto index = static_cast<std::size_t>(task / block.heads / block.draws);
      const auto& segment = block.segments[index];
      const auto asking = segment.length - segment.asking;
      const auto run = block.prefix_runs(segment.other_prefix)[static_cast<std::size_t>(draw)];
      const auto positions = [&](const at::Tensor& rows, std::int64_t row, std::int64_t count) {
        const Number* keys = rows.const_data_ptr<Number>() + row * K + head / sharing * width;
        return Positions<Number>{keys, keys + K / 2, K, count};
      };
      const auto query = (offsets[index].queries + draw * asking) * A + head * width;
      mix(HeadRows<Number>{positions(runs, run * R, segment.first),
                           positions(keys_values, offsets[index].rows + draw * segment.length, segment.length),
                           segment.asking, segment.cut, block.window, queries.const_data_ptr<Number>() + query,
                           mixed.data_ptr<Number>() + query, A, width, static_cast<Number>(block.scale),
                           static_cast<Number>(block.softcap),
                           biases.defined() ? biases.const_data_ptr<Number>() + head * biases.size(1) : nullptr,
                           sinks.defined() ? sinks.const_data_ptr<Number>() + head : nullptr, weights.data()});
    }
  });
  return mixed;
}

// Segments of one shape, with the rows and queries that they have in the block.
struct Group {
  std::vector<std::int64_t> rows, queries;
  std::int64_t segments = 0;
};

// Of each draw of the block, or of the first alone where they all see the same: [draws or 1, R, K].
at::Tensor prefix_runs(const AttentionBlock& block, bool other) {
  const auto& runs = block.prefix_runs(other);
  if (runs.front() == runs.back()) return block.runs.slice(0, runs.front(), runs.front() + 1);
  return block.runs.index_select(0, at::tensor(runs).to(block.runs.device()));
}

}  // namespace

at::Tensor attend_by_products(const AttentionBlock& block) {
  const auto shape = [](const AttentionSegment& segment) {
    return std::tuple(segment.first, segment.length, segment.asking, segment.other_prefix, segment.cut);
  };
  std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t, bool, PositionRange>, Group> groups;
  std::int64_t row = 0, query = 0;
  for (const auto& segment : block.segments) {
    auto& group = groups[shape(segment)];
    ++group.segments;
    for (std::int64_t i = 0; i < block.draws * segment.length; ++i) group.rows.push_back(row++);
    for (std::int64_t i = 0; i < block.draws * (segment.length - segment.asking); ++i) {
      group.queries.push_back(query++);
    }
  }
  const auto A = block.queries.size(1), H = block.heads, width = A / H, draws = block.draws;
  const auto of_queries = [&](const at::Tensor& heads) {  // [draws, H', ...] -> [draws, H, ...]
    return block.kv_heads == H ? heads : heads.repeat_interleave(H / block.kv_heads, 1);
  };
  const auto device = block.queries.device();
  auto result = at::empty_like(block.queries);
  for (const auto& [key, group] : groups) {
    const auto [first, length, asking, other_prefix, cut] = key;
    const auto G = group.segments, Q = length - asking;
    if (Q == 0) continue;
    const auto rows = at::tensor(group.rows).to(device), queries = at::tensor(group.queries).to(device);
    // [draws, H, ...]: what the segments of a draw share is multiplied once for all of them.
    const auto q =
        (block.queries.index_select(0, queries) * block.scale).view({G, draws, Q, H, width}).permute({1, 3, 0, 2, 4});
    const auto kv = block.keys_values.index_select(0, rows).view({G, draws, length, 2, block.kv_heads, width});
    const auto own = [&](std::int64_t part) { return of_queries(kv.select(3, part).permute({1, 3, 0, 2, 4})); };
    const auto runs = prefix_runs(block, other_prefix);
    const auto shared = [&](std::int64_t part) {
      const auto prefix = runs.slice(1, 0, first);
      const auto heads = prefix.reshape({prefix.size(0), first, 2, block.kv_heads, width}).select(2, part);
      return of_queries(heads.permute({0, 2, 1, 3}));
    };
    const auto stacked = q.reshape({draws, H, G * Q, width});
    const auto prefix_scores = at::matmul(stacked, shared(0).transpose(-1, -2)).view({draws, H, G, Q, first});
    // Own row `asking + i` sees own rows up to itself.
    const auto unseen = at::ones({Q, length}, at::device(device).dtype(at::kBool)).triu(asking + 1);
    const auto own_scores = at::matmul(q, own(0).transpose(-1, -2));
    auto scores = at::cat({prefix_scores, own_scores}, -1);
    if (block.softcap > 0) scores = at::tanh(scores / block.softcap) * block.softcap;
    if (block.biases.defined()) scores = scores + block.biases.slice(1, 0, first + length).view({1, H, 1, 1, -1});
    constexpr auto kUnseen = -std::numeric_limits<double>::infinity();
    scores.slice(-1, first).masked_fill_(unseen, kUnseen);
    if (block.window > 0) {  // query i stands at position first + asking + i
      const auto too_old =
          at::ones({Q, first + length}, at::device(device).dtype(at::kBool)).tril(first + asking - block.window);
      scores.masked_fill_(too_old, kUnseen);
    }
    if (cut.begin < cut.end) scores.slice(-1, cut.begin, cut.end).fill_(-std::numeric_limits<double>::infinity());
    if (block.sinks.defined()) {
      scores = at::cat({scores, block.sinks.view({1, H, 1, 1, 1}).expand({draws, H, G, Q, 1})}, -1);
    }
    const auto weights = at::softmax(scores, -1);
    const auto prefix_weights = weights.slice(-1, 0, first).reshape({draws, H, G * Q, first});
    const auto mixed = at::matmul(prefix_weights, shared(1)).view({draws, H, G, Q, width}) +
                       at::matmul(weights.slice(-1, first, first + length), own(1));
    result.index_copy_(0, queries, mixed.permute({2, 0, 3, 1, 4}).reshape({G * draws * Q, A}));
  }
  return result;
}

at::Tensor attend(const AttentionBlock& block) {
  if (!block.queries.is_cpu()) return attend_by_products(block);
  return block.queries.scalar_type() == at::kDouble ? attend_on_cpu<double>(block) : attend_on_cpu<float>(block);
}

}  // namespace rometrace
