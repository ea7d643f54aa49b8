#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace rometrace {

/// `text`, JSON, with U+0085, U+2028 and U+2029 written as escapes: JSON lets them stand in a string, and Python's
/// splitlines() cuts there. Nothing else is changed.
std::string escape_line_ends(std::string_view text);

/// One line of strict JSON in UTF-8, without a final newline, and without what other readers take for one. Each number
/// reads back as exactly the same double; a byte that is not UTF-8 becomes U+FFFD.
std::string to_line(const nlohmann::ordered_json& value);

}  // namespace rometrace
