#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace rometrace {

/// One line of strict JSON in UTF-8, without a final newline. Each number reads back as exactly the same double; a byte
/// that is not UTF-8 becomes U+FFFD.
std::string to_line(const nlohmann::ordered_json& value);

}  // namespace rometrace
