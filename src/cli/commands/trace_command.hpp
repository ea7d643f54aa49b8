#pragma once

#include <stop_token>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// Traces the prompt of the options and writes the result. Returns the exit status. Throws Error, Interrupted.
int run_trace(const Options& options, const std::stop_token& stop);

}  // namespace rometrace::cli
