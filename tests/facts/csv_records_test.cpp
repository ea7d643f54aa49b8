#include "facts/csv_records.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "text_streams.hpp"

namespace rometrace::csv_records_test {
namespace {

using testing::Contains;

std::vector<CsvRow> rows_of(std::string_view text, char separator = ',') {
  std::vector<CsvRow> rows;
  if (text.empty()) return rows;
  auto stream = testing::stream_of(text, text.size() % 7 + 1);
  CsvReader reader(stream, separator);
  while (auto row = reader.next()) rows.push_back(std::move(*row));
  return rows;
}

using Cells = std::vector<std::string>;

TEST_CASE("cells are what stands between separators, white space included") {
  for (const char separator : {',', ';', '\t'}) {
    CAPTURE(separator);
    std::string text = "a| b |\n||c";
    for (char& c : text) c = c == '|' ? separator : c;
    const auto rows = rows_of(text, separator);
    REQUIRE(rows.size() == 2);
    CHECK(rows[0].cells == Cells{"a", " b ", ""});
    CHECK(rows[1].cells == Cells{"", "", "c"});
  }
}

TEST_CASE("quoted cells hold separators and line breaks and doubled quotes") {
  const auto rows = rows_of("\"a,b\",\"say \"\"yes\"\"\",\"two\r\nlines\nof\rtext\"\nnext,\"\",\"  x \"\n");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].cells == Cells{"a,b", "say \"yes\"", "two\r\nlines\nof\rtext"});
  CHECK(rows[0].line == 1);
  CHECK(rows[1].cells == Cells{"next", "", "  x "});
  CHECK(rows[1].line == 5);
}

TEST_CASE("lines end in LF or CRLF or CR and the last needs no end") {
  for (const std::string end : {"\n", "\r\n", "\r"}) {
    CAPTURE(end);
    const auto rows = rows_of("a,b" + end + end + "c,d" + end + "\"e\",f");
    REQUIRE(rows.size() == 3);
    CHECK(rows[1].cells == Cells{"c", "d"});
    CHECK(rows[1].line == 3);
    CHECK(rows[2].cells == Cells{"e", "f"});
    CHECK(rows[2].line == 4);
  }
}

TEST_CASE("rows without any text are passed over") {
  const auto rows = rows_of("\n,,\na\n\r\n\"\"\nb");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].line == 3);
  CHECK(rows[1].line == 6);
  CHECK(rows_of("").empty());
  CHECK(rows_of("\n\n").empty());
}

TEST_CASE("a row with quotes in the wrong place does not take the next one with it") {
  for (const char* bad : {"x,a \"b\"", "x,\"a\" b", "x,\"a\"b\"", "x,\"a", "\"x,a"}) {
    CAPTURE(bad);
    const auto rows = rows_of("a,b\n" + std::string(bad) + "\nc,d\ne,\"f,\ng\"\nlast,row");
    REQUIRE(rows.size() == 5);
    CHECK(rows[1].fault == Contains("quote"));
    CHECK(rows[1].line == 2);
    CHECK(rows[2].cells == Cells{"c", "d"});
    CHECK(rows[3].cells == Cells{"e", "f,\ng"});
    CHECK(rows[4].line == 6);
  }
}

TEST_CASE("a quote that is never closed is told by its line and cell") {
  const auto rows = rows_of("a\n1,2,\"x\n3\n");
  REQUIRE(rows.size() == 3);
  CHECK(rows[1].fault == Contains("cell 3 opens with a quote that is never closed"));
  CHECK(rows[2].cells == Cells{"3"});
}

TEST_CASE("many faulty rows and huge cells take time in proportion to their size") {
  std::string text;
  for (int i = 0; i < 50'000; ++i) text += "a,\"b\n";
  CHECK(rows_of(text).size() == 50'000);
  const std::string huge(std::size_t{1} << 24U, 'x');
  const auto rows = rows_of("\"" + huge + "\"," + huge);
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].cells[0].size() == huge.size());
  CHECK(rows[0].cells[1].size() == huge.size());
}

TEST_CASE("zero bytes and bytes that are not UTF-8 stay in their cells") {
  const auto rows = rows_of(std::string_view("a\0b,\xFF\n", 6));
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].cells == Cells{std::string("a\0b", 3), "\xFF"});
}

}  // namespace
}  // namespace rometrace::csv_records_test
