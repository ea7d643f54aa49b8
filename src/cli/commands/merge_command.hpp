#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "rometrace/results/merge.hpp"

namespace rometrace::cli {

/// The command line of `rometrace merge`.
struct MergeOptions {
  std::vector<std::filesystem::path> files;
  std::optional<std::string> output;  ///< file; none or "-": stdout
  MergeRules rules;
};

/// Merges the files into the output, which is there complete or not at all (on stdout: up to the error), and says on
/// stderr what is missing or was left out. Returns the exit status, 0. Throws Error as merge_results() and OutputFile
/// do, and if the output is one of the files; Interrupted.
int run_merge(const MergeOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
