#pragma once

#include <stop_token>

namespace rometrace::cli {

/// The command line of `rometrace families`, which has no options.
struct FamiliesOptions {};

/// Writes the families whose models can be traced to stdout. Returns the exit status. Throws Error, Interrupted.
int run_families(const FamiliesOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
