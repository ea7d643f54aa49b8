#include "rometrace/text/subject.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

TEST_CASE("a place names an occurrence, and bytes must be the subject's") {
  const std::string_view prompt = "time and time again: aaa";
  const auto at = [&](std::string_view subject, std::string_view place) {
    return find_subject(prompt, subject, SubjectPlace::parse(place));
  };
  CHECK(find_subject(prompt, "time") == ByteRange{0, 4});
  CHECK(at("time", "first") == ByteRange{0, 4});
  CHECK(at("time", "1") == ByteRange{0, 4});
  CHECK(at("time", "2") == ByteRange{9, 13});
  CHECK(at("time", "last") == ByteRange{9, 13});
  CHECK(at("time", "9:13") == ByteRange{9, 13});
  CHECK(at("aa", "last") == ByteRange{22, 24});  // they overlap
  const auto complaint = [&](std::string_view subject, std::string_view place) {
    return testing::message_of<Error>([&] { at(subject, place); });
  };
  CHECK(complaint("time", "3") == Contains("2 times; expected 3"));
  CHECK(complaint("time", "9:12") == Contains("are \"tim\"; expected the subject \"time\", which begins at byte 0"));
  CHECK(complaint("time", "90:94") == Contains("are nothing"));
  CHECK(complaint("clock", "last") == Contains("is not in the prompt"));
  for (const auto* text : {"0", "", "second", "-1", "4:4", "5:4", "4:", ":4", "1:2:3", "1 ", "99999999999999999999"}) {
    CAPTURE(text);
    CHECK(complaint("time", text) == Contains("expected first, last, the number of an occurrence"));
  }
}

TEST_CASE("a slot is the subject's place, wherever else its text stands") {
  const auto placed = fill_slot("The sentiment of '{}' is", "time");
  CHECK(placed.prompt == "The sentiment of 'time' is");
  CHECK(placed.subject == ByteRange{18, 22});
  CHECK(testing::message_of<Error>([] { fill_slot("{} and {}", "time"); }) == Contains("{} 2 times"));
  CHECK(testing::message_of<Error>([] { fill_slot("none", "time"); }) == Contains("{} 0 times"));
}

TEST_CASE("a place is what was named, else the slot, else the first occurrence; what was left open is told") {
  const auto check = [](std::string_view text, std::string_view subject, std::optional<SubjectPlace> place,
                        std::string_view prompt, ByteRange range, bool slot_and_text, std::size_t occurrences) {
    CAPTURE(text);
    const auto choice = place_subject(text, subject, place);
    CHECK(choice.placed.prompt == prompt);
    CHECK(choice.placed.subject == range);
    CHECK(choice.slot_and_text == slot_and_text);
    CHECK(choice.occurrences == occurrences);
  };
  const auto last = SubjectPlace::parse("last");
  check("The time of {} is", "day", {}, "The time of day is", {12, 15}, false, 1);
  check("The time of {} is", "time", {}, "The time of time is", {12, 16}, true, 1);
  check("time {}", "time", {}, "time time", {5, 9}, true, 1);
  check("f({}) is time", "time", {}, "f(time) is time", {2, 6}, true, 1);
  // Inside another word it is no other place.
  check("The sentiment of '{}' is", "time", {}, "The sentiment of 'time' is", {18, 22}, false, 1);
  check("The {}rs of time2", "time", {}, "The timers of time2", {4, 8}, false, 1);
  check("\u00c9time, time\u0301, {}", "time", {}, "\u00c9time, time\u0301, time", {16, 20}, false, 1);
  check("a C++! {} is", "C++", {}, "a C++! C++ is", {7, 10}, true, 1);
  check("{} {", "{", {}, "{ {", {0, 1}, true, 1);
  // A whole text.
  check("time after time", "time", {}, "time after time", {0, 4}, false, 2);
  check("time after time", "time", last, "time after time", {11, 15}, false, 1);
  check("time is {}", "time", last, "time is {}", {0, 4}, false, 1);
  check("{} and {} time", "time", {}, "{} and {} time", {10, 14}, false, 1);
  CHECK(testing::message_of<Error>([] { place_subject("The {} is", "", {}); }) == Contains("is empty"));
  CHECK(testing::message_of<Error>([] { place_subject("The time is", "day", {}); }) ==
        Contains("is not in the prompt"));
}

TEST_CASE("a subject whose characters the tokeniser drops is an error") {
  const std::vector<Token> tokens = {{0, 0, 1}, {1, 3, 4}};
  CHECK(testing::message_of<Error>([&] { find_subject(tokens, "a  b", " "); }) == Contains("has no token of its own"));
}

}  // namespace
}  // namespace rometrace::subject_test
