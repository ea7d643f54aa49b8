#pragma once

#include <c10/core/Device.h>

#include <stop_token>
#include <vector>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// Traces or probes the facts of `options.facts` and appends a line each to the results file, going on where an earlier
/// run of the same command stopped. The first stop finishes the sweep at hand. Returns the exit status. Throws Error.
int run_batch(const Options& options, const std::stop_token& stop);

/// The same on these devices, whatever `options.device` says: each takes facts as it is free. The lines are in the
/// order of the facts, and those of any other devices of the same kind, but for which one says that it ran a fact.
int run_batch_on(const std::vector<c10::Device>& devices, const Options& options, const std::stop_token& stop);

}  // namespace rometrace::cli
