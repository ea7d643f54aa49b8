#include "rometrace/text/utf8.hpp"

#include <string>

#include "checks.hpp"
#include "text/tokenizer_goldens.hpp"

namespace rometrace::utf8_test {
namespace {

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

/// UTF-8's bit pattern for `value`, whether or not it is a character.
std::string pattern_of(unsigned value) {
  const auto byte = [](unsigned bits) { return static_cast<char>(bits); };
  if (value < 0x80) return {byte(value)};
  if (value < 0x800) return {byte(0xC0 | value >> 6), byte(0x80 | (value & 63))};
  if (value < 0x10000) return {byte(0xE0 | value >> 12), byte(0x80 | (value >> 6 & 63)), byte(0x80 | (value & 63))};
  return {byte(0xF0 | value >> 18), byte(0x80 | (value >> 12 & 63)), byte(0x80 | (value >> 6 & 63)),
          byte(0x80 | (value & 63))};
}

TEST_CASE("every code point except the surrogates is well-formed UTF-8, and nothing above U+10FFFF is") {
  int characters = 0;
  for (unsigned value = 0; value < 0x140000; ++value) {
    const bool is_character = (value < 0xD800 || value > 0xDFFF) && value <= 0x10FFFF;
    characters += is_character ? 1 : 0;
    const bool accepted = !find_invalid_utf8(pattern_of(value));
    if (accepted != is_character) FAIL("U+" << std::hex << value << ": accepted is " << accepted);
  }
  CHECK(characters == 0x110000 - 0x800);
}

TEST_CASE("overlong forms are not UTF-8") {
  for (const char* form :
       {"\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF"}) {
    CAPTURE(form);
    CHECK(find_invalid_utf8(form) == 0);
  }
}

TEST_CASE("the offset is that of the first ill-formed byte") {
  CHECK(find_invalid_utf8("") == std::nullopt);
  CHECK(find_invalid_utf8("a\xFF") == 1);
  CHECK(find_invalid_utf8("é\xC3") == 2);
  CHECK(find_invalid_utf8("日本\xE6\x97") == 6);
  CHECK(find_invalid_utf8("\x80") == 0);
  CHECK(find_invalid_utf8(std::string_view("\0", 1)) == std::nullopt);
}

TEST_CASE("bytes that are not UTF-8 are replaced as Python replaces them") {
  const auto& goldens = testing::tokenizer_goldens()["lossy_utf8"];
  REQUIRE(goldens.size() >= 300);
  for (const auto& golden : goldens) {
    CAPTURE(golden["hex"]);
    CHECK(to_valid_utf8(from_hex(golden["hex"])) == golden["text"].get<std::string>());
  }
}

TEST_CASE("well-formed text comes back unchanged") {
  const std::string text = "naïve 日本 😀\n";
  CHECK(to_valid_utf8(text) == text);
}

}  // namespace
}  // namespace rometrace::utf8_test
