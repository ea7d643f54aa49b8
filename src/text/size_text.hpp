#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace rometrace {

/// A number of bytes as people write it: "300B", "512K", "7076K", "20G" (units of 1024, up to 10240 of them but for
/// bytes); rounded up, so that it reads back as a size that is enough.
inline std::string size_text(std::int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "K", "M", "G", "T"};
  std::size_t unit = 0;
  for (; bytes >= (unit == 0 ? 1024 : 10 * 1024) && unit + 1 < kUnits.size(); ++unit) bytes = (bytes + 1023) / 1024;
  return std::to_string(bytes) + kUnits[unit];
}

}  // namespace rometrace
