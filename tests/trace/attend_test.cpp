#include "trace/attend.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include "checks.hpp"
#include "closeness.hpp"

namespace rometrace::attend_test {
namespace {

using testing::largest_difference;

constexpr std::int64_t kFacts = 3, kDrawsOfEach = 5;

struct Draws {
  std::int64_t facts, first, count;
};

struct Heads {
  std::int64_t heads, kv_heads, width;
  double softcap;
  std::int64_t window;
  bool biases = false;
};

// A block with segments of every kind: from the first position, with a clean prefix, of one row, with few queries, of
// one draw of each fact.
AttentionBlock an_example(at::ScalarType dtype, const Heads& heads, Draws draws) {
  constexpr std::int64_t T = 6;
  constexpr std::size_t kBase = 0, kOther = 1, kFirst = 2;
  AttentionBlock block;
  const auto n = draws.count, J = draws.facts;
  const auto of_all = draws.first + at::arange(n);
  const auto others = J == 1 ? at::tensor({std::int64_t{0}}) : of_all.floor_divide(kDrawsOfEach);
  block.prefixes = {J + of_all, others, J + kDrawsOfEach * at::arange(J)};
  block.heads = heads.heads;
  block.kv_heads = heads.kv_heads;
  block.scale = 0.37;
  block.softcap = heads.softcap;
  block.window = heads.window;
  block.segments = {{n, 0, 6, 0, kBase, {}},      {n, 2, 4, 1, kOther, {}},    {n, 2, 4, 0, kBase, {}},
                    {n, 5, 1, 0, kBase, {}},      {n, 5, 1, 1, kBase, {}},     {n, 2, 4, 3, kBase, {}},
                    {J, 5, 1, 0, kFirst, {0, 2}}, {n, 2, 4, 0, kBase, {}},     {n, 1, 5, 0, kOther, {}},
                    {n, 5, 1, 0, kOther, {1, 3}}, {n, 5, 1, 0, kBase, {3, 5}}, {n, 4, 2, 0, kOther, {4, 5}},
                    {J, 3, 3, 0, kFirst, {}},     {n, 3, 3, 1, kBase, {0, 3}}};
  block.groups = group_segments(block.segments);
  REQUIRE(block.groups.size() == block.prefixes.size());
  for (auto& group : block.groups) group.table = at::tensor(group.list).view({-1, AttentionGroup::kColumns});
  std::int64_t queries = 0, rows = 0;
  for (const auto& segment : block.segments) {
    rows += segment.draws * segment.length;
    queries += segment.draws * (segment.length - segment.asking);
  }
  const auto K = 2 * heads.kv_heads * heads.width;
  block.queries = at::randn({queries, heads.heads * heads.width}, dtype);
  block.keys_values = at::randn({rows, K}, dtype);
  block.runs = at::randn({draws.facts * (1 + kDrawsOfEach), T, K}, dtype);
  if (heads.biases) block.biases = at::randn({heads.heads, T}, dtype);
  return block;
}

// One query at a time, over all keys that it sees, copied together: those of its fact.
at::Tensor attend_one_by_one(const AttentionBlock& block) {
  const auto A = block.queries.size(1), K = block.runs.size(2), H = block.heads, d = A / H;
  std::vector<at::Tensor> results;
  std::int64_t row = 0;
  for (const auto& segment : block.segments) {
    const auto& prefix = block.prefixes[segment.prefix];
    for (std::int64_t draw = 0; draw < segment.draws; ++draw, row += segment.length) {
      const auto run = block.runs[prefix[prefix.size(0) == 1 ? 0 : draw].item<std::int64_t>()];
      for (auto asking = segment.asking; asking < segment.length; ++asking) {
        const auto all = at::cat({run.slice(0, 0, segment.first), block.keys_values.slice(0, row, row + asking + 1)});
        std::vector<std::int64_t> places;
        for (std::int64_t place = 0; place < all.size(0); ++place) {
          const bool cut = segment.cut.begin <= place && place < segment.cut.end;
          const bool old = block.window > 0 && place < all.size(0) - block.window;
          if (!cut && !old) places.push_back(place);
        }
        const auto seen = all.index_select(0, at::tensor(places));
        const auto heads = [&](const at::Tensor& rows) {  // [H, rows, d]
          const auto apart = rows.reshape({rows.size(0), -1, d}).transpose(0, 1);
          return apart.repeat_interleave(H / apart.size(0), 0);
        };
        const auto query = block.queries[static_cast<std::int64_t>(results.size())].unsqueeze(0);
        auto scores = at::matmul(heads(query), heads(seen.slice(1, 0, K / 2)).transpose(1, 2)) * block.scale;
        if (block.softcap > 0) scores = at::tanh(scores / block.softcap) * block.softcap;
        if (block.biases.defined()) scores = scores + block.biases.index_select(1, at::tensor(places)).unsqueeze(1);
        results.push_back(
            at::matmul(at::softmax(scores, -1), heads(seen.slice(1, K / 2))).transpose(0, 1).reshape({1, A}));
      }
    }
  }
  return at::cat(results);
}

TEST_CASE("attention over own rows and a shared prefix is that of each query alone") {
  const at::NoGradGuard no_grad;
  for (const auto& heads : {Heads{1, 1, 1, 0, 0}, Heads{2, 2, 3, 0, 0}, Heads{3, 3, 64, 0, 0}, Heads{1, 1, 40, 0, 0},
                            Heads{6, 2, 5, 0, 0}, Heads{4, 1, 8, 0, 3}, Heads{2, 2, 4, 0.7, 0}, Heads{6, 3, 3, 2, 4},
                            Heads{4, 2, 3, 0, 0, true}, Heads{3, 3, 4, 0.7, 3, true}}) {
    CAPTURE(heads.width);
    // Of one fact; of several all draws, some of one, and some of two with the ends of both cut off.
    for (const auto draws :
         {Draws{1, 1, 3}, Draws{kFacts, 0, kFacts * kDrawsOfEach}, Draws{kFacts, 6, 3}, Draws{kFacts, 3, 4}}) {
      CAPTURE(draws.first);
      CAPTURE(draws.count);
      // Sums of a few products of order 1: rounding at the last digits.
      const auto in_double = an_example(at::kDouble, heads, draws);
      CHECK(largest_difference(attend(in_double), attend_one_by_one(in_double)) < 1e-13);
      CHECK(largest_difference(attend_by_products(in_double), attend_one_by_one(in_double)) < 1e-13);
      const auto in_float = an_example(at::kFloat, heads, draws);
      CHECK(largest_difference(attend(in_float), attend_one_by_one(in_float)) < 1e-5);
      CHECK(largest_difference(attend_by_products(in_float), attend_one_by_one(in_float)) < 1e-5);
    }
  }
}

}  // namespace
}  // namespace rometrace::attend_test
