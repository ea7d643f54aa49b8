#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

namespace rometrace::testing {

/// Calls `use` with `root` once for each place below `place`, and `place` itself, and each way to damage it: the place
/// has another value, or is not there. Of a list the first two. Both are as before in the end.
inline void for_each_damage(nlohmann::ordered_json& root, nlohmann::ordered_json& place,
                            const std::function<void(const nlohmann::ordered_json&)>& use) {
  using Value = nlohmann::ordered_json;
  constexpr std::size_t kOfAList = 2;
  const auto kept = place;
  for (const Value& other : {Value(nullptr), Value(true), Value(-1), Value(1e300), Value("x"), Value::array(),
                             Value::object(), Value(std::numeric_limits<std::uint64_t>::max())}) {
    place = other;
    use(root);
  }
  place = kept;
  if (place.is_object()) {
    for (const auto& [name, value] : kept.items()) {
      place.erase(name);
      use(root);
      place = kept;
    }
    for (auto& [name, value] : place.items()) for_each_damage(root, value, use);
  }
  for (std::size_t i = 0; i < (place.is_array() ? std::min(kOfAList, place.size()) : 0); ++i) {
    for_each_damage(root, place[i], use);
  }
}

}  // namespace rometrace::testing
