#pragma once

#include <ATen/TensorOperators.h>

#include <cmath>
#include <cstddef>
#include <string>

#include "checks.hpp"

namespace rometrace::testing {

/// Over all elements of two tensors of the same sizes, in float64.
inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  REQUIRE(a.sizes().equals(b.sizes()));
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

/// |found - expected| <= relative * |expected| + absolute.
struct Tolerance {
  double relative;
  double absolute;
};

/// The largest excess over the tolerance among many comparisons, and where it was; one check for all of them.
class Closeness {
 public:
  explicit Closeness(Tolerance tolerance) : tolerance_(tolerance) {}

  void compare(const std::string& where, double found, double expected) {
    ++compared_;
    if (std::isnan(found) && std::isnan(expected)) return;
    const double difference = std::abs(found - expected);
    const double excess = difference / (tolerance_.relative * std::abs(expected) + tolerance_.absolute);
    if (!(excess <= worst_excess_)) {
      worst_excess_ = std::isnan(excess) ? HUGE_VAL : excess;
      worst_ = where + ": found " + std::to_string(found) + ", expected " + std::to_string(expected) + ", difference " +
               std::to_string(difference / 1e-9) + "e-9";
    }
  }

  /// Fails the test case unless there was something to compare and all of it was close.
  void check() const {
    CHECK(compared_ > 0);
    CHECK_MESSAGE(worst_excess_ <= 1, worst_ << ", which is " << worst_excess_ << " times the tolerance");
  }

 private:
  Tolerance tolerance_;
  std::size_t compared_ = 0;
  double worst_excess_ = 0;
  std::string worst_;
};

}  // namespace rometrace::testing
