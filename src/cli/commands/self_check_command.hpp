#pragma once

#include <stop_token>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// Checks the laws, and published numbers, on the model of the options; a line each on stdout. Returns the exit status:
/// kDone where all hold. Throws Error, Interrupted.
int run_self_check(const Options& options, const std::stop_token& stop);

}  // namespace rometrace::cli
