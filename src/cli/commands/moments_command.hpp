#pragma once

#include <stop_token>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// Collects second moments, or takes them from the cache, and writes them to the file that is asked for; stdout gets
/// what they are. Returns the exit status. Throws Error, Interrupted.
int run_moments(const MomentsOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
