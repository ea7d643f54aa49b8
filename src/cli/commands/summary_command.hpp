#pragma once

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace rometrace::cli {

/// The command line of `rometrace summary`.
struct SummaryOptions {
  std::vector<std::string> files;  ///< results files; "-" is standard input
  bool by_relation = false;
  std::int64_t bootstrap = 1000;  ///< replicates, 0 for none
  std::uint32_t seed = 1;         ///< of the bootstrap
  bool bootstrap_given = false, seed_given = false;
  std::optional<std::string> output;  ///< file; none or "-": stdout
  bool json = false;
  bool quiet = false;
};

/// Reads the files and writes their averages: JSON to -o's file, and to stdout if that is asked for or is no terminal;
/// else a text for people. Returns the exit status (0). Throws Error, Interrupted.
int run_summary(const SummaryOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
