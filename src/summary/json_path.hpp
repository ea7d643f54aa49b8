#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace rometrace {

/// Of a setting in a message: long enough to tell two that differ apart.
inline constexpr std::size_t kShownBytes = 120;

/// The value at a dotted path, such as "run.noise.sigma"; null if there is none.
const nlohmann::json* value_at(const nlohmann::json& object, std::string_view path);

}  // namespace rometrace
