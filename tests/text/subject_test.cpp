#include "rometrace/text/subject.hpp"

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::subject_test {
namespace {

using testing::Contains;

struct Case {
  std::string_view prompt;
  std::string_view subject;
  std::vector<Token> tokens;
  std::size_t begin;
  std::size_t end;
};

TEST_CASE("the range holds the tokens that share a byte with the first occurrence of the subject") {
  const std::vector<Token> miles = {{0, 0, 1}, {1, 1, 5}, {2, 5, 11}, {3, 11, 17}, {4, 17, 21}};
  const std::vector<Case> cases = {
      {"Miles Davis plays the", "Miles Davis", miles, 0, 3},
      {"Miles Davis plays the", "Davis", miles, 2, 3},
      {"Miles Davis plays the", "Davis ", miles, 2, 4},  // the space is a byte of " plays"
      {"Miles Davis plays the", "e", miles, 1, 2},
      {"Miles Davis plays the", "Miles Davis plays the", miles, 0, 5},
      {"aa aa", "aa", {{0, 0, 2}, {1, 2, 5}}, 0, 1},
      {"x 😀", "😀", {{0, 0, 1}, {1, 1, 4}, {2, 4, 6}}, 1, 3},  // a character over two tokens
      {"ab", "ab", {{0, 0, 0}, {1, 0, 2}}, 1, 2},             // an empty token before the text
      {"é", "é", {{0, 0, 2}, {1, 0, 2}}, 0, 2},               // byte fallback: both cover the character
  };
  for (const Case& example : cases) {
    CAPTURE(example.prompt);
    CAPTURE(example.subject);
    const TokenRange range = find_subject(example.tokens, example.prompt, example.subject);
    CHECK(range.begin == example.begin);
    CHECK(range.end == example.end);
  }
}

TEST_CASE("a subject that is not there is an error that names it") {
  const std::vector<Token> tokens = {{0, 0, 5}};
  const auto complaint = [&](std::string_view subject) {
    return testing::message_of<Error>([&] { find_subject(tokens, "Miles", subject); });
  };
  CHECK(complaint("Davis") == Contains("subject \"Davis\" is not in the prompt \"Miles\""));
  CHECK(complaint("miles") == Contains("check its spelling"));
  CHECK(complaint("") == Contains("the subject of the prompt \"Miles\" is empty"));
  CHECK(testing::is_one_line(complaint("a\nb")));
}

TEST_CASE("a subject whose characters the tokeniser drops is an error") {
  const std::vector<Token> tokens = {{0, 0, 1}, {1, 3, 4}};
  CHECK(testing::message_of<Error>([&] { find_subject(tokens, "a  b", " "); }) == Contains("has no token of its own"));
}

}  // namespace
}  // namespace rometrace::subject_test
