#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
  CsvReader(std::string_view text, char separator) : text_(text), separator_(separator) {}

  /// The next row; nothing after the last. After a row with a fault reading goes on in the line below its first.
  std::optional<CsvRow> next();

 private:
  std::string_view take_line();
  CsvRow read_row();

  std::string_view text_;
  char separator_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
};

}  // namespace rometrace
