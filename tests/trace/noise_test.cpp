#include "rometrace/trace/noise.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/tensor.h>

#include <bit>
#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "golden_models.hpp"
#include "rometrace/error.hpp"
#include "rometrace/trace/embedding_moments.hpp"

namespace rometrace::noise_test {
namespace {

using testing::Contains;

TEST_CASE("RandomState is NumPy's to the last bit") {
  const auto golden =
      testing::read_golden(std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens/randomstate.json");
  for (const auto& stream : golden.at("streams")) {
    const std::string kind = stream.at("kind");
    RandomState random(stream.at("seed").get<std::uint32_t>());
    const double df = kind.starts_with("chisquare:") ? std::stod(kind.substr(kind.find(':') + 1)) : 0;
    CAPTURE(kind);
    CAPTURE(stream.at("seed").get<std::uint32_t>());
    const auto& first = stream.at("first_bits");
    std::uint64_t checksum = 0;
    const std::uint64_t count = stream.at("count");
    for (std::uint64_t i = 0; i < count; ++i) {
      const double value = kind == "randn"     ? random.randn()
                           : kind == "uniform" ? random.uniform(-1, 1)
                           : df > 0            ? random.chisquare(df)
                                               : random.random_sample();
      const auto bits = std::bit_cast<std::uint64_t>(value);
      if (i < first.size()) CHECK(bits == first[i].get<std::uint64_t>());
      checksum += (2 * i + 1) * bits;
    }
    CHECK(checksum == stream.at("checksum").get<std::uint64_t>());
  }
}

using Distribution = NoiseRule::Distribution;

/// Mean and a symmetric root of width 3, with one direction that has no variance.
EmbeddingMoments small_moments() {
  EmbeddingMoments moments;
  moments.mean = at::tensor({0.5, -1.0, 2.0}, at::kDouble);
  moments.root = at::tensor({2.0, -0.5, 0.0, -0.5, 1.0, 0.0, 0.0, 0.0, 0.0}, at::kDouble).view({3, 3});
  moments.tokens = 100;
  return moments;
}

NoiseDraws of_distribution(Distribution distribution, const EmbeddingMoments& moments) {
  NoiseDraws asked;
  asked.distribution = distribution;
  asked.sigma = 0.5;
  asked.degrees_of_freedom = 5;
  asked.moments = &moments;
  asked.seed = 7;
  asked.draws = 2;
  asked.tokens = 3;
  asked.width = 3;
  return asked;
}

constexpr auto kDistributions = {Distribution::kGaussian, Distribution::kUniform, Distribution::kMultivariate,
                                 Distribution::kStudent};

TEST_CASE("noise is drawn in C order from a generator made anew, and scaled") {
  const auto moments = small_moments();
  auto asked = of_distribution(Distribution::kGaussian, moments);
  asked.width = 4;
  const auto noise = draw_noise(asked);
  RandomState random(7);
  REQUIRE(noise.size() == 24);
  for (const double value : noise) CHECK(value == 0.5 * random.randn());
  CHECK(draw_noise(asked) == noise);
  asked.distribution = Distribution::kUniform;
  RandomState uniform(7);
  for (const double value : draw_noise(asked)) CHECK(value == 0.5 * uniform.uniform(-1, 1));
}

TEST_CASE("multivariate noise is each token's normal row times the root, plus the mean; Student's is that, scaled") {
  const auto moments = small_moments();
  const auto multivariate = draw_noise(of_distribution(Distribution::kMultivariate, moments));
  const auto student = draw_noise(of_distribution(Distribution::kStudent, moments));
  REQUIRE(multivariate.size() == 18);
  REQUIRE(student.size() == 18);
  const auto mean = moments.mean.accessor<double, 1>();
  const auto root = moments.root.accessor<double, 2>();
  RandomState normal(7), chisquare(2);  // the second seed does not follow the first
  for (std::size_t row = 0; row < 6; ++row) {
    const double g[] = {normal.randn(), normal.randn(), normal.randn()};
    const double factor = std::sqrt((5 - 2) / chisquare.chisquare(5));
    for (int j = 0; j < 3; ++j) {
      const double expected = g[0] * root[0][j] + g[1] * root[1][j] + g[2] * root[2][j] + mean[j];
      CAPTURE(row);
      CAPTURE(j);
      CHECK(multivariate[3 * row + static_cast<std::size_t>(j)] == doctest::Approx(expected).epsilon(1e-14));
      CHECK(student[3 * row + static_cast<std::size_t>(j)] == doctest::Approx(factor * expected).epsilon(1e-14));
    }
  }
}

TEST_CASE("later draws go on where the earlier ones ended") {
  const auto moments = small_moments();
  for (const auto distribution : kDistributions) {
    CAPTURE(static_cast<int>(distribution));
    auto asked = of_distribution(distribution, moments);
    asked.draws = 7;
    const auto whole = draw_noise(asked);
    std::vector<double> parts;
    for (const auto& [first, count] : {std::pair{0, 1}, {1, 3}, {4, 0}, {4, 3}}) {  // a draw is 9 values, an odd number
      asked.first_draw = first;
      asked.draws = count;
      const auto part = draw_noise(asked);
      CHECK(part.size() == static_cast<std::size_t>(9 * count));
      parts.insert(parts.end(), part.begin(), part.end());
    }
    CHECK(parts == whole);
  }
}

// The standard error of each estimate is about 2 / sqrt(draws); Student's fourth moments are larger.
TEST_CASE("many draws have the text's mean and covariance, whether Gaussian or Student") {
  const auto moments = small_moments();
  const auto covariance = at::matmul(moments.root, moments.root);
  for (const auto distribution : {Distribution::kMultivariate, Distribution::kStudent}) {
    CAPTURE(static_cast<int>(distribution));
    auto asked = of_distribution(distribution, moments);
    asked.degrees_of_freedom = 12;
    asked.draws = 100'000;
    asked.tokens = 2;
    auto noise = draw_noise(asked);
    const auto rows = at::from_blob(noise.data(), {200'000, 3}, at::kDouble);
    const auto student = distribution == Distribution::kStudent;
    // Student scales the mean too, as the reference does: by the mean of sqrt((df - 2) / u).
    const double factor = student ? std::sqrt((12.0 - 2) / 2) * std::exp(std::lgamma(5.5) - std::lgamma(6.0)) : 1;
    CHECK((rows.mean(0) - factor * moments.mean).abs().max().item<double>() < 0.03);
    const auto second = at::matmul(rows.t(), rows) / 200'000;  // E[(df - 2) / u] = 1
    const auto expected = covariance + at::outer(moments.mean, moments.mean);
    CHECK((second - expected).abs().max().item<double>() < 0.08);
  }
}

TEST_CASE("noise rules are read as the reference writes them") {
  const auto check = [](const char* text, NoiseRule::Distribution distribution, double scale, bool of_subjects,
                        double degrees_of_freedom = 0) {
    CAPTURE(text);
    const auto rule = NoiseRule::parse(text);
    CHECK(rule.distribution == distribution);
    CHECK(rule.scale == scale);
    CHECK(rule.of_subjects == of_subjects);
    CHECK(rule.degrees_of_freedom == degrees_of_freedom);
  };
  check("s3", NoiseRule::Distribution::kGaussian, 3, true);
  check("s", NoiseRule::Distribution::kGaussian, 1, true);
  check("s0.5", NoiseRule::Distribution::kGaussian, 0.5, true);
  check("0.13", NoiseRule::Distribution::kGaussian, 0.13, false);
  check("0", NoiseRule::Distribution::kGaussian, 0, false);
  check("u0.5", NoiseRule::Distribution::kUniform, 0.5, false);
  check("m", NoiseRule::Distribution::kMultivariate, 1, false);
  check("t3", NoiseRule::Distribution::kStudent, 1, false, 3);
  check("t2.5", NoiseRule::Distribution::kStudent, 1, false, 2.5);
  for (const char* text : {"",   "x", "u", "s-1", "-0.1", "3s", "s3 ",  "nan",  "inf", "u1e999", "0x1",
                           "m1", "M", "t", "t2",  "t-3",  "t0", "tnan", "tinf", "t5 ", "5t"}) {
    CAPTURE(text);
    const auto message = testing::message_of<Error>([&] { NoiseRule::parse(text); });
    CHECK(message == Contains("noise rule \"" + std::string(text) + "\" is not understood"));
    CHECK(message == Contains("m (Gaussian with the mean and covariance of a text's embeddings), or t<df>"));
  }
}

TEST_CASE("a noise rule has one spelling, which is read as the same rule") {
  const auto check = [](const char* text, const char* spelling) {
    CAPTURE(text);
    CHECK(in_one_spelling(text) == spelling);
    const auto rule = NoiseRule::parse(text), again = NoiseRule::parse(spelling);
    CHECK(again.distribution == rule.distribution);
    CHECK(again.scale == rule.scale);
    CHECK(again.of_subjects == rule.of_subjects);
    CHECK(again.degrees_of_freedom == rule.degrees_of_freedom);
    CHECK(to_string(again) == spelling);
  };
  for (const char* text : {"s3", "s3.0", "s3.", "s03", "s30e-1"}) check(text, "s3");
  check("s", "s1");
  check("s0.10", "s0.1");
  check("0.130", "0.13");
  check("1e-2", "0.01");
  check("0", "0");
  check("u0.50", "u0.5");
  check("m", "m");
  check("t2.50", "t2.5");
  CHECK(in_one_spelling("what a later version knows") == "what a later version knows");
}

}  // namespace
}  // namespace rometrace::noise_test
