#include "rometrace/trace/noise.hpp"

#include <charconv>
#include <cmath>
#include <optional>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

// A whole text as a finite number >= 0.
std::optional<double> read_scale(std::string_view text) {
  double value = 0;
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value) || value < 0) return std::nullopt;
  return value;
}

}  // namespace

RandomState::RandomState(std::uint32_t seed) : engine_(seed) {}

double RandomState::random_sample() {
  const auto a = static_cast<std::uint32_t>(engine_()) >> 5;  // 27 bits
  const auto b = static_cast<std::uint32_t>(engine_()) >> 6;  // 26 bits
  return (a * 67108864.0 + b) / 9007199254740992.0;
}

double RandomState::uniform(double low, double high) {
  return low + (high - low) * random_sample();
}

double RandomState::randn() {
  if (has_gauss_) {
    has_gauss_ = false;
    return gauss_;
  }
  double x1 = 0, x2 = 0, r2 = 0;
  do {
    x1 = 2.0 * random_sample() - 1.0;
    x2 = 2.0 * random_sample() - 1.0;
    r2 = x1 * x1 + x2 * x2;
  } while (r2 >= 1.0 || r2 == 0.0);
  const double f = std::sqrt(-2.0 * std::log(r2) / r2);
  gauss_ = f * x1;
  has_gauss_ = true;
  return f * x2;
}

NoiseRule NoiseRule::parse(std::string_view text) {
  NoiseRule rule;
  std::string_view number = text;
  if (text.starts_with('s')) {
    number = text == "s" ? "1" : text.substr(1);
  } else if (text.starts_with('u')) {
    rule = {Distribution::kUniform, 0, false};
    number = text.substr(1);
  } else {
    rule.of_subjects = false;
  }
  const auto scale = read_scale(number);
  if (!scale) {
    throw Error("noise rule " + in_quotes(text) +
                " is not understood; expected a standard deviation (0.1), s or s<k> (k times the standard "
                "deviation of the subjects' embeddings, such as s3), or u<x> (uniform in [-x, x])");
  }
  rule.scale = *scale;
  return rule;
}

std::vector<double> draw_noise(NoiseRule::Distribution distribution, double sigma, std::uint32_t seed,
                               std::int64_t samples, std::int64_t tokens, std::int64_t width) {
  RandomState random(seed);
  std::vector<double> noise(static_cast<std::size_t>(samples * tokens * width));
  for (auto& value : noise) {
    const bool gaussian = distribution == NoiseRule::Distribution::kGaussian;
    value = sigma * (gaussian ? random.randn() : random.uniform(-1, 1));
  }
  return noise;
}

}  // namespace rometrace
