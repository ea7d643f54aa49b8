#pragma once

#include <stop_token>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// Traces the facts with noise of each factor and writes what becomes of their answers, and the factor that is
/// recommended. Returns the exit status. Throws Error (no fact could be traced, ...), Interrupted.
int run_calibrate(const CalibrateOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
