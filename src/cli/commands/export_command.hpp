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
  std::optional<std::string> output;  ///< kCsv: file; none or "-": stdout. kNpz: folder
  bool force = false;                 ///< kNpz: case files that are there may be replaced
  bool quiet = false;
};

/// Reads the files record by record and writes them in a format of other tools. A table in a file is there complete or
/// not at all; on stdout, and in a folder of case files, stays what came before an error, each case file whole. Returns
/// the exit status. Throws Error, Interrupted where nothing was written.
int run_export(const ExportOptions& options, const std::stop_token& stop);

}  // namespace rometrace::cli
