#include "report/json_parts.hpp"

#include <cmath>

namespace rometrace {

using Json = nlohmann::ordered_json;

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

}  // namespace rometrace
