#include "rometrace/summary/roles.hpp"

#include <string>
#include <vector>

#include "checks.hpp"

namespace rometrace::roles_test {
namespace {

/// The roles of a prompt's tokens in letters: "." none, F first, M middle, E last (end) of the subject, S first
/// subsequent, U further, L last.
std::string roles(std::size_t begin, std::size_t end, std::int64_t tokens) {
  constexpr std::string_view kLetters = "FMESUL";
  std::string text;
  for (std::int64_t token = 0; token < tokens; ++token) {
    const auto role = role_of(token, {begin, end}, tokens);
    text += role ? kLetters[static_cast<std::size_t>(*role)] : '.';
  }
  return text;
}

}  // namespace

TEST_CASE("each token from the subject on has one role") {
  CHECK(roles(0, 4, 9) == "FMMESUUUL");
  CHECK(roles(2, 5, 8) == "..FMESUL");
  CHECK(roles(1, 3, 6) == ".FESUL");
}

TEST_CASE("a subject of one token is the last subject token only") {
  CHECK(roles(0, 1, 4) == "ESUL");
  CHECK(roles(2, 3, 5) == "..ESL");
}

TEST_CASE("a token right after the subject that ends the prompt is the last only") {
  CHECK(roles(0, 3, 4) == "FMEL");
  CHECK(roles(1, 2, 3) == ".EL");
}

TEST_CASE("where the subject ends the prompt its last token is the last only") {
  CHECK(roles(1, 4, 4) == ".FML");
  CHECK(roles(2, 4, 4) == "..FL");
  CHECK(roles(0, 2, 2) == "FL");
  CHECK(roles(3, 4, 4) == "...L");
  CHECK(roles(0, 1, 1) == "L");
}

TEST_CASE("all shapes of short prompts keep the tokens in order and the last one last") {
  for (std::int64_t tokens = 1; tokens <= 8; ++tokens) {
    for (std::size_t end = 1; end <= static_cast<std::size_t>(tokens); ++end) {
      for (std::size_t begin = 0; begin < end; ++begin) {
        const auto text = roles(begin, end, tokens);
        CAPTURE(text);
        CHECK(text.substr(0, begin) == std::string(begin, '.'));
        CHECK(text.back() == 'L');
        std::string order;  // first appearances
        for (const char c : text.substr(begin)) {
          if (order.empty() || order.back() != c) order += c;
        }
        std::string in_order;
        for (const char c : std::string("FMESUL")) {
          if (order.find(c) != std::string::npos) in_order += c;
        }
        CHECK(order == in_order);
      }
    }
  }
}

TEST_CASE("roles are named as in the summary's format") {
  std::vector<std::string> names;
  for (const auto role : kRoles) names.emplace_back(to_string(role));
  CHECK(names == std::vector<std::string>{"first_subject", "middle_subject", "last_subject", "first_subsequent",
                                          "further", "last"});
  for (const auto& name : names) CHECK(role_rule().find(name) != std::string_view::npos);
}

}  // namespace rometrace::roles_test
