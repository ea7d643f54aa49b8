#include "pretend/pretend_device.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <random>
#include <vector>

#include "checks.hpp"
#include "closeness.hpp"

// The device that the tests of the engines pretend to have: tensors of it are worth the CPU's, and what a GPU would not
// do it does not do either.

namespace rometrace::pretend_device_test {
namespace {

using testing::DeviceCounts;
using testing::DeviceWatch;
using testing::pretend_device;

constexpr at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf};

bool same(const at::Tensor& found, const at::Tensor& expected) {
  CHECK(found.device().type() == c10::DeviceType::PrivateUse1);
  return found.scalar_type() == expected.scalar_type() && found.cpu().equal(expected);
}

// A matrix within a larger one, on the CPU and on the device, with rows apart or columns first.
struct Twins {
  Twins(std::mt19937& engine, at::ScalarType dtype, std::int64_t rows, std::int64_t columns) {
    const auto whole = [&](std::int64_t least, std::int64_t most) {
      return std::uniform_int_distribution<std::int64_t>(least, most)(engine);
    };
    const auto step = whole(1, 2), before = whole(0, 3), beside = whole(0, 3);
    const bool turned = whole(0, 1) == 1;
    const auto view = [&](const at::Tensor& all) {
      return all.slice(0, before, before + step * rows, step).slice(1, beside, beside + columns);
    };
    host_whole = at::randn({before + step * rows + 2, beside + columns + 1}).to(dtype);
    if (turned) host_whole = host_whole.t().contiguous().t();
    device_whole = host_whole.to(pretend_device());
    host = view(host_whole);
    device = view(device_whole);
  }

  at::Tensor host_whole, device_whole;  // what the others are views of
  at::Tensor host, device;              // [rows, columns]
};

TEST_CASE("index_select, index_copy_, gather and where of views on it are the CPU's, and change what is viewed") {
  std::mt19937 engine(1);
  for (const auto dtype : kTypes) {
    for (int example = 0; example < 25; ++example) {
      CAPTURE(example);
      const auto whole = [&](std::int64_t least, std::int64_t most) {
        return std::uniform_int_distribution<std::int64_t>(least, most)(engine);
      };
      const auto rows = whole(1, 9), columns = whole(1, 9), some = whole(0, rows);
      Twins to(engine, dtype, rows, columns), from(engine, dtype, rows, columns);
      const auto index = at::randperm(rows, at::kLong).slice(0, 0, some);
      const auto index_there = index.to(pretend_device());
      CHECK(same(from.device.index_select(0, index_there), from.host.index_select(0, index)));
      to.host.index_copy_(0, index, from.host.index_select(0, index));
      to.device.index_copy_(0, index_there, from.device.index_select(0, index_there));
      CHECK(same(to.device_whole, to.host_whole));
      const auto places = at::randint(columns, {rows, whole(1, 5)}, at::kLong);
      CHECK(same(from.device.gather(1, places.to(pretend_device())), from.host.gather(1, places)));
      CHECK(same(at::where(from.device > 0, from.device, to.device), at::where(from.host > 0, from.host, to.host)));
      to.host.add_(at::where(from.host > 0, from.host, 1.5));
      to.device.add_(at::where(from.device > 0, from.device, 1.5));
      CHECK(same(to.device_whole, to.host_whole));
      to.host.slice(1, 0, columns / 2).masked_fill_(from.host.slice(1, 0, columns / 2) < 0, 7);
      to.device.slice(1, 0, columns / 2).masked_fill_(from.device.slice(1, 0, columns / 2) < 0, 7);
      CHECK(same(to.device_whole, to.host_whole));
      to.host.copy_(from.host);
      to.device.copy_(from.device);
      CHECK(same(to.device_whole, to.host_whole));
    }
  }
}

TEST_CASE("products, norms, softmax and attention on it are the CPU's") {
  for (const auto dtype : kTypes) {
    const auto x = at::randn({2, 3, 5, 8}).to(dtype), w = at::randn({8, 8}).to(dtype), b = at::randn({8}).to(dtype);
    const auto on = [](const at::Tensor& tensor) { return tensor.to(pretend_device(1)); };
    CHECK(same(at::matmul(on(x), on(w)).add_(on(b)), at::matmul(x, w).add_(b)));
    CHECK(same(at::layer_norm(on(x), {8}, on(b), on(b), 1e-5), at::layer_norm(x, {8}, b, b, 1e-5)));
    CHECK(same(at::softmax(on(x), -1), at::softmax(x, -1)));
    CHECK(same(at::cat({on(x), on(x).slice(2, 1)}, 2), at::cat({x, x.slice(2, 1)}, 2)));
    const auto attend = [](const at::Tensor& rows) {
      return at::scaled_dot_product_attention(rows, rows, rows, {}, 0, /*is_causal=*/true);
    };
    const double rounding = dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 1e-5 : 0.05;  // of other formulas
    CHECK(testing::largest_difference(attend(on(x)).cpu(), attend(x)) < rounding);
  }
}

TEST_CASE("tensors of it and of the CPU, or of two of them, are refused together") {
  const auto here = at::randn({3, 3}), there = here.to(pretend_device(0)), beyond = here.to(pretend_device(1));
  const auto index = at::arange(3);
  CHECK_THROWS_AS(there + here, c10::Error);
  CHECK_THROWS_AS(there.add_(here), c10::Error);
  CHECK_THROWS_AS(at::matmul(there, here), c10::Error);
  CHECK_THROWS_AS(there.index_select(0, index), c10::Error);
  CHECK_THROWS_AS(there.index_copy_(0, index, there), c10::Error);
  CHECK_THROWS_AS(there.gather(1, index.view({1, 3})), c10::Error);
  CHECK_THROWS_AS(at::where(here > 0, there, there), c10::Error);
  CHECK_THROWS_AS(at::cat({there, here}), c10::Error);
  CHECK_THROWS_AS(there.masked_fill_(here > 0, 1), c10::Error);
  CHECK_THROWS_AS(there + beyond, c10::Error);
  CHECK_THROWS_AS(at::matmul(there, beyond), c10::Error);
  CHECK_THROWS_AS(here.add_(there), c10::Error);
  CHECK_THROWS_AS(at::empty({}).add_(there.sum()), c10::Error);
  // A single number goes with the kernel.
  CHECK(same(there * at::full({}, 2.0), here * 2));
  CHECK(same(beyond.to(pretend_device(0)) + there, here + here));
}

TEST_CASE("its addresses are none of the host's, and what was not written to is not a number") {
  const auto host = at::zeros({4});
  const auto device = host.to(pretend_device());
  const auto address = reinterpret_cast<std::uintptr_t>(device.const_data_ptr());
  CHECK((address >> 52) == 1);
  CHECK(!device.is_cpu());
  for (const auto dtype : kTypes) {
    const auto fresh = at::empty({5}, at::device(pretend_device()).dtype(dtype));
    CHECK(fresh.isnan().all().item<bool>());
  }
}

TEST_CASE("it counts what is asked of it: operations, copies with their bytes, and waits") {
  const auto host = at::randn({4, 6});
  const auto asked = [](const auto& ask) {
    const DeviceWatch watch;
    ask();
    return watch.counts();
  };
  const auto device = host.to(pretend_device());
  const auto copied = asked([&] { host.to(pretend_device()); });
  CHECK(copied.to_device == DeviceCounts::Copies{1, 96});
  CHECK(copied.launches() == 0);
  CHECK(copied.waits == 0);
  const auto turned = asked([&] { device.t().cpu(); });
  CHECK(turned.to_host == DeviceCounts::Copies{1, 96});
  CHECK(turned.waits == 1);
  const auto views = asked([&] {
    device.view({2, 2, 6}).transpose(0, 1).slice(2, 1, 4).unsqueeze(0).expand({3, 2, 2, 3});
  });
  CHECK(views == DeviceCounts{});
  const auto added = asked([&] { device.add_(device).mul_(2); });
  CHECK(added.launches() == 2);
  CHECK(added.waits == 0);
  CHECK(added.to_device.count == 0);
  const auto product = asked([&] { at::matmul(device, device.t()); });
  CHECK(product.text() == "1 mm.out");
  const auto read = asked([&] { device.sum().item<float>(); });
  CHECK(read.waits == 1);
  CHECK(read.numbers == 1);
  CHECK(read.launches() == 1);
  const auto indexed = asked([&] {
    device.index({at::tensor(std::vector<std::int64_t>{1, 2})});
  });  // CUDA copies these itself
  CHECK(indexed.to_device.count == 1);
  CHECK(indexed.to_device.bytes == 16);
  const auto other = device.slice(0, 0, 2).clone();
  const auto put = asked([&] { device.index_put_({at::tensor(std::vector<std::int64_t>{1, 2})}, other); });
  CHECK(put.to_device.count == 1);
  const auto chosen = asked([&] { device.masked_select(device > 0); });
  CHECK(chosen.waits == 1);
  CHECK(chosen.numbers == 0);
}

TEST_CASE("gradients go through it") {
  const auto host = at::randn({3, 4}, at::kDouble).requires_grad_();
  const auto device = host.detach().to(pretend_device()).requires_grad_();
  const auto weight = at::randn({4, 4}, at::kDouble);
  const auto loss = [](const at::Tensor& x, const at::Tensor& w) {
    return at::softmax(at::matmul(x, w), -1).square().sum();
  };
  loss(host, weight).backward();
  loss(device, weight.to(pretend_device())).backward();
  CHECK(testing::largest_difference(device.grad().cpu(), host.grad()) < 1e-14);
}

}  // namespace
}  // namespace rometrace::pretend_device_test
