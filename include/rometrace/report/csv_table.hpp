#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "rometrace/report/json.hpp"

namespace rometrace {

/// What a line of a table is.
enum class TableOf {
  kCells,    ///< one cell of a grid, as one reading has it
  kNeurons,  ///< one neuron that was run alone, likewise
  kSets,     ///< neurons that were patched together, likewise
};
std::string_view to_string(TableOf what);  ///< "cells", "neurons", "sets"

/// Traces as a long table in CSV (RFC 4180, UTF-8, lines end in "\n"), for pandas and R; docs/formats.md documents the
/// columns. A cell is between quotes only where it holds a comma, a quote, a line end or a space at an end; a number
/// has the digits that read back as the same double; what does not exist is empty. Bytes that are no UTF-8 are U+FFFD.
class CsvTable {
 public:
  using Write = std::function<void(std::string_view)>;

  /// `write` gets the table in pieces of some kilobytes, the names of the columns first.
  CsvTable(TableOf what, Write write);

  /// Adds the lines of a record: of one that was skipped or failed, or has nothing of the kind, none. Of both
  /// directions there are the lines of each, then those of their interactions, which have no score. `file` and `line`:
  /// where it stands.
  void add(const TraceRecord& record, const std::string& file, std::int64_t line);

  /// Writes what is left. To be called once, at the end.
  void finish();

  std::int64_t lines() const { return lines_; }  ///< so far, without the names

 private:
  void add_cells(const TraceRecord& record, const std::string& place);
  void add_interactions(const TraceRecord& record, const std::string& place);
  void add_neurons(const TraceRecord& record, const std::string& place);
  void add_sets(const TraceRecord& record, const std::string& place);
  void end_line();

  TableOf what_;
  Write write_;
  std::string text_;
  std::int64_t lines_ = 0;
};

}  // namespace rometrace
