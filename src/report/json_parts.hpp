#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace rometrace {

/// Bytes in lower-case hexadecimal.
std::string hex(std::string_view bytes);

/// The number; null for what JSON has no number for.
nlohmann::ordered_json number(double value);

}  // namespace rometrace
