#include "report/display_text.hpp"

#include <vector>

#include "checks.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace::display_text_test {

namespace {

const DisplayStyle kAscii{.unicode = false};
const DisplayStyle kQuoted{.quoted = true};
const DisplayStyle kVisible{.visible_spaces = true};

}  // namespace

TEST_CASE("plain text is shown as it is") {
  CHECK(display(" Davis_\"x\"").text == " Davis_\"x\"");
  CHECK(display("caf\xC3\xA9").text == "caf\xC3\xA9");
  CHECK(display("").columns == 0);
}

TEST_CASE("control characters, invalid bytes and unseen characters are escaped") {
  CHECK(display("\n\t\r\\").text == "\\n\\t\\r\\\\");
  CHECK(display(std::string_view("\0\x1b\x7f", 3)).text == "\\x00\\x1B\\x7F");
  CHECK(display("\xE2\x80").text == "\\xE2\\x80");
  CHECK(display("a\xFFz").text == "a\\xFFz");
  CHECK(display("\xC2\x9B").text == "\\u{9b}");        // CSI as one character
  CHECK(display("\xE2\x80\xAE").text == "\\u{202e}");  // right-to-left override
  CHECK(display("\xE2\x80\x8B").text == "\\u{200b}");  // zero-width space
  CHECK(display("\xC2\xA0").text == "\\u{a0}");        // no-break space
  CHECK(display("\xEF\xBF\xBF").text == "\\u{ffff}");
  CHECK(display("\xF0\x9F\x8F\xBD").text == "\\u{1f3fd}");  // skin tone
}

TEST_CASE("quotes inside quotes and dots among visible spaces are told apart") {
  CHECK(display(" say \"x\"", kQuoted).text == "\" say \\\"x\\\"\"");
  CHECK(display(" a b", kVisible).text == "·a·b");
  CHECK(display("·", kVisible).text == "\\u{b7}");
  CHECK(display(" a_", {.unicode = false, .visible_spaces = true}).text == "_a\\_");
}

TEST_CASE("without Unicode everything is ASCII") {
  CHECK(display("caf\xC3\xA9 \xE6\x97\xA5", kAscii).text == "caf\\u{e9} \\u{65e5}");
}

TEST_CASE("columns are those of a terminal") {
  CHECK(display("\xE6\x97\xA5\xE6\x9C\xAC").columns == 4);              // CJK
  CHECK(display("\xF0\x9F\x8E\xBA").columns == 2);                      // trumpet
  CHECK(display("e\xCC\x81").columns == 1);                             // e and an acute accent
  CHECK(display("\xCC\x81").text == "\\u{301}");                        // an accent without a letter
  CHECK(display("\xE0\xB8\x97\xE0\xB8\xB5\xE0\xB9\x88").columns == 1);  // Thai, two marks above
  CHECK(display("caf\xC3\xA9", kQuoted).columns == 6);
  CHECK(columns_of("\xE6\x97\xA5"
                   "e\xCC\x81") == 3);
}

TEST_CASE("cut text is as wide as allowed and says that it is cut") {
  CHECK(display_head("instrument", 10).text == "instrument");
  CHECK(display_head("instrument", 9).text == "instrume…");
  CHECK(display_tail("instrument", 9).text == "…strument");
  CHECK(display_head("instrument", 9, kAscii).text == "instrum..");
  CHECK(display_head("instrument", 9, kQuoted).text == "\"instru…\"");
  CHECK(display_head("a\n\n\n", 6).text == "a\\n\\n…");  // never half an escape
  CHECK(display_head("\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", 4).columns == 3);
}

TEST_CASE("any bytes become printable UTF-8") {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const std::string bytes = {static_cast<char>(first), static_cast<char>(second), '\xA9'};
      const auto shown = display(bytes);
      const bool safe = !find_invalid_utf8(shown.text) && shown.columns > 0 &&
                        shown.columns == columns_of(shown.text) &&
                        shown.text.find_first_of("\x1b\n\r\x7f") == std::string::npos;
      CAPTURE(first);
      CAPTURE(second);
      CHECK(safe);
    }
  }
}

TEST_CASE("text is wrapped at spaces, and within a word only if it is longer than a line") {
  CHECK(wrap("one two three", 80) == "one two three\n");
  CHECK(wrap("one two three", 7) == "one two\nthree\n");
  CHECK(wrap("one two three", 8, 2) == "one two\n  three\n");
  CHECK(wrap("abcdefghij", 4, 1) == "abcd\n efg\n hij\n");
  CHECK(wrap("\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", 5) == "\xE6\x97\xA5\xE6\x9C\xAC\n\xE8\xAA\x9E\n");
  CHECK(wrap(std::string("one") + kNoBreak + "two three", 7) == "one two\nthree\n");
  CHECK(wrap("", 5) == "\n");
}

}  // namespace rometrace::display_text_test
