#pragma once

#include <string>
#include <string_view>

namespace rometrace {

/// Bytes in lower-case hexadecimal.
std::string hex(std::string_view bytes);

/// One byte as messages show it: "0xE2".
std::string hex_of_byte(unsigned char byte);

}  // namespace rometrace
