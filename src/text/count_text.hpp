#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rometrace {

/// "1 fact", "3 facts".
inline std::string count_of(std::int64_t count, std::string_view noun) {
  return std::to_string(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

}  // namespace rometrace
