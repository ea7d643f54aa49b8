#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "rometrace/report/csv_table.hpp"

namespace rometrace::cli {

/// The command line of `rometrace export`.
struct ExportOptions {
  enum class Format { kCsv, kNpz };

  std::vector<std::string> files;  ///< results files; "-" is standard input
  Format format = Format::kCsv;
  TableOf what = TableOf::kCells;     ///< of kCsv
  std::optional<std::string> output;  ///< kCsv: file; none or "-": stdout
  bool quiet = false;
};

/// Reads the files record by record and writes them in a format of other tools. What is in the output file is all of
/// it; on stdout it is what came before an error. Returns the exit status (0). Throws Error, Interrupted.
int run_export(const ExportOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
