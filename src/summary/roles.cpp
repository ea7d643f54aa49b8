#include "rometrace/summary/roles.hpp"

#include <cassert>

namespace rometrace {

std::string_view to_string(Role role) {
  constexpr std::array<std::string_view, kRoles.size()> kNames = {"first_subject",    "middle_subject", "last_subject",
                                                                  "first_subsequent", "further",        "last"};
  return kNames[static_cast<std::size_t>(role)];
}

std::optional<Role> role_of(std::int64_t token, const TokenRange& subject, std::int64_t tokens) {
  const auto begin = static_cast<std::int64_t>(subject.begin), end = static_cast<std::int64_t>(subject.end);
  assert(0 <= begin && begin < end && end <= tokens && token < tokens);
  if (token < begin) return std::nullopt;
  if (token == tokens - 1) return Role::kLast;
  if (token == end - 1) return Role::kLastSubject;
  if (token == begin) return Role::kFirstSubject;
  if (token < end) return Role::kMiddleSubject;
  return token == end ? Role::kFirstSubsequent : Role::kFurther;
}

std::string_view role_rule() {
  return "each token from the subject's first on has one role, the first that fits of: last (of the prompt), "
         "last_subject, first_subject, middle_subject, first_subsequent (right after the subject), further";
}

}  // namespace rometrace
