#include "rometrace/text/byte_alphabet.hpp"

#include <set>

#include "checks.hpp"

namespace rometrace::byte_alphabet_test {
namespace {

TEST_CASE("each byte is one character of its own and comes back") {
  std::set<std::string> characters;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    const std::string character = to_byte_alphabet(bytes);
    CHECK(from_byte_alphabet(character) == bytes);
    characters.insert(character);
  }
  CHECK(characters.size() == 256);
}

TEST_CASE("the alphabet is GPT-2's") {
  CHECK(to_byte_alphabet(" a\n\t~") == "ĠaĊĉ~");
  CHECK(to_byte_alphabet("é") == "Ã©");
  CHECK(to_byte_alphabet(std::string("\0\x7F\xA0\xAD", 4)) == "ĀġłŃ");
}

TEST_CASE("characters outside the alphabet stand for no byte") {
  for (const char* token : {" ", "\n", "\x7F", "\xC2\xA0", "\xC2\xAD", "ń", "日", "😀", "a b", "\xC4", "\xFF"}) {
    CAPTURE(token);
    const bool is_last_of_alphabet = std::string(token) == "Ń";
    CHECK(from_byte_alphabet(token).has_value() == is_last_of_alphabet);
  }
  CHECK(from_byte_alphabet("") == "");
}

}  // namespace
}  // namespace rometrace::byte_alphabet_test
