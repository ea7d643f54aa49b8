#pragma once

#include <stop_token>

namespace rometrace::cli {

/// The command line of `rometrace models`.
struct ModelsOptions {
  bool json = false;
};

/// Writes what is in the cache to stdout, as a table or as JSON; where it is empty, the table is a line on stderr.
/// Returns the exit status. Throws Error, Interrupted.
int run_models(const ModelsOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
