#pragma once

#include <cstddef>

namespace rometrace {

/// Bytes [begin, end) of a text.
struct ByteRange {
  std::size_t begin = 0;
  std::size_t end = 0;

  std::size_t size() const { return end - begin; }
  bool operator==(const ByteRange&) const = default;
};

}  // namespace rometrace
