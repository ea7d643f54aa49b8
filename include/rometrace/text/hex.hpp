#pragma once

#include <string>
#include <string_view>

namespace rometrace {

/// Bytes in lower-case hexadecimal.
std::string hex(std::string_view bytes);

}  // namespace rometrace
