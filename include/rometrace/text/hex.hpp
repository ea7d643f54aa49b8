#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace rometrace {

/// Bytes in lower-case hexadecimal.
std::string hex(std::string_view bytes);

/// The bytes that hex() gave; nothing for a text that it does not give.
std::optional<std::string> unhex(std::string_view digits);

/// One byte as messages show it: "0xE2".
std::string hex_of_byte(unsigned char byte);

}  // namespace rometrace
