#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace rometrace {

/// The number that up to 8 bytes make, the least significant first.
inline std::uint64_t little_endian(std::span<const std::byte> bytes) {
  std::uint64_t number = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) number = number << 8U | std::to_integer<std::uint64_t>(bytes[i]);
  return number;
}

/// Appends the `bytes` lowest bytes of a number, the least significant first.
inline void append_little_endian(std::string& text, std::uint64_t number, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) text += static_cast<char>(number >> 8U * i & 0xFFU);
}

}  // namespace rometrace
