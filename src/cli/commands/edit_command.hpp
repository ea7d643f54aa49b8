#pragma once

#include <stop_token>

#include "cli/options/options.hpp"

namespace rometrace::cli {

/// `rometrace edit`: one fact, or all of --facts together, into an edit file; each of --facts by itself into a results
/// file; or what --show and --write do with edit files. Returns the exit status. Throws Error, Interrupted.
int run_edit(const EditOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
