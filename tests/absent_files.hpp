#pragma once

#include <filesystem>

#include "skip.hpp"

namespace rometrace::testing {

/// Whether files that a test is about are not on this machine; the test case then counts as skipped, and is to end. A
/// clone has no real checkpoints.
inline bool is_absent(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) return false;
  skip(path.string() + " is not there");
  return true;
}

}  // namespace rometrace::testing
