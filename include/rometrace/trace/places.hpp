#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// Layers [begin, end).
struct LayerRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  bool contains(std::int64_t layer) const { return begin <= layer && layer < end; }
  auto operator<=>(const LayerRange&) const = default;
};

/// What is patched for the cell at `layer`: max(0, l - w/2) up to min(L, l + ceil(w/2)).
LayerRange window_of(std::int64_t layer, std::int64_t window, std::int64_t layers);

/// The prompt positions that have rows in the grids.
struct PositionRule {
  enum class Which { kAll, kSubject, kSubjectLast, kLast, kList };

  Which which = Which::kAll;
  std::vector<std::int64_t> list;  ///< ascending, for kList

  /// Reads "all", "subject", "subject-last", "last" or "0,3,4". Throws Error.
  static PositionRule parse(std::string_view text);
  bool operator==(const PositionRule&) const = default;
};
std::string to_string(const PositionRule& rule);  ///< reads back

}  // namespace rometrace
