#include "rometrace/text/pretokenizer.hpp"

#include <string>
#include <utility>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/split_pattern.hpp"

namespace rometrace::pretokenizer_test {
namespace {

using Parts = std::vector<std::string_view>;

const Pretokenizer& pretokenizer() {
  static const Pretokenizer made({gpt2_split()}, "here");
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

Parts split_by(const SplitRule& rule, std::string_view text) {
  return Pretokenizer({rule}, "here").split(text);
}

TEST_CASE("matches, what lies between them, or both are parts") {
  CHECK(split_by({"[0-9]+", SplitRule::Keep::kAll}, "a12b3") == Parts{"a", "12", "b", "3"});
  CHECK(split_by({"[0-9]+", SplitRule::Keep::kMatches}, "a12b3") == Parts{"12", "3"});
  CHECK(split_by({"[0-9]+", SplitRule::Keep::kBetween}, "a12b3") == Parts{"a", "b"});
  CHECK(split_by({"[0-9]+", SplitRule::Keep::kAll}, "ab") == Parts{"ab"});
}

TEST_CASE("each stage sees only the parts of the one before it") {
  const Pretokenizer stages({{to_pcre2(R"(\p{N})", "here")}, gpt2_split()}, "here");
  CHECK(stages.split("it's 12 o") == Parts{"it", "'s", " ", "1", "2", " o"});
  CHECK(Pretokenizer({}, "here").split("a b") == Parts{"a b"});
}

TEST_CASE("a pattern is written for PCRE2 with the same matches") {
  CHECK(to_pcre2(R"((?i:'s|'ll)|[^\r\n-]?(a|b){1,3}\.\u0041)", "here") ==
        R"((?i:'s|'ll)|[^\r\n\-]?(?:a|b){1,3}\.\x{0041})");
  CHECK(split_by({to_pcre2(R"(\S+)", "here")}, "a\u180Eb\u2003c") == Parts{"a\u180Eb", "\u2003", "c"});
  CHECK(split_by({to_pcre2(R"([^\S\n]+)", "here")}, "a \t\nb") == Parts{"a", " \t", "\nb"});
  CHECK(to_pcre2("[^a[b-c|]d]", "here") == "[^ab-c|d]");
  CHECK(split_by({to_pcre2(R"(\P{L}+)", "here")}, "a12\u1C89") == Parts{"a", "12", "\u1C89"});
  CHECK(split_by({literal_pattern("a.b\\E*")}, "xa.b\\E*aab") == Parts{"x", "a.b\\E*", "aab"});
}

TEST_CASE("what means something else in PCRE2 is refused by name and place") {
  struct Refused {
    const char* pattern;
    const char* found;
  };
  const std::vector<Refused> refused = {
      {"a.", "byte 1: found \".\""},
      {"a$", "byte 1: found \"$\""},
      {"^a", "byte 0: found \"^\""},
      {R"(\w+)", R"(byte 0: found "\w")"},
      {R"(\bx)", R"(byte 0: found "\b")"},
      {R"(\v)", R"(byte 0: found "\v")"},
      {R"(\1)", R"(byte 0: found "\1")"},
      {R"(\x41)", R"(byte 0: found "\x")"},
      {R"(\p{Han})", R"(byte 0: found "\p{Han}")"},
      {R"(\p{Mn})", R"(byte 0: found "\p{Mn}")"},
      {R"([a\P{L}])", R"(byte 2: found "\P{L}" in a class)"},
      {"[a[^b]]", "byte 2: found \"[^\" in a class"},
      {"[a[[:alpha:]]]", "byte 3: found \"[:\" in a class"},
      {"[a[b]", "byte 0: found a class without end"},
      {"[a&&b]", "byte 2: found \"&&\" in a class"},
      {R"([\s-a])", "byte 3: found \"-\" inside a class"},
      {"[]a]", "byte 1: found \"]\" at the front of a class"},
      {"[ab", "byte 0: found a class without end"},
      {"a{2}+", "byte 4: found \"{2}+\""},
      {"a{,2}", "byte 1: found \"{\""},
      {"(?<name>a)", "byte 0: found \"(?<n\""},
      {"(?i)a", "byte 0: found \"(?i)\""},
      {"(?i:é)", "byte 4: found \"é\" where case is ignored"},
      {"(?i:st)", "byte 4: found \"s\" where case is ignored"},
      {"(a", "found an open group at its end"},
      {"a)", "found a \")\" without \"(\""},
  };
  for (const auto& [pattern, found] : refused) {
    CAPTURE(pattern);
    CHECK(testing::message_of<Error>([&] { to_pcre2(pattern, "here"); }) == testing::Contains(found));
  }
}

TEST_CASE("a pattern that PCRE2 does not take, or that takes nothing, is refused") {
  const auto complaint = [](const char* pattern) {
    return testing::message_of<Error>([&] { Pretokenizer({{pattern}}, "here"); });
  };
  CHECK(complaint("a**") == testing::Contains("here: PCRE2 does not take the pattern \"a**\", byte 2"));
  CHECK(complaint("a*") == testing::Contains("here: the pattern \"a*\" matches an empty text too"));
}

}  // namespace
}  // namespace rometrace::pretokenizer_test
