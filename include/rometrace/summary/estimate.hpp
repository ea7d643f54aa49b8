#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "rometrace/summary/cluster_means.hpp"

namespace rometrace {

/// A mean over facts. What too few facts leave open is missing: the mean without a fact, the rest with less than two.
struct Estimate {
  std::int64_t facts = 0;
  std::optional<double> mean;
  std::optional<double> standard_error;
  std::optional<Bounds> normal;     ///< 95 %
  std::optional<Bounds> bootstrap;  ///< 95 %
};

/// Errors and 95 % intervals of a list of means; empty with less than two facts.
struct ErrorBars {
  std::vector<double> standard_error, normal_low, normal_high, bootstrap_low, bootstrap_high;
};

}  // namespace rometrace
