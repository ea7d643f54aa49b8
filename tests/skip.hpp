#pragma once

#include <string>
#include <string_view>

#include "checks.hpp"

namespace rometrace::testing {

/// What a message begins with that says why a test case is not tried; main.cpp counts the case as skipped.
inline constexpr std::string_view kSkipped = "skipped: ";

/// Says that this machine lacks what the test case needs, `reason`. To be followed by the end of the case:
/// `return skip("…");`.
inline void skip(const std::string& reason) {
  const std::string message = std::string(kSkipped) + reason;
  MESSAGE(message);
}

}  // namespace rometrace::testing
