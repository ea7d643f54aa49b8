#include "rometrace/trace/noise.hpp"

#include <bit>
#include <filesystem>

#include "checks.hpp"
#include "golden_models.hpp"
#include "rometrace/error.hpp"

namespace rometrace {
namespace {

TEST_CASE("RandomState is NumPy's to the last bit") {
  const auto golden =
      testing::read_golden(std::filesystem::path(ROMETRACE_SOURCE_DIR) / "tests/goldens/randomstate.json");
  for (const auto& stream : golden.at("streams")) {
    const std::string kind = stream.at("kind");
    RandomState random(stream.at("seed").get<std::uint32_t>());
    CAPTURE(kind);
    CAPTURE(stream.at("seed").get<std::uint32_t>());
    const auto& first = stream.at("first_bits");
    std::uint64_t checksum = 0;
    const std::uint64_t count = stream.at("count");
    for (std::uint64_t i = 0; i < count; ++i) {
      const double value = kind == "randn"     ? random.randn()
                           : kind == "uniform" ? random.uniform(-1, 1)
                                               : random.random_sample();
      const auto bits = std::bit_cast<std::uint64_t>(value);
      if (i < first.size()) CHECK(bits == first[i].get<std::uint64_t>());
      checksum += (2 * i + 1) * bits;
    }
    CHECK(checksum == stream.at("checksum").get<std::uint64_t>());
  }
}

TEST_CASE("noise is drawn in C order from a generator made anew, and scaled") {
  const auto noise = draw_noise(NoiseRule::Distribution::kGaussian, 0.5, 7, 2, 3, 4);
  RandomState random(7);
  REQUIRE(noise.size() == 24);
  for (const double value : noise) CHECK(value == 0.5 * random.randn());
  CHECK(draw_noise(NoiseRule::Distribution::kGaussian, 0.5, 7, 2, 3, 4) == noise);
  for (const double value : draw_noise(NoiseRule::Distribution::kUniform, 0.5, 7, 2, 3, 4)) {
    CHECK(std::abs(value) <= 0.5);
  }
}

TEST_CASE("noise rules are read as the reference writes them") {
  const auto check = [](const char* text, NoiseRule::Distribution distribution, double scale, bool of_subjects) {
    CAPTURE(text);
    const auto rule = NoiseRule::parse(text);
    CHECK(rule.distribution == distribution);
    CHECK(rule.scale == scale);
    CHECK(rule.of_subjects == of_subjects);
  };
  check("s3", NoiseRule::Distribution::kGaussian, 3, true);
  check("s", NoiseRule::Distribution::kGaussian, 1, true);
  check("s0.5", NoiseRule::Distribution::kGaussian, 0.5, true);
  check("0.13", NoiseRule::Distribution::kGaussian, 0.13, false);
  check("0", NoiseRule::Distribution::kGaussian, 0, false);
  check("u0.5", NoiseRule::Distribution::kUniform, 0.5, false);
  for (const char* text : {"", "x", "u", "s-1", "-0.1", "3s", "s3 ", "nan", "inf", "u1e999", "m", "t3", "0x1"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(NoiseRule::parse(text), Error);
  }
}

}  // namespace
}  // namespace rometrace
