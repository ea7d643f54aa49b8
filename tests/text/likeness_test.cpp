#include "rometrace/text/likeness.hpp"

#include <string>
#include <string_view>
#include <vector>

#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/subject.hpp"

namespace rometrace::likeness_test {
namespace {

using testing::Contains;

struct Case {
  std::string_view text;
  std::string_view part;
  std::string_view found;
  std::string_view difference;
};

TEST_CASE("what looks like a text is found, and named where it differs first") {
  const std::vector<Case> cases = {
      {"That Miles\u00a0Davis plays", "Miles Davis", "Miles\u00a0Davis",
       "code point 6 is U+00A0 NO-BREAK SPACE, not U+0020 SPACE"},
      {"That Miles Davis plays", "Miles\u00a0Davis", "Miles Davis",
       "code point 6 is U+0020 SPACE, not U+00A0 NO-BREAK SPACE"},
      {"Miles \n Davis", "Miles Davis", "Miles \n Davis", "code point 7 is U+000A <control-000A>, not U+0044"},
      {"in Zu\u0308rich lies", "Z\u00fcrich", "Zu\u0308rich",
       "code point 2 is U+0075 LATIN SMALL LETTER U, not U+00FC LATIN SMALL LETTER U WITH DIAERESIS"},
      {"in Z\u00fcrich lies", "Zu\u0308rich", "Z\u00fcrich", "code point 2 is U+00FC"},
      {"the iPod\u200b is", "iPod", "iPod", ""},
      {"the i\u200bPod is", "iPod", "i\u200bPod", "code point 2 is U+200B ZERO WIDTH SPACE, not U+0050"},
      {"the iPod is", "iPod\u200b", "iPod", "code point 5 is the end, not U+200B ZERO WIDTH SPACE"},
      {"McDonald\u2019s was", "McDonald's", "McDonald\u2019s", "code point 9 is U+2019 RIGHT SINGLE QUOTATION MARK"},
      {"a \u201cB\u201d c", "\"B\"", "\u201cB\u201d", "code point 1 is U+201C LEFT DOUBLE QUOTATION MARK, not U+0022"},
      {"Jean\u2013Luc", "Jean-Luc", "Jean\u2013Luc", "code point 5 is U+2013 EN DASH, not U+002D HYPHEN-MINUS"},
      {"of \uff2d\uff29 is", "MI", "\uff2d\uff29", "code point 1 is U+FF2D FULLWIDTH LATIN CAPITAL LETTER M"},
      {"M\u0456les plays", "Miles", "M\u0456les", "code point 2 is U+0456 CYRILLIC SMALL LETTER BYELORUSSIAN"},
      {"miles plays", "Miles", "miles", "code point 1 is U+006D LATIN SMALL LETTER M, not U+004D LATIN CAPITAL"},
      {"в Москве", "МОСКВЕ", "Москве", "code point 2 is U+043E CYRILLIC SMALL LETTER O, not U+041E"},
      {"Miles, who", "Miles ", "Miles", "code point 6 is the end, not U+0020 SPACE"},
      {"x \U0001F600\uFE0F y", "\U0001F600 y", "\U0001F600\uFE0F y", "code point 2 is U+FE0F VARIATION SELECTOR-16"},
  };
  for (const Case& example : cases) {
    CAPTURE(example.text);
    CAPTURE(example.part);
    const auto place = find_alike(example.text, example.part);
    REQUIRE(place);
    const auto found = example.text.substr(place->begin, place->size());
    CHECK(found == example.found);
    CHECK(first_difference(found, example.part) == Contains(std::string(example.difference)));
  }
}

TEST_CASE("what looks different is not found") {
  CHECK_FALSE(find_alike("Miles plays", "Davis"));
  CHECK_FALSE(find_alike("Miles plays", ""));
  CHECK_FALSE(find_alike("Miles plays", " \u200b"));
  CHECK_FALSE(find_alike("Zurich", "Z\u00fcrich"));
  CHECK_FALSE(find_alike("a\xFF", "A"));
  CHECK_FALSE(find_alike("a", "A\xFF"));
  CHECK(first_difference("same", "same").empty());
}

TEST_CASE("a subject that only looks as it does in the prompt is shown by code points") {
  const auto message = testing::message_of<Error>([] { find_subject("Miles\u00a0Davis plays the", "Miles Davis"); });
  CHECK(message == Contains("; there is \"Miles\u00a0Davis\", whose code point 6 is U+00A0 NO-BREAK SPACE, not U+0020 "
                            "SPACE; expected it letter for letter"));
  CHECK(alike_words("Miles plays the", "Davis").empty());
}

TEST_CASE("two texts that only look the same are told apart, but for white space at their ends") {
  CHECK(unlike_words(" New\u00a0York", "New York") == " (its code point 4 is U+00A0 NO-BREAK SPACE, not U+0020 SPACE)");
  CHECK(unlike_words(" New York", "New York").empty());
  CHECK(unlike_words(" New York", "Boston").empty());
  CHECK(unlike_words(" New York", "York").empty());
}

}  // namespace
}  // namespace rometrace::likeness_test
