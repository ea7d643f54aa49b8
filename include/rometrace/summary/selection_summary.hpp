#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

namespace rometrace {

/// A facts file's part in the lines.
struct SelectionSummary {
  nlohmann::ordered_json facts;  ///< the header's "facts": files, records, selection, selected
  std::int64_t selected = 0;
  std::int64_t lines = 0;  ///< found of those selected
};

}  // namespace rometrace
