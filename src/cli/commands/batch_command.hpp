#pragma once

#include <stop_token>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// Traces or probes the facts of `options.facts` and appends a line each to the results file, going on where an earlier
/// run of the same command stopped. The first stop finishes the sweep at hand. Returns the exit status. Throws Error.
int run_batch(const Options& options, const std::stop_token& stop);

}  // namespace rometrace::cli
