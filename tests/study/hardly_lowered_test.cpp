#include "rometrace/study/hardly_lowered.hpp"

#include <doctest/doctest.h>

#include <limits>

namespace rometrace::hardly_lowered_test {

TEST_CASE("an answer hardly falls by less than a twentieth, by less than two standard errors, or not at all") {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(hardly_lowered(0.5, 0.25, 0.125));
  CHECK(hardly_lowered(0.5, 0.25, 0.126));
  CHECK_FALSE(hardly_lowered(0.5, 0.25, kNan));  // a single draw
  CHECK(hardly_lowered(1, 0.96, 0));
  CHECK_FALSE(hardly_lowered(1, 0.94, 0));
  CHECK(hardly_lowered(0.5, 0.5, 0));
  CHECK(hardly_lowered(0.5, 0.75, 0));
  CHECK(hardly_lowered(0, 0, 0));
  CHECK(hardly_lowered(kNan, 0.5, 0));
  CHECK(hardly_lowered(0.5, kNan, 0));
}

}  // namespace rometrace::hardly_lowered_test
