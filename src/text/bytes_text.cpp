#include "rometrace/text/bytes_text.hpp"

#include <string_view>

namespace rometrace {

std::string bytes_text(std::uint64_t bytes) {
  constexpr std::uint64_t kKilo = 1000;
  constexpr std::string_view kUnits = "kMGTPE";
  if (bytes < kKilo) return std::to_string(bytes) + " B";
  std::size_t unit = 0;
  std::uint64_t tenths = bytes / (kKilo / 10);
  for (; tenths >= 10 * kKilo; tenths /= kKilo) ++unit;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " " + kUnits[unit] + "B";
}

}  // namespace rometrace
