#include "rometrace/text/json_line.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "checks.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {

namespace {

using std::string_literals::operator""s;

TEST_CASE("every number reads back as the same double") {
  const double values[] = {0.1,    1.0 / 3,  0.004232730238558463,    5e-324, -0.0, 1.7976931348623157e308,
                           1e-300, 0.97638f, std::nextafter(1.0, 0.0)};
  for (const double value : values) {
    const auto line = to_line(nlohmann::ordered_json(value));
    CAPTURE(line);
    const auto back = nlohmann::json::parse(line).get<double>();
    CHECK(back == value);
    CHECK(std::signbit(back) == std::signbit(value));
  }
}

TEST_CASE("whatever bytes go in, one line of UTF-8 comes out") {
  const std::string hostile = "\0\n\r\x1b\x7f\"\\\xED\xA0\x80\xFF\xE2\x80\xA8"s;
  const auto line = to_line({{"text", hostile}, {hostile, nullptr}});
  CHECK_FALSE(find_invalid_utf8(line));
  CHECK(line.find_first_of("\n\r\x1b") == std::string::npos);
  CHECK(nlohmann::json::parse(line)["text"] == to_valid_utf8(hostile));
  CHECK(nlohmann::json::parse(line)[to_valid_utf8(hostile)] == nullptr);
}

TEST_CASE("what Python's splitlines takes for the end of a line is escaped, and nothing else") {
  const std::string text = "a\u0085b\u2028c\u2029d\u2027\u00855é";
  const auto line = to_line({{text, text}, {"number", 0.1}});
  CHECK(line == R"({"a\u0085b\u2028c\u2029d‧\u00855é":"a\u0085b\u2028c\u2029d‧\u00855é","number":0.1})");
  CHECK(nlohmann::json::parse(line)[text] == text);
  CHECK(escape_line_ends("[\"\\\\\u2028\"]") == R"(["\\\u2028"])");  // behind a backslash that is escaped itself
}

TEST_CASE("members keep their order") {
  CHECK(to_line({{"b", 1}, {"a", {1.5, true}}}) == R"({"b":1,"a":[1.5,true]})");
}

}  // namespace

}  // namespace rometrace
