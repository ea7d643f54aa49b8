#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

#include "rometrace/text/input_file.hpp"

namespace rometrace {

/// A JSON value as a message shows it, cut to `max_bytes`.
inline std::string shown(const nlohmann::json& value, std::size_t max_bytes = 60) {
  return one_line(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), max_bytes);
}

}  // namespace rometrace
