#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "rometrace/text/subject.hpp"

namespace rometrace {

/// A token's part in its prompt: the six roles over which the paper averages (section 2.2).
enum class Role { kFirstSubject, kMiddleSubject, kLastSubject, kFirstSubsequent, kFurther, kLast };

/// All of them, in the order of a prompt; `static_cast<std::size_t>(role)` is a role's place here.
inline constexpr std::array kRoles = {Role::kFirstSubject,    Role::kMiddleSubject, Role::kLastSubject,
                                      Role::kFirstSubsequent, Role::kFurther,       Role::kLast};

std::string_view to_string(Role role);  ///< "first_subject", "middle_subject", ..., "last"

/// The role of the token at position `token` of a prompt of `tokens` tokens with `subject` in it (0 <= begin < end <=
/// tokens); nothing before the subject. Each token has one role: where several fit, last goes before last_subject, that
/// before first_subject, middle_subject, first_subsequent, further. (The reference counts such a token once for each.)
std::optional<Role> role_of(std::int64_t token, const TokenRange& subject, std::int64_t tokens);

/// The rule of role_of() in words, for results that must explain themselves.
std::string_view role_rule();

}  // namespace rometrace
