#include "model/rotary.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rometrace {
namespace {

at::Tensor arange(std::int64_t end, std::int64_t step = 1) {
  return at::arange(0, end, step, at::kFloat);
}

at::Tensor llama3_scaled(const Rotary& rotary, const at::Tensor& frequencies) {
  const auto wavelength = 2 * std::numbers::pi / frequencies;
  const auto longest = rotary.original_positions / rotary.low_frequency,
             shortest = rotary.original_positions / rotary.high_frequency;
  const auto scaled = at::where(wavelength > longest, frequencies / rotary.factor, frequencies);
  const auto ramp =
      (rotary.original_positions / wavelength - rotary.low_frequency) / (rotary.high_frequency - rotary.low_frequency);
  const auto between = (1 - ramp) * scaled / rotary.factor + ramp * scaled;
  return at::where((wavelength < shortest).logical_or(wavelength > longest), scaled, between);
}

at::Tensor yarn_scaled(const Rotary& rotary) {
  const auto width = static_cast<double>(rotary.width);
  // The pair that turns so often in the original positions.
  const auto pair_of = [&](double turns) {
    return width * std::log(rotary.original_positions / (turns * 2 * std::numbers::pi)) / (2 * std::log(rotary.theta));
  };
  auto low = pair_of(rotary.beta_fast), high = pair_of(rotary.beta_slow);
  if (rotary.whole_pairs) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, width - 1);
  if (low == high) high += 0.001;
  const auto powers = at::pow(rotary.theta, arange(rotary.width, 2) / rotary.width);
  const auto as_trained = 1 / powers, stretched = 1 / (rotary.factor * powers);
  const auto trained_part = 1 - at::clamp((arange(rotary.width / 2) - low) / (high - low), 0, 1);
  return stretched * (1 - trained_part) + as_trained * trained_part;
}

}  // namespace

at::Tensor rotary_frequencies(const Rotary& rotary) {
  if (rotary.scaling == Rotary::Scaling::kYarn) return yarn_scaled(rotary);
  if (rotary.scaling == Rotary::Scaling::kEach) {
    return 1 / (at::tensor(rotary.divisors) * at::pow(rotary.theta, arange(rotary.width, 2) / rotary.width));
  }
  const auto frequencies = 1 / at::pow(rotary.theta, arange(rotary.width, 2) / rotary.width);
  if (rotary.scaling == Rotary::Scaling::kLinear) return frequencies / rotary.factor;
  if (rotary.scaling == Rotary::Scaling::kLlama3) return llama3_scaled(rotary, frequencies);
  return frequencies;
}

at::Tensor cosines_and_sines(const at::Tensor& frequencies, const at::Tensor& positions, double magnitude) {
  const auto angles = at::outer(positions.to(frequencies.scalar_type()), frequencies);
  return at::stack({at::cos(angles), at::sin(angles)}) * magnitude;
}

at::Tensor turned(const at::Tensor& heads, const at::Tensor& table, bool interleaved) {
  const auto pairs = table.size(2);
  const auto cos = table.select(0, 0).unsqueeze(1), sin = table.select(0, 1).unsqueeze(1);  // [rows, 1, pairs]
  const auto part = heads.slice(2, 0, 2 * pairs), rest = heads.slice(2, 2 * pairs);
  const auto first = interleaved ? part.slice(2, 0, 2 * pairs, 2) : part.slice(2, 0, pairs),
             second = interleaved ? part.slice(2, 1, 2 * pairs, 2) : part.slice(2, pairs);
  const auto x = first * cos - second * sin, y = second * cos + first * sin;
  const auto both = interleaved ? at::stack({x, y}, 3).flatten(2) : at::cat({x, y}, 2);
  return rest.size(2) == 0 ? both : at::cat({both, rest}, 2);
}

}  // namespace rometrace
