#include "rometrace/text/json_line.hpp"

#include <nlohmann/json.hpp>

namespace rometrace {

std::string to_line(const nlohmann::ordered_json& value) {
  constexpr int kOneLine = -1;
  constexpr bool kEscapeNonAscii = false;
  return value.dump(kOneLine, ' ', kEscapeNonAscii, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace rometrace
