#pragma once

#include <optional>
#include <span>

#include "rometrace/error.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// Mean over noise draws and its standard error (n - 1 in the variance; NaN for a single draw).
struct MeanAndError {
  double mean = 0;
  double standard_error = 0;
};
MeanAndError mean_and_error(std::span<const double> draws);

/// What is wrong if the noise took one of these probabilities beyond numbers.
std::optional<Error> fault_of(std::span<const double> draws, const TraceOptions& options);

/// Throws that.
void check_finite(std::span<const double> draws, const TraceOptions& options);

}  // namespace rometrace
