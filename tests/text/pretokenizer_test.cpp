#include "rometrace/text/pretokenizer.hpp"

#include <string>
#include <utility>

#include "checks.hpp"

namespace rometrace {
namespace {

using Parts = std::vector<std::string_view>;

const Pretokenizer& pretokenizer() {
  static const Pretokenizer made;
  return made;
}

TEST_CASE("a word takes the space before it") {
  CHECK(pretokenizer().split("Miles Davis plays") == Parts{"Miles", " Davis", " plays"});
  CHECK(pretokenizer().split("a  b   ") == Parts{"a", " ", " b", "   "});
  CHECK(pretokenizer().split("a\nb\n\n c") == Parts{"a", "\n", "b", "\n\n", " c"});
  CHECK(pretokenizer().split("") == Parts{});
}

TEST_CASE("contractions, numbers and signs stand alone") {
  CHECK(pretokenizer().split("it's we'Ve x1y, 12.5!?") ==
        Parts{"it", "'s", " we", "'", "Ve", " x", "1", "y", ",", " 12", ".", "5", "!?"});
}

TEST_CASE("white space is that of Unicode 16") {
  CHECK(pretokenizer().split("a\u3000\u2028b") == Parts{"a", "\u3000", "\u2028", "b"});
  CHECK(pretokenizer().split("!\u180E!") == Parts{"!\u180E!"});  // white space before Unicode 6.3
  CHECK(pretokenizer().split("!\u200B!") == Parts{"!\u200B!"});
}

TEST_CASE("letters and numbers are those of Unicode 16") {
  CHECK(pretokenizer().split("a\U0001E4D0\U00031350\u1C89") == Parts{"a\U0001E4D0\U00031350\u1C89"});  // 15, 15, 16
  CHECK(pretokenizer().split("1\U00010D40\U00011BF0") == Parts{"1\U00010D40\U00011BF0"});              // 16, 16
}

TEST_CASE("a megabyte of one character is one part") {
  for (const std::string unit : {" ", "a", "1", "!", "é", "\u3000", "😀"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    CAPTURE(unit);
    CHECK(pretokenizer().split(text) == Parts{text});
  }
}

TEST_CASE("a megabyte of spaces gives the last one to the word behind them") {
  const std::string spaces(1'000'000, ' ');
  CHECK(pretokenizer().split(spaces + "x") == Parts{std::string_view(spaces).substr(1), " x"});
}

}  // namespace
}  // namespace rometrace
