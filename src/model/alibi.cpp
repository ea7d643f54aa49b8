#include "model/alibi.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/pow.h>

#include <bit>
#include <cmath>

namespace rometrace {
namespace {

// `base` to the powers 1, 1 + step, ...
at::Tensor powers_of(double base, std::int64_t count, std::int64_t step) {
  return at::pow(at::full({}, base, at::kFloat), at::arange(1, 1 + count * step, step, at::kInt));
}

at::Tensor slopes(std::int64_t heads) {
  const auto whole = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(heads)));
  const auto base_of = [](std::int64_t of) { return std::exp2(-8.0 / static_cast<double>(of)); };
  const auto first = powers_of(base_of(whole), whole, 1);
  return whole == heads ? first : at::cat({first, powers_of(base_of(2 * whole), heads - whole, 2)});
}

}  // namespace

at::Tensor alibi_biases(const Alibi& alibi, std::int64_t heads, std::int64_t length) {
  const auto dtype = alibi.rounded ? at::kBFloat16 : at::kFloat;
  const auto positions = at::arange(length, at::kLong).to(dtype);
  return (slopes(heads).to(dtype).unsqueeze(1) * positions).to(at::kFloat);
}

}  // namespace rometrace
