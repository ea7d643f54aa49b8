#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/text_stream.hpp"

namespace rometrace {

/// One row of a CSV text.
struct CsvRow {
  std::int64_t line = 0;  ///< of the row's first character, from 1
  std::vector<std::string> cells;
  std::string fault;  ///< why the row cannot be read; empty if it can
};

/// Reads CSV row by row (RFC 4180, by libcsv): cells in double quotes may hold separators, line breaks and doubled
/// quotes; lines end in LF, CRLF or CR; white space belongs to the cell. Rows without any text are passed over.
class CsvReader {
 public:
  /// `text` must outlive the reader.
  CsvReader(TextStream& text, char separator) : text_(&text), separator_(separator) {}

  /// The next row; nothing after the last. After a row with a fault reading goes on in the line below its first. What
  /// was read before is dropped from the text, not the row itself: who reads one row only leaves the text as it was.
  std::optional<CsvRow> next();

 private:
  std::string_view take_line();
  bool at_end();
  CsvRow read_row();

  TextStream* text_;
  char separator_;
  std::size_t at_ = 0;  ///< of what the text has; a row is whole before it is dropped
  std::int64_t line_ = 1;
};

}  // namespace rometrace
