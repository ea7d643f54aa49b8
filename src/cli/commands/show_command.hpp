#pragma once

#include <stop_token>
#include <string>
#include <vector>

namespace rometrace::cli {

/// The command line of `rometrace show`.
struct ShowOptions {
  std::string file;              ///< results or a summary of traces; "-" is standard input
  std::vector<std::string> ids;  ///< of facts; none: all, as a table
};

/// Writes to stdout what the terminal showed of the file: the maps of the records that are named or of the only one, a
/// table of several, the tables of a summary. Returns the exit status (0). Throws Error, among others for an id that no
/// record has; Interrupted.
int run_show(const ShowOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
