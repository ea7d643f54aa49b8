#pragma once

#include <nlohmann/json.hpp>

namespace rometrace {

/// The number; null for what JSON has no number for.
nlohmann::ordered_json number(double value);

}  // namespace rometrace
