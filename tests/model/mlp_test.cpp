#include "rometrace/model/mlp.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"

namespace rometrace::mlp_test {
namespace {

using testing::largest_difference;

constexpr std::int64_t kWidth = 6, kInner = 5, kExperts = 7;

/// A mixture of gated experts with random matrices in float64, and how often each expert's were read.
struct Example {
  Experts experts;
  at::Tensor router = at::randn({kWidth, kExperts}, at::kDouble);
  at::Tensor gate = at::randn({kExperts, kWidth, kInner}, at::kDouble);
  at::Tensor up = at::randn({kExperts, kWidth, kInner}, at::kDouble);
  at::Tensor down = at::randn({kExperts, kInner, kWidth}, at::kDouble);
  std::shared_ptr<std::vector<int>> reads = std::make_shared<std::vector<int>>(kExperts);

  explicit Example(std::int64_t chosen = 3) {
    experts.count = kExperts;
    experts.chosen = chosen;
    experts.width = kInner;
  }

  static std::shared_ptr<const Linear> linear(std::vector<at::Tensor> weights, std::shared_ptr<std::vector<int>> reads,
                                              std::int64_t expert) {
    const auto count = weights.size();
    const auto read = [weights = std::move(weights), reads, expert] {
      if (reads) ++reads->at(static_cast<std::size_t>(expert));
      std::vector<Linear::Part> parts;
      for (const auto& weight : weights) parts.push_back({weight, {}});
      return parts;
    };
    return std::make_shared<const Linear>(Linear::Source{count, read, {}, {}, at::kDouble, at::kCPU},
                                          Products::kUnpacked, nullptr);
  }

  Mixture mixture() const {
    DecoderConfig config;
    config.gated_mlp = true;
    config.activation = Activation::kSilu;
    Mixture::Parts parts;
    parts.router = linear({router}, nullptr, 0);
    for (std::int64_t i = 0; i < kExperts; ++i) {
      parts.experts.push_back(
          std::make_shared<const Mlp>(config, linear({gate[i], up[i]}, reads, i), linear({down[i]}, nullptr, i)));
    }
    return {experts, std::move(parts)};
  }

  at::Tensor output_of(std::int64_t expert, const at::Tensor& row) const {
    return at::matmul(at::silu(at::matmul(row, gate[expert])) * at::matmul(row, up[expert]), down[expert]);
  }
};

TEST_CASE("each row has the outputs of its most probable experts, weighted") {
  const at::NoGradGuard no_grad;
  for (const bool sums_to_one : {false, true}) {
    Example example;
    example.experts.sums_to_one = sums_to_one;
    const auto x = at::randn({2, 9, kWidth}, at::kDouble), rows = x.flatten(0, 1);
    std::vector<at::Tensor> expected;
    for (std::int64_t i = 0; i < rows.size(0); ++i) {
      const auto p = at::softmax(at::matmul(rows[i], example.router), -1);
      std::vector<std::pair<double, std::int64_t>> ranked;
      for (std::int64_t e = 0; e < kExperts; ++e) ranked.emplace_back(-p[e].item<double>(), e);
      std::sort(ranked.begin(), ranked.end());
      ranked.resize(3);
      double all = 0;
      for (const auto& [negative, expert] : ranked) all -= negative;
      auto sum = at::zeros({kWidth}, at::kDouble);
      for (const auto& [negative, expert] : ranked) {
        sum += example.output_of(expert, rows[i]) * (-negative / (sums_to_one ? all : 1));
      }
      expected.push_back(sum);
    }
    CHECK(largest_difference(example.mixture().output(x), at::stack(expected).view({2, 9, kWidth})) < 1e-12);
  }
}

TEST_CASE("a row's output depends on no other row") {
  const at::NoGradGuard no_grad;
  const Example example;
  const auto mixture = example.mixture();
  const auto x = at::randn({20, kWidth}, at::kDouble);
  const auto together = mixture.output(x);
  for (std::int64_t i = 0; i < 20; ++i) {
    CHECK(largest_difference(mixture.output(x.slice(0, i, i + 1)), together.slice(0, i, i + 1)) < 1e-13);
  }
}

TEST_CASE("experts to which no row comes are not read, and others once") {
  const at::NoGradGuard no_grad;
  const Example example(2);
  const auto mixture = example.mixture();
  mixture.prepare();
  CHECK(*example.reads == std::vector<int>(kExperts, 0));
  const auto x = at::randn({1, kWidth}, at::kDouble);
  mixture.output(x);
  mixture.output(x);
  CHECK(std::count(example.reads->begin(), example.reads->end(), 1) == 2);
  CHECK(std::count(example.reads->begin(), example.reads->end(), 0) == kExperts - 2);
  mixture.prepare_experts();
  CHECK(*example.reads == std::vector<int>(kExperts, 1));
}

TEST_CASE("weights are of the chosen alone, or of each choice those near the largest") {
  Example example(2);
  const auto scores = at::tensor({1.0, 3.0, 2.9, -4.0, 2.0, 0.0, 2.95}, at::kDouble).view({1, -1});
  example.experts.weights = Experts::Weights::kOfChosen;
  const auto chosen = example.mixture().choose(scores);
  CHECK(at::equal(chosen.experts, at::tensor({1, 6}, at::kLong).view({1, 2})));
  CHECK(chosen.weights[0][0].item<double>() == doctest::Approx(1 / (1 + std::exp(-0.05))).epsilon(1e-12));
  CHECK(chosen.weights.sum().item<double>() == doctest::Approx(1).epsilon(1e-12));

  example.experts.weights = Experts::Weights::kOneByOne;
  example.experts.nearness = 0.02;  // of 3: 2.95 is near, 2.9 is not; of 2.95, 2.9 is
  const auto near = example.mixture().choose(scores);
  CHECK(at::equal(near.experts, at::tensor({1, 6}, at::kLong).view({1, 2})));
  for (const std::int64_t choice : {0, 1}) {
    CHECK(near.weights[0][choice].item<double>() == doctest::Approx(1 / (1 + std::exp(-0.05))).epsilon(1e-12));
  }
}

}  // namespace
}  // namespace rometrace::mlp_test
