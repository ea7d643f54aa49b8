#pragma once

#include <algorithm>
#include <sstream>
#include <string>

#include "report/display_text.hpp"

namespace rometrace::testing {

/// Columns of the widest line of `text`, which has no colours.
inline int widest_line(const std::string& text) {
  int widest = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) widest = std::max(widest, columns_of(line));
  return widest;
}

}  // namespace rometrace::testing
