#pragma once

#include <stop_token>
#include <string>
#include <vector>

namespace rometrace::cli {

/// The command line of `rometrace fetch`.
struct FetchModelsOptions {
  std::vector<std::string> models;
  std::string revision = "main";
  bool quiet = false;
};

/// Fetches each model in turn and writes its folder to stdout, a line each. Returns the exit status. Throws Error,
/// Interrupted.
int run_fetch(const FetchModelsOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
