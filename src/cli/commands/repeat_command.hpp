#pragma once

#include <stop_token>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// `rometrace repeat`: traces the records of a file again and compares. Returns the exit status. Throws Error,
/// Interrupted.
int run_repeat(const RepeatOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
