#include "rometrace/model/linear.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"

namespace rometrace::linear_test {
namespace {

using testing::largest_difference;

/// A product with a weight [in, out] and a bias [out] or none that are in memory, its columns in parts of these widths.
Linear in_memory(const at::Tensor& weight, const at::Tensor& bias, std::vector<std::int64_t> widths = {},
                 Products products = Products::kFast, std::function<void()> released = {},
                 std::shared_ptr<PackingScratch> scratch = nullptr) {
  if (widths.empty()) widths = {weight.size(1)};
  const auto read = [weight, bias, widths] {
    std::vector<Linear::Part> parts;
    std::int64_t begin = 0;
    for (const auto width : widths) {
      parts.push_back(
          {weight.slice(1, begin, begin + width), bias.defined() ? bias.slice(0, begin, begin + width) : at::Tensor()});
      begin += width;
    }
    return parts;
  };
  return {{widths.size(), read, {}, std::move(released), weight.scalar_type(), weight.device()},
          products,
          std::move(scratch)};
}

TEST_CASE("products, whole and in parts, packed or not, are x W + b in every dtype that a CPU multiplies in") {
  const at::NoGradGuard no_grad;
  // Sums of 70 products of order 1, of about 8: at most their last digits, and of bfloat16 the third.
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-4}, {at::kBFloat16, 0.3}}) {
    const auto weight = at::randn({70, 300}, dtype), bias = at::randn({300}, dtype), x = at::randn({33, 70}, dtype);
    const auto expected = at::matmul(x.to(at::kDouble), weight.to(at::kDouble)) + bias.to(at::kDouble);
    for (const auto products : {Products::kFast, Products::kUnpacked}) {
      CHECK(largest_difference(in_memory(weight, bias, {}, products).product(x), expected) < tolerance);
      CHECK(largest_difference(in_memory(weight, at::Tensor(), {}, products).product(x), expected - bias) < tolerance);
      // The head's weight comes transposed, rows in three dimensions.
      CHECK(largest_difference(in_memory(weight.t().contiguous().t(), bias, {}, products).product(x.view({3, 11, 70})),
                               expected.view({3, 11, 300})) < tolerance);
      const Linear parts = in_memory(weight, bias, {100, 1, 199}, products);
      REQUIRE(parts.parts() == 3);
      CHECK(largest_difference(at::cat({parts.product(x, 0), parts.product(x, 1), parts.product(x, 2)}, 1), expected) <
            tolerance);
      const bool keeps_dtype = parts.product(x.to(at::kFloat), 1).scalar_type() == dtype;  // doctest cannot print these
      CHECK(keeps_dtype);
    }
  }
}

TEST_CASE("activations, fused into the product or not, are libtorch's") {
  const at::NoGradGuard no_grad;
  const auto weight = at::randn({20, 50}) / 4, bias = at::randn({50}), x = at::randn({9, 20});
  const Linear linear = in_memory(weight, bias);
  const auto y = linear.product(x);
  const std::vector<std::pair<Activation, at::Tensor>> cases = {{Activation::kGeluTanh, at::gelu(y, "tanh")},
                                                                {Activation::kGeluErf, at::gelu(y)},
                                                                {Activation::kGeluQuick, y * at::sigmoid(1.702 * y)},
                                                                {Activation::kRelu, at::relu(y)},
                                                                {Activation::kSilu, at::silu(y)},
                                                                {Activation::kTanh, at::tanh(y)},
                                                                {Activation::kSigmoid, at::sigmoid(y)}};
  for (const auto& [activation, expected] : cases) {
    CHECK(largest_difference(linear.activated_product(x, activation), expected) < 2e-6);
  }
}

TEST_CASE("a weight is packed once, at its first product, whichever thread asks first") {
  const at::NoGradGuard no_grad;
  const auto weight = at::randn({64, 64}), x = at::randn({5, 64});
  int packed = 0;
  const Linear linear = in_memory(weight, at::Tensor(), {}, Products::kFast, [&] { ++packed; });
  CHECK(packed == 0);
  std::vector<at::Tensor> results(8);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] {
      const at::NoGradGuard no_grad_here;
      result = linear.product(x);
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(packed == (Linear::packs(at::kFloat, at::kCPU) ? 1 : 0));
  for (const auto& result : results) CHECK(largest_difference(result, at::matmul(x, weight)) < 1e-4);
}

TEST_CASE("autograd reaches what is multiplied, packed or not, with room for a transpose or without") {
  const auto weight = at::randn({20, 50}) / 4, bias = at::randn({50}), x = at::randn({3, 9, 20});
  const auto by_hand = [&](const at::Tensor& dy) { return at::matmul(dy, weight.slice(1, 30).t()); };
  const auto shared = std::make_shared<PackingScratch>();
  for (const std::int64_t room : {std::int64_t{0}, std::int64_t{1} << 20}) {
    for (const auto products : {Products::kFast, Products::kUnpacked}) {
      shared->room_for_transposes = room;
      const Linear linear = in_memory(weight, bias, {30, 20}, products, {}, shared);
      for (int again = 0; again < 2; ++again) {
        const auto leaf = x.clone().requires_grad_();
        const auto y = linear.activated_product(leaf, Activation::kTanh, 1);
        const auto dy = at::randn({3, 9, 20});
        y.backward(dy);
        CHECK(largest_difference(leaf.grad(), by_hand(dy * (1 - y * y)).detach()) < 1e-5);
      }
      const bool copied = shared->room_for_transposes == room - 20 * 50 * 4;
      CHECK(copied == (room > 0 && linear.packed()));
    }
  }
  CHECK_FALSE(weight.requires_grad());
}

TEST_CASE("a graph outlives the product that made it") {
  const auto weight = at::randn({20, 50}), x = at::randn({9, 20}).requires_grad_();
  at::Tensor y;
  {
    const Linear linear = in_memory(weight, {});
    y = linear.product(x);
  }
  y.sum().backward();
  CHECK(largest_difference(x.grad(), weight.sum(1).expand({9, 20})) < 1e-4);
}

}  // namespace
}  // namespace rometrace::linear_test
