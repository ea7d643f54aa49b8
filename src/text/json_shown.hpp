#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "rometrace/text/input_file.hpp"

namespace rometrace {

/// A JSON value as a message shows it.
inline std::string shown(const nlohmann::json& value) {
  return one_line(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), 60);
}

}  // namespace rometrace
