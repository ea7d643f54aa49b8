#include "facts/csv_records.hpp"

#include <csv.h>

#include <algorithm>
#include <new>
#include <tuple>
#include <utility>

namespace rometrace {
namespace {

constexpr std::size_t kBlock = std::size_t{1} << 12U;  // bytes by which libcsv lets a cell grow

int is_never_space(unsigned char) {
  return 0;
}

/// libcsv for one row, so that a fault leaves nothing behind for the next.
class RowParser {
 public:
  RowParser(char separator, std::vector<std::string>& cells) : cells_(cells) {
    if (csv_init(&parser_, CSV_STRICT) != 0) throw std::bad_alloc();
    csv_set_delim(&parser_, static_cast<unsigned char>(separator));
    csv_set_space_func(&parser_, &is_never_space);
    csv_set_blk_size(&parser_, kBlock);
  }
  ~RowParser() { csv_free(&parser_); }
  RowParser(const RowParser&) = delete;
  RowParser& operator=(const RowParser&) = delete;

  /// Takes one line with its end; whether the quotes are where they may be.
  bool feed(std::string_view line) {
    if (csv_parse(&parser_, line.data(), line.size(), &RowParser::end_cell, &RowParser::end_row, this) == line.size()) {
      return true;
    }
    if (csv_error(&parser_) != CSV_EPARSE) throw std::bad_alloc();
    return false;
  }

  bool is_complete() const { return is_complete_; }

 private:
  // noexcept: an exception must not pass through C.
  static void end_cell(void* text, std::size_t length, void* self) noexcept {
    static_cast<RowParser*>(self)->cells_.emplace_back(static_cast<const char*>(text), length);
  }
  static void end_row(int, void* self) noexcept { static_cast<RowParser*>(self)->is_complete_ = true; }

  csv_parser parser_{};
  std::vector<std::string>& cells_;
  bool is_complete_ = false;
};

bool ends_line(char c) {
  return c == '\n' || c == '\r';
}

bool has_text(const CsvRow& row) {
  return !row.fault.empty() ||
         std::any_of(row.cells.begin(), row.cells.end(), [](const auto& c) { return !c.empty(); });
}

std::string quotes_fault(const CsvRow& row, const char* what) {
  return "cell " + std::to_string(row.cells.size() + 1) + what +
         "; a cell that holds a quote (\") needs quotes around it and each one inside doubled";
}

}  // namespace

std::string_view CsvReader::take_line() {
  std::size_t end = at_;
  while ((end = text_->text().find_first_of("\r\n", end)) == std::string_view::npos) {
    end = text_->text().size();
    if (!text_->more()) break;
  }
  const auto has = [&](std::size_t place) { return place < text_->text().size() || text_->more(); };
  if (has(end)) end += has(end + 1) && text_->text().substr(end, 2) == "\r\n" ? 2 : 1;
  const std::string_view line = text_->text().substr(at_, end - at_);
  at_ = end;
  ++line_;
  return line;
}

bool CsvReader::at_end() {
  return at_ == text_->text().size() && !text_->more();
}

CsvRow CsvReader::read_row() {
  CsvRow row;
  row.line = line_;
  RowParser parser(separator_, row.cells);
  std::string_view line = take_line();
  if (ends_line(line.front())) return row;  // libcsv would say nothing of an empty line
  const auto next_line = std::pair(at_, line_);
  for (;; line = take_line()) {
    if (!parser.feed(line)) {
      row.fault = quotes_fault(row, " has a quote where none may stand");
      break;
    }
    const bool is_open = !ends_line(line.back());
    if (!parser.is_complete() && is_open && at_end()) parser.feed("\n");
    if (parser.is_complete()) return row;
    if (at_end()) {
      row.fault = quotes_fault(row, " opens with a quote that is never closed");
      break;
    }
  }
  std::tie(at_, line_) = next_line;
  return row;
}

std::optional<CsvRow> CsvReader::next() {
  text_->drop(std::exchange(at_, 0));
  while (!at_end()) {
    CsvRow row = read_row();
    if (has_text(row)) return row;
  }
  return std::nullopt;
}

}  // namespace rometrace
