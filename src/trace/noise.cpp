#include "rometrace/trace/noise.hpp"

#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>

#include <array>
#include <cassert>
#include <charconv>
#include <cmath>
#include <optional>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/trace/embedding_moments.hpp"

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

// Standard normal rows g become g * root + mean. Draw by draw, so that a draw is the same whichever it comes with.
void shape_by_moments(const NoiseDraws& asked, std::vector<double>& noise) {
  assert(asked.moments != nullptr && asked.moments->root.size(0) == asked.width);
  const auto rows = at::from_blob(noise.data(), {asked.draws, asked.tokens, asked.width}, at::kDouble);
  for (std::int64_t n = 0; n < asked.draws; ++n) {
    rows[n].copy_(at::addmm(asked.moments->mean, rows[n], asked.moments->root));
  }
}

// Each token's row gets a factor of its own.
void scale_as_student(const NoiseDraws& asked, std::vector<double>& noise) {
  constexpr std::uint32_t kSeed = 2;  // the reference's, whatever the seed of the normal rows
  const double df = asked.degrees_of_freedom;
  assert(df > 2);
  RandomState random(kSeed);
  for (std::int64_t row = 0; row < asked.first_draw * asked.tokens; ++row) random.chisquare(df);
  for (auto value = noise.begin(); value != noise.end();) {
    const double factor = std::sqrt((df - 2) / random.chisquare(df));
    for (std::int64_t i = 0; i < asked.width; ++i) *value++ *= factor;
  }
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

double RandomState::chisquare(double df) {
  return 2.0 * standard_gamma(df / 2.0);
}

double RandomState::standard_exponential() {
  return -std::log(1.0 - random_sample());
}

double RandomState::standard_gamma(double shape) {
  if (shape == 1.0) return standard_exponential();
  if (shape < 1.0) {  // Ahrens and Dieter
    for (;;) {
      const double u = random_sample();
      const double v = standard_exponential();
      if (u <= 1.0 - shape) {
        const double x = std::pow(u, 1.0 / shape);
        if (x <= v) return x;
      } else {
        const double y = -std::log((1.0 - u) / shape);
        const double x = std::pow(1.0 - shape + shape * y, 1.0 / shape);
        if (x <= v + y) return x;
      }
    }
  }
  const double b = shape - 1.0 / 3.0;  // Marsaglia and Tsang
  const double c = 1.0 / std::sqrt(9.0 * b);
  for (;;) {
    double x = 0, v = 0;
    do {
      x = randn();
      v = 1.0 + c * x;
    } while (v <= 0.0);
    v = v * v * v;
    const double u = random_sample();
    const bool within_the_squeeze = u < 1.0 - 0.0331 * (x * x) * (x * x);
    if (within_the_squeeze || std::log(u) < 0.5 * x * x + b * (1.0 - v + std::log(v))) return b * v;
  }
}

NoiseRule NoiseRule::parse(std::string_view text) {
  NoiseRule rule;
  std::string_view number = text;
  if (text.starts_with('s')) {
    number = text == "s" ? "1" : text.substr(1);
  } else if (text.starts_with('u')) {
    rule = {Distribution::kUniform, 0, false};
    number = text.substr(1);
  } else if (text == "m") {
    return {Distribution::kMultivariate, 1, false};
  } else if (text.starts_with('t')) {
    const auto df = read_scale(text.substr(1));
    if (df && *df > 2) return {Distribution::kStudent, 1, false, *df};
    number = "";
  } else {
    rule.of_subjects = false;
  }
  const auto scale = read_scale(number);
  if (!scale) {
    throw Error("noise rule " + in_quotes(text) +
                " is not understood; expected a standard deviation (0.1), s or s<k> (k times the standard "
                "deviation of the subjects' embeddings, such as s3), u<x> (uniform in [-x, x]), m (Gaussian with the "
                "mean and covariance of a text's embeddings), or t<df> (the same as Student's t with df > 2 degrees of "
                "freedom, such as t5)");
  }
  rule.scale = *scale;
  return rule;
}

std::string to_string(const NoiseRule& rule) {
  using Distribution = NoiseRule::Distribution;
  const auto text_of = [](double number) {
    std::array<char, 32> digits{};
    const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), number);
    assert(error == std::errc());
    return std::string(digits.data(), end);
  };
  switch (rule.distribution) {
    case Distribution::kGaussian:
      return (rule.of_subjects ? "s" : "") + text_of(rule.scale);
    case Distribution::kUniform:
      return "u" + text_of(rule.scale);
    case Distribution::kMultivariate:
      return "m";
    case Distribution::kStudent:
      return "t" + text_of(rule.degrees_of_freedom);
  }
  return "";
}

std::string in_one_spelling(const std::string& text) {
  try {
    return to_string(NoiseRule::parse(text));
  } catch (const Error&) {
    return text;
  }
}

std::vector<double> draw_noise(const NoiseDraws& asked) {
  using Distribution = NoiseRule::Distribution;
  RandomState random(asked.seed);
  const bool uniform = asked.distribution == Distribution::kUniform;
  const bool shaped = asked.distribution == Distribution::kMultivariate || asked.distribution == Distribution::kStudent;
  const double scale = shaped ? 1 : asked.sigma;
  const auto next = [&] { return uniform ? random.uniform(-1, 1) : random.randn(); };
  const auto size_of_draw = asked.tokens * asked.width;
  for (std::int64_t i = 0; i < asked.first_draw * size_of_draw; ++i) next();
  std::vector<double> noise(static_cast<std::size_t>(asked.draws * size_of_draw));
  for (auto& value : noise) value = scale * next();
  if (shaped) shape_by_moments(asked, noise);
  if (asked.distribution == Distribution::kStudent) scale_as_student(asked, noise);
  return noise;
}

}  // namespace rometrace
