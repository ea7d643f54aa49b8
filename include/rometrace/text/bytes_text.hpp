#pragma once

#include <cstdint>
#include <string>

namespace rometrace {

/// A number of bytes for people, in powers of 1000, rounded down to a tenth: "999 B", "6.2 GB".
std::string bytes_text(std::uint64_t bytes);

}  // namespace rometrace
