#include "trace/draws.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

namespace rometrace {
namespace {

std::string shortest(double value) {
  std::array<char, 32> digits{};
  return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr};
}

}  // namespace

MeanAndError mean_and_error(std::span<const double> draws) {
  const auto n = static_cast<double>(draws.size());
  const double mean = std::accumulate(draws.begin(), draws.end(), 0.0) / n;
  if (draws.size() < 2) return {mean, std::numeric_limits<double>::quiet_NaN()};
  double squares = 0;
  for (const double draw : draws) squares += (draw - mean) * (draw - mean);
  return {mean, std::sqrt(squares / (n - 1) / n)};
}

std::optional<Error> fault_of(std::span<const double> draws, const TraceOptions& options) {
  if (std::all_of(draws.begin(), draws.end(), [](double draw) { return std::isfinite(draw); })) return std::nullopt;
  return Error("a corrupted run ends in NaN or infinity: noise of scale " + shortest(options.sigma) +
               " is too large for this model and dtype; choose a smaller one");
}

void check_finite(std::span<const double> draws, const TraceOptions& options) {
  if (const auto fault = fault_of(draws, options)) throw *fault;
}

}  // namespace rometrace
